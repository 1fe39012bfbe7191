"""Labeling configurations that are made for a list of labels, and the settings of a project that go with them."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape, quoteattr

#: ``--control`` -> what it is for.
CONTROLS = {
    "bitmask": "masks (BitmaskLabels): quick pages, also with 300 frames a clip",
    "brush": "masks (BrushLabels): for clips of up to 100 frames; needed for Label Studio's own PNG export",
    "rectangle": "boxes on a <Video> (VideoRectangle), without clicks: Label Studio cannot show masks on a video",
}
_MASK_TAGS = {"bitmask": "BitmaskLabels", "brush": "BrushLabels"}
_GOLDEN = 0.618034


def labeling_config(labels: Sequence[str], control: str) -> str:
    """The configuration for one of CONTROLS. labels: each once, in the order of their keys on the page.

    What each part of it is for, see ``tam_backend.labelstudio.config.EXAMPLE``.
    """
    colours = distinct_colours(len(labels))

    def tags(indent: int) -> str:
        pairs = zip(labels, colours, strict=True)
        return "".join(f'{" " * indent}<Label value={quoteattr(n)} background="{c}"/>\n' for n, c in pairs)

    if control == "rectangle":
        return (
            f'<View>\n  <Labels name="label" toName="video">\n{tags(4)}  </Labels>\n'
            '  <Video name="video" value="$video" frameRate="$fps"/>\n'
            '  <VideoRectangle name="box" toName="video"/>\n</View>\n'
        )
    tag = _MASK_TAGS[control]
    return (
        "<View>\n"
        '  <Image name="image" valueList="$frames" zoom="true" zoomControl="true"/>\n'
        f'  <KeyPointLabels name="point" toName="image" smart="true" smartOnly="true">\n{tags(4)}  </KeyPointLabels>\n'
        f'  <{tag} name="mask" toName="image" smart="false">\n{tags(4)}  </{tag}>\n'
        '  <View style="display:none">\n'
        '    <Text name="video" value="$video"/>\n'
        f'    <RectangleLabels name="box" toName="image" smart="false">\n{tags(6)}    </RectangleLabels>\n'
        "  </View>\n"
        "</View>\n"
    )


def distinct_colours(count: int) -> list[str]:
    """``#RRGGBB`` for so many labels: neighbours are far apart, and a third label never looks like the first."""
    colours = []
    for i in range(count):
        saturation, value = ((0.85, 1.0), (0.6, 0.85), (0.95, 0.7))[i // 5 % 3]
        red, green, blue = colorsys.hsv_to_rgb(i * _GOLDEN % 1, saturation, value)
        colours.append(f"#{round(red * 255):02X}{round(green * 255):02X}{round(blue * 255):02X}")
    return colours


def project_settings(labels: Sequence[str], control: str, annotators: int) -> dict[str, Any]:
    """What Label Studio 1.23 lets a project set, for the work with this backend.

    annotators: how many people annotate each task.
    """
    return {
        "show_collab_predictions": True,  # what the backend tracked is there when a task is opened
        "evaluate_predictions_automatically": False,  # or Label Studio asks for every task that a list shows
        "reveal_preannotations_interactively": False,
        "maximum_annotations": annotators,
        "sampling": "Sequential sampling",  # clips of a video one after the other
        "show_skip_button": True,
        "enable_empty_annotation": True,  # a clip may show no object at all
        "show_instruction": True,
        "expert_instruction": instructions(labels, control),
    }


def instructions(labels: Sequence[str], control: str) -> str:
    """HTML for the annotator, shown when labeling begins."""
    first = escape(labels[0])
    if control == "rectangle":
        return (
            "<p>Each track is there already. Where a box is wrong, drag it: that frame becomes a keyframe. "
            "Play to see the boxes between.</p>"
        )
    again = (
        "<b>Ctrl+click</b> reaches through a mask that is there already. <b>Ctrl+Alt+click</b> says: this is not the "
        "object."
        if control == "brush"
        else "On top of a mask that is there: select it, press Backspace, then click. <b>Alt+click</b> says: this is "
        "not the object."
    )
    return (
        "<ol>\n"
        "<li>At the bottom of the page, switch on <b>Auto-Annotation</b>, then <b>Auto-Accept Suggestions</b> beside "
        "it (once per browser).</li>\n"
        "<li>Choose the <b>magenta point tool</b>, the last one beside the picture.</li>\n"
        f"<li>Press <b>1</b> (the label <i>{first}</i>) and click on the object. Wait for its masks, on this frame and "
        "on the others. Press the label's key before each click.</li>\n"
        "</ol>\n"
        f"<p>{again}</p>\n"
        "<p>Ctrl+Right and Ctrl+Left go to the next and the previous frame. What you fix with brush and eraser, or "
        "draw by hand, stays as it is.</p>\n"
        "<p>One label is one object: keep to it in all clips of a video.</p>"
    )
