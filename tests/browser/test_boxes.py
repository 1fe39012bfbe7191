"""Boxes in a real Label Studio: a box alone, then points with it, and what stays of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tamdev.sample import wait_for_frames

from tests.browser.conftest import Servers
from tests.browser.editor import Editor
from tests.browser.scene import FRAMES, HEIGHT, OBJECTS, WIDTH, centre, true_mask, write_video
from tests.browser.test_annotate import Json, decode, iou, masks, open_with_switches, wait_for_draft

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

CONFIG = """
<View>
  <Image name="image" valueList="$frames"/>
  <KeyPointLabels name="point" toName="image" smart="true" smartOnly="true">{labels}</KeyPointLabels>
  <BrushLabels name="mask" toName="image" smart="false">{labels}</BrushLabels>
  <RectangleLabels name="box" toName="image" smart="true" smartOnly="true">{labels}</RectangleLabels>
  <View style="display:none"><Text name="video" value="$video"/></View>
</View>
"""


def prompts(result: list[Json]) -> list[tuple[str, str, int]]:
    """(type, label, frame) of each point and box, sorted."""
    found = [r for r in result if r["type"] in ("keypointlabels", "rectanglelabels")]
    return sorted((r["type"], r["value"][r["type"]][0], r["item_index"]) for r in found)


def corners(name: str, frame: int) -> tuple[list[float], list[float]]:
    """Of a box around an object that leaves some pixels free, in percent."""
    rows, columns = np.nonzero(true_mask(name, frame))
    left, top, right, bottom = columns.min() - 5, rows.min() - 5, columns.max() + 6, rows.max() + 6
    return [100 * left / WIDTH, 100 * top / HEIGHT], [100 * right / WIDTH, 100 * bottom / HEIGHT]


@pytest.fixture
def task(servers: Servers, tmp_path: Path) -> tuple[int, int]:
    """(project, task) with the scene's video."""
    write_video(tmp_path / "scene.mp4")
    labels = f'<Label value="{OBJECTS[0]}" background="red"/><Label value="{OBJECTS[1]}" background="blue"/>'
    project = servers.label_studio.create_project("Browser test boxes", CONFIG.format(labels=labels))
    servers.label_studio.connect_backend(project, servers.backend)
    servers.label_studio.upload(project, tmp_path / "scene.mp4")
    return project, wait_for_frames(servers.label_studio, project)


def test_box_then_points(servers: Servers, editor: Editor, screenshots: Path, task: tuple[int, int]) -> None:
    open_with_switches(editor, *task)
    editor.call("goToFrame", 10)
    answer = editor.call("smartBox", "box", "Disc", *corners("Disc", 10))
    assert (answer["errors"], sorted(answer["frames"])) == ([], list(range(FRAMES)))
    boxed = masks(editor.call("serialize"))
    quality = [iou(decode(boxed["Disc", i]), true_mask("Disc", i)) for i in range(FRAMES)]
    assert min(quality) > 0.5, np.round(quality, 2)
    editor.call("screenshot", str(screenshots / "box.png"))

    # a point elsewhere, before the page has saved the box, changes the frames on its side; the box decides the others
    editor.call("goToFrame", 20)
    x, y = centre("Disc", 20)
    answer = editor.call("smartClick", "point", "Disc", x, y - 8, {"through": True})
    print(f"a point soon after a box is answered in {answer['seconds']:.1f} s")
    assert answer["errors"] == []
    result = editor.call("serialize")
    assert prompts(result) == [("keypointlabels", "Disc", 20), ("rectanglelabels", "Disc", 10)]
    both = masks(result)
    assert all(np.array_equal(decode(both["Disc", i]), decode(boxed["Disc", i])) for i in range(11))
    quality = [iou(decode(both["Disc", i]), true_mask("Disc", i)) for i in range(FRAMES)]
    assert min(quality) > 0.5, np.round(quality, 2)

    # a point within the box, for what the box alone says nothing about
    wait_for_draft(servers, task[1], lambda saved: len(prompts(list(saved.values()))) == 2)
    editor.call("goToFrame", 10)
    x, y = centre("Disc", 10)
    answer = editor.call("smartClick", "point", "Disc", x + 4, y, {"positive": False, "through": True})
    assert (answer["errors"], 10 in answer["frames"]) == ([], True)
    result = editor.call("serialize")
    cut = decode(masks(result)["Disc", 10])
    assert not cut[int(y / 100 * HEIGHT), int((x + 4) / 100 * WIDTH)]
    assert not (cut & ~decode(both["Disc", 10])).any()
    editor.call("screenshot", str(screenshots / "box-and-points.png"))

    # all of it stays
    expected = [("keypointlabels", "Disc", 10), ("keypointlabels", "Disc", 20), ("rectanglelabels", "Disc", 10)]
    assert prompts(result) == expected
    assert prompts(editor.call("submit")["result"]) == expected
    editor.call("reload")
    assert prompts(editor.call("serialize")) == expected
    editor.call("goToFrame", 10)
    editor.call("screenshot", str(screenshots / "reloaded.png"))
    (exported,) = servers.label_studio.get(f"/api/projects/{task[0]}/export", exportType="JSON")
    assert prompts(exported["annotations"][0]["result"]) == expected

    # without the box, only what the points say is left, and the box does not come back
    (left, top), _ = corners("Disc", 10)
    editor.call("selectMask", left + 1, top + 1)
    editor.call("deleteSelected")
    wait_for_draft(servers, task[1], lambda saved: len(prompts(list(saved.values()))) == 2)
    editor.call("goToFrame", 20)
    x, y = centre("Disc", 20)
    editor.call("smartClick", "point", "Disc", x, y + 8, {"through": True})
    assert prompts(editor.call("serialize")) == [("keypointlabels", "Disc", i) for i in (10, 20, 20)]


def test_a_point_before_the_page_has_the_answer_to_the_box(
    editor: Editor, screenshots: Path, task: tuple[int, int]
) -> None:
    """The page uses only the answer to its last request, and drops all waiting prompts that are not in it."""
    open_with_switches(editor, *task)
    editor.call("goToFrame", 8)
    editor.call("holdNextAnswer")
    editor.call("smartBox", "box", "Disc", *corners("Disc", 8), {"wait": False})
    editor.call("answerHeld")
    editor.call("goToFrame", 16)
    x, y = centre("Disc", 16)
    editor.call("smartClick", "point", "Disc", x, y, {"wait": False})
    editor.call("settled")
    editor.call("releaseAnswer")
    result = editor.call("serialize")
    editor.call("screenshot", str(screenshots / "both.png"))
    assert prompts(result) == [("keypointlabels", "Disc", 16), ("rectanglelabels", "Disc", 8)]
    found = masks(result)
    assert sorted(found) == [("Disc", i) for i in range(FRAMES)]
    assert iou(decode(found["Disc", 8]), true_mask("Disc", 8)) > 0.5
