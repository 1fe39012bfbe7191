"""What a project's labeling configuration lets us do: which tag takes points, which takes masks, for which labels."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from xml.etree.ElementTree import Element, ParseError

import defusedxml
import defusedxml.ElementTree as SafeElementTree

from tam_backend.errors import BadInput, LabelConfigError

#: A configuration that works. The hidden Text makes uploads land in data.video (a hidden Video does too, but then the
#: browser fetches the whole file, and the page can hang on a broken one); the hidden RectangleLabels keeps Label Studio
#: 1.23's exports from failing on valueList with keypoints; smart="false" leaves one magenta tool, the point.
EXAMPLE = """\
<View>
  <Image name="image" valueList="$frames" zoom="true" zoomControl="true"/>
  <KeyPointLabels name="point" toName="image" smart="true" smartOnly="true">
    <Label value="Object 1" background="#FFA39E"/>
    <Label value="Object 2" background="#7EC8E3"/>
  </KeyPointLabels>
  <BrushLabels name="mask" toName="image" smart="false">
    <Label value="Object 1" background="#FF0000"/>
    <Label value="Object 2" background="#0000FF"/>
  </BrushLabels>
  <View style="display:none">
    <Text name="video" value="$video"/>
    <RectangleLabels name="box" toName="image" smart="false">
      <Label value="Object 1"/><Label value="Object 2"/>
    </RectangleLabels>
  </View>
</View>
"""

#: Characters of a configuration that is read. Some are kept, and thousands of labels fit.
MAX_LENGTH = 1_000_000

_MASK_TAGS = {"BrushLabels": "brushlabels", "BitmaskLabels": "bitmasklabels"}


@dataclass(frozen=True, slots=True)
class Control:
    """A tag that labels regions on an image. type: as in regions, such as ``brushlabels``."""

    name: str
    type: str
    image: str
    labels: tuple[str, ...]

    def region_id(self, label: str, frame: int) -> str:
        """The id of our mask of one object on one frame of a task: always the same, so that a new one replaces it."""
        return f"tam-{hashlib.blake2b(f'{self.name}/{label}'.encode(), digest_size=4).hexdigest()}-{frame:05d}"


@dataclass(frozen=True, slots=True)
class LabelConfig:
    """The parts of a labeling configuration that matter here.

    boxes: the tags whose boxes are prompts: the smart ones. frames_keys: image tag name -> key of task data that holds
    its list of frames. video_key: key of task data with the video's address.
    """

    points: tuple[Control, ...]
    boxes: tuple[Control, ...]
    masks: tuple[Control, ...]
    frames_keys: tuple[tuple[str, str], ...]
    video_key: str

    def mask_control(self, image: str, label: str) -> Control:
        """The tag that carries the masks for ``label`` on an image tag."""
        for control in self.masks:
            if control.image == image and label in control.labels:
                return control
        raise BadInput(
            f"no BrushLabels or BitmaskLabels on image {image!r} has the label {label!r}: "
            "give the tag of points or boxes and the mask tag the same labels"
        )

    def find_mask(self, tag: str, label: str) -> Control | None:
        """The mask tag of this name, if it has the label."""
        return next((c for c in self.masks if c.name == tag and label in c.labels), None)

    def frames_key(self, image: str | None = None) -> str:
        """Key of the task data with the frames of an image tag (default: of the first one)."""
        return dict(self.frames_keys)[image] if image is not None else self.frames_keys[0][1]


@functools.lru_cache(maxsize=64)
def parse_label_config(xml: str) -> LabelConfig:
    """Read a labeling configuration. Raises LabelConfigError saying what to change, with XML to paste."""
    if len(xml) > MAX_LENGTH:
        raise LabelConfigError(f"the labeling configuration has {len(xml)} characters; the limit is {MAX_LENGTH}")
    try:
        root = SafeElementTree.fromstring(xml)
    except (ParseError, defusedxml.DefusedXmlException, ValueError) as e:
        raise LabelConfigError(f"the labeling configuration is not valid XML ({e}). One that works:\n{EXAMPLE}") from e
    images, singles = {}, []
    for tag in root.iter("Image"):
        frames = tag.get("valueList", "")
        if frames.startswith("$") and tag.get("name"):
            images[tag.get("name", "")] = frames[1:]
        else:
            singles.append(tag.get("name"))
    if not images:
        if singles:
            problem = 'its <Image> shows one picture; use valueList="$frames" in place of value'
        elif root.find(".//Video") is not None:
            problem = "<Video> cannot show keypoints or brush masks in Label Studio; the frames go into an <Image>"
        else:
            problem = "it has no <Image> with the frames"
        raise _unusable(problem)
    points = _controls(root.iter(), {"KeyPointLabels": "keypointlabels"}, images)
    smart = [e for e in root.iter("RectangleLabels") if e.get("smart", "true").lower() != "false"]
    boxes = _controls(smart, {"RectangleLabels": "rectanglelabels"}, images)
    masks = _controls(root.iter(), _MASK_TAGS, images)
    if not points:
        raise _unusable("it has no <KeyPointLabels> with labels on the <Image> of the frames")
    if not masks:
        raise _unusable("it has no <BrushLabels> or <BitmaskLabels> with labels on the <Image> of the frames")
    if not any(p.image == m.image and set(p.labels) & set(m.labels) for p in points for m in masks):
        raise _unusable("its keypoint tag and its mask tag have no label in common")
    return LabelConfig(points, boxes, masks, tuple(images.items()), _video_key(root))


def _video_key(root: Element) -> str:
    """The key of task data with the video: that of a Video tag, else of a Text tag named video, else "video"."""
    texts = (tag for tag in root.iter("Text") if tag.get("name") == "video")
    for tag in (*root.iter("Video"), *texts):
        if (value := tag.get("value", "")).startswith("$"):
            return value[1:]
    return "video"


def _controls(elements: Iterable[Element], tags: dict[str, str], images: dict[str, str]) -> tuple[Control, ...]:
    found = []
    for element in elements:
        image = element.get("toName", "")
        if element.tag not in tags or image not in images or not element.get("name"):
            continue
        labels = tuple(text for label in element.iter("Label") if (text := label.get("alias") or label.get("value")))
        if labels:
            found.append(Control(element.get("name", ""), tags[element.tag], image, labels))
    return tuple(found)


def _unusable(problem: str) -> LabelConfigError:
    return LabelConfigError(f"this labeling configuration cannot work: {problem}. One that works:\n{EXAMPLE}")
