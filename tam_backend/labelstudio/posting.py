"""Predictions of ours: what they hold, and how a task gets one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from tam_backend import __version__
from tam_backend.labelstudio.config import LabelConfig
from tam_backend.labelstudio.regions import check_regions, mark_next
from tam_backend.labelstudio.requests import Json
from tam_backend.quality import Review, mean_quality

if TYPE_CHECKING:  # tracking without a server needs the version alone, and no HTTP client
    from tam_backend.labelstudio.connections import Client

#: With what the versions of all our predictions begin.
OURS = "tam-"


def model_version(engine: str) -> str:
    """That of predictions made with an engine of this name. Label Studio shows those of the project's version."""
    return f"{OURS}{__version__}-{engine}"


def prediction_of(
    objects: Iterable[tuple[Mapping[int, Json], Review, Sequence[Json]]], version: str, config: LabelConfig, frames: int
) -> Json:
    """The prediction of a task with ``frames`` frames.

    objects: of each its masks by frame, what the figures say of them (by the same frames), and further regions.
    """
    regions: list[Json] = []
    reviews = []
    for masks, found, more in objects:
        if found.fix_next is not None and found.fix_next in masks:
            mark_next(masks[found.fix_next])
        regions += [*masks.values(), *more]
        reviews.append(found)
    check_regions(regions, config, frames)
    return {"result": regions, "score": round(mean_quality(reviews), 4), "model_version": version}


def put_prediction(client: Client, task: int, prediction: Json, is_same: Callable[[Json], bool]) -> tuple[int, bool]:
    """Give a task a prediction in place of the one of the same version. is_same: whether that one can stay as it is.

    Returns (its id, whether anything was changed). Raises LabelStudioError.
    """
    ours = [p for p in client.predictions(task) if p.get("model_version") == prediction["model_version"]]
    if ours and is_same(ours[-1]):
        return int(ours[-1]["id"]), False
    # Never deleted and made anew: an annotation that was begun with it names it when it is submitted.
    if ours:
        client.replace_prediction(ours[-1]["id"], prediction)
        return int(ours[-1]["id"]), True
    return client.create_prediction(task, prediction), True
