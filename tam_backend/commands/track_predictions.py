"""``predictions.json`` of ``tam track``: a task with its masks, as Label Studio imports it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import quoteattr

from tam_backend.drawing import PALETTE
from tam_backend.errors import BadInput
from tam_backend.labelstudio.config import Control
from tam_backend.labelstudio.regions import mark_next, mask_region, quality_note
from tam_backend.quality import Review, mean_quality
from tam_backend.tracking.objects import IdMap

#: ``--region-type`` -> type of the regions, tag in the labeling configuration
REGION_TYPES = {"brush": ("brushlabels", "BrushLabels"), "bitmask": ("bitmasklabels", "BitmaskLabels")}
#: Names of the tags of ``label_config`` that nobody chooses.
_OTHER_NAMES = ("point", "video", "box")


@dataclass(frozen=True, slots=True)
class Naming:
    """What the project calls things. labels: object id -> label, each once. Raises BadInput for unusable names."""

    from_name: str
    to_name: str
    region_type: str
    labels: Mapping[int, str]

    def __post_init__(self) -> None:
        names = (self.from_name, self.to_name, *_OTHER_NAMES)
        if len(set(names)) < len(names) or not all(names):
            raise BadInput(
                f"--from-name {self.from_name} and --to-name {self.to_name} must differ from each other and from the "
                f"other tags of the configuration: {', '.join(_OTHER_NAMES)}"
            )


def name_objects(object_ids: Iterable[int], given: Iterable[tuple[int, str]]) -> dict[int, str]:
    """The label of each object: those given with ``--label``, else ``Object <id>``. Raises BadInput."""
    labels = {object_id: f"Object {object_id}" for object_id in object_ids}
    for object_id, name in given:
        if object_id not in labels:
            known = ", ".join(map(str, labels))
            raise BadInput(f"--label {object_id}={name}: no object {object_id} is tracked, the objects are {known}")
        labels[object_id] = name
    for name in labels.values():
        same = [i for i, other in labels.items() if other == name]
        if len(same) > 1:
            raise BadInput(
                f"--label: objects {same[0]} and {same[1]} are both called {name!r}; in Label Studio one label is one "
                "object"
            )
    return labels


def task_chunks(
    data: Mapping[str, Any],
    naming: Naming,
    frames: range,
    masks: Iterable[tuple[int, IdMap, Mapping[int, float]]],
    reviews: Mapping[int, Review],
    engine: str,
    model_version: str,
) -> Iterator[str]:
    """The JSON text of one task with one prediction, in pieces, so that the masks are never in memory all at once.

    data: of the task; its list of frames is that of ``frames``. masks: (frame of the video, HxW uint8 ids, object id ->
    quality) of the finished frames. An object without pixels on a frame has no region there. reviews: by object.
    """
    control = Control(naming.from_name, REGION_TYPES[naming.region_type][0], naming.to_name, ())
    yield '{"data": ' + json.dumps(data, ensure_ascii=False)
    yield ',\n "predictions": [{"model_version": ' + json.dumps(model_version) + ', "result": ['
    first = True
    for frame, ids, qualities in masks:
        for object_id, quality in qualities.items():
            mask = ids == object_id
            if mask.any():
                meta = quality_note(engine, frame, quality)
                region = mask_region(control, naming.labels[object_id], frame - frames.start, mask, quality, meta)
                if frame == reviews[object_id].fix_next:
                    mark_next(region)
                yield ("\n" if first else ",\n") + json.dumps(region, ensure_ascii=False)
                first = False
    yield f'\n], "score": {round(mean_quality(reviews.values()), 4)}}}]}}\n'


def label_config(naming: Naming) -> str:
    """The labeling configuration that shows the predictions and, with the backend connected, takes further clicks."""
    tag = REGION_TYPES[naming.region_type][1]

    def labels(indent: int) -> str:
        lines = []
        for object_id, name in naming.labels.items():
            colour = "#{:02X}{:02X}{:02X}".format(*PALETTE[object_id].tolist())
            lines.append(f'{" " * indent}<Label value={quoteattr(name)} background="{colour}"/>\n')
        return "".join(lines)

    image, mask = quoteattr(naming.to_name), quoteattr(naming.from_name)
    return (
        "<View>\n"
        f'  <Image name={image} valueList="$frames" zoom="true" zoomControl="true"/>\n'
        f'  <KeyPointLabels name="point" toName={image} smart="true" smartOnly="true">\n{labels(4)}'
        "  </KeyPointLabels>\n"
        f"  <{tag} name={mask} toName={image}>\n{labels(4)}  </{tag}>\n"
        '  <View style="display:none">\n'
        '    <Video name="video" value="$video"/>\n'
        f'    <RectangleLabels name="box" toName={image}>\n{labels(6)}    </RectangleLabels>\n'
        "  </View>\n"
        "</View>\n"
    )
