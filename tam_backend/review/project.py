"""A project of Label Studio, task by task, as figures for the report."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tam_backend.errors import BadInput
from tam_backend.labelstudio.config import LabelConfig
from tam_backend.labelstudio.cuts import Cut, video_name
from tam_backend.labelstudio.outcomes import judge, offered_in
from tam_backend.labelstudio.projects import ProjectClient
from tam_backend.labelstudio.prompts import Json, saved_prompts
from tam_backend.labelstudio.submitted import (
    TaskMasks,
    choose_annotation,
    choose_prediction,
    mask_regions,
    picture_size,
)
from tam_backend.prompts import Mask
from tam_backend.review.figures import Disagreement, TrackFigures, disagreement, mask_figures
from tam_backend.sessions.outcomes import Outcome
from tam_backend.tracking.filestore import write_atomically

#: Of a task with more annotations, so many are compared with each other.
_COMPARED = 4


@dataclass(slots=True)
class TaskFigures:
    """A task. name: of its video, with the frames it shows. source: whose masks these are, in words. minutes: that
    people spent on its annotations, None if unknown. problem: why there are no figures, "" if there are."""

    id: int
    name: str
    frames: range
    source: str = ""
    submitted: bool = False
    minutes: float | None = None
    tracks: list[TrackFigures] = field(default_factory=list)
    disagreements: list[Disagreement] = field(default_factory=list)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    problem: str = ""

    def page(self, frame: int) -> int:
        """The page of the editor that shows a frame of the video; it counts from 1."""
        return self.frames.index(frame) + 1


def review_project(
    client: ProjectClient,
    project: Json,
    config: LabelConfig,
    folder: Path,
    progress: Callable[[Iterable[Json]], Iterable[Json]],
) -> list[TaskFigures]:
    """Figures about all tasks that have frames. folder: keeps what was fetched, so that a run that was cut off goes on.

    Raises LabelStudioError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [
        review_task(task, *_work_of(client, task, folder), config)
        for task in progress(client.tasks(int(project["id"])))
        if _has_frames(task, config)
    ]


def _has_frames(task: Json, config: LabelConfig) -> bool:
    with contextlib.suppress(BadInput):
        return Cut.of_task(task["data"], config) is not None
    return False


def _work_of(client: ProjectClient, task: Json, folder: Path) -> tuple[list[Json], list[Json]]:
    """(annotations, predictions) of a task, from the folder if they are there in the task's present state."""
    number, path = int(task["id"]), folder / f"{task['id']}.json"
    state = [task.get(k) for k in ("updated_at", "total_annotations", "total_predictions")]
    with contextlib.suppress(OSError, ValueError, KeyError):
        content = json.loads(path.read_bytes())
        if state[0] and content["state"] == state:
            return content["annotations"], content["predictions"]
    annotations = client.annotations(number) if task.get("total_annotations") != 0 else []
    predictions = client.predictions(number) if task.get("total_predictions") != 0 else []
    content = {"state": state, "annotations": annotations, "predictions": predictions}
    write_atomically(path, json.dumps(content).encode())
    return annotations, predictions


def review_task(task: Json, annotations: list[Json], predictions: list[Json], config: LabelConfig) -> TaskFigures:
    """Figures about one task. Of annotations the one counts that is exported; without one, the newest prediction."""
    cut = Cut.of_task(task["data"], config)
    assert cut is not None
    frames = cut.frames
    figures = TaskFigures(int(task["id"]), f"{video_name(task['data'], config)}, {frames[0]} to {frames[-1]}", frames)
    counting = [a for a in annotations if not a.get("was_cancelled")]
    chosen, prediction = choose_annotation(counting), choose_prediction(predictions)
    work = chosen or prediction
    if work is None:
        figures.problem = "nothing was submitted or predicted yet"
        return figures
    figures.submitted = chosen is not None
    figures.source = f"annotation {chosen['id']} by {_who(chosen)}" if chosen else f"prediction {work['id']}"
    times = [float(a["lead_time"]) for a in counting if isinstance(a.get("lead_time"), int | float)]
    figures.minutes = sum(times) / 60 if times else None
    offered = offered_in(prediction, config)
    for annotation in counting:
        for version, outcome in judge(annotation.get("result") or [], offered, config).items():
            figures.outcomes[version] = figures.outcomes.get(version, Outcome()) + outcome
    try:
        _fill(figures, work, prediction if chosen else None, counting, config)
    except BadInput as e:
        figures.problem = str(e)
    return figures


def _fill(figures: TaskFigures, work: Json, before: Json | None, counting: list[Json], config: LabelConfig) -> None:
    every = [*counting, work, *([before] if before else [])]
    size = next((s for w in every if (s := picture_size(mask_regions(w)))), None)
    if size is None:
        return  # nothing has a mask: the figures are empty, and true
    count = len(figures.frames)

    def masks_of(some: Json) -> TaskMasks:
        return TaskMasks(mask_regions(some), f"task {figures.id}, {some.get('id')}", config, count, size)

    prompts = saved_prompts((r for r in work.get("result") or [] if isinstance(r, dict)), config, count)
    prompted = {(p.label, p.frame) for p in prompts}
    masks, predicted = masks_of(work), masks_of(before) if before else None
    tracks: dict[str, TrackFigures] = {}
    for index, frame in enumerate(figures.frames):
        shown = masks.at(index)
        earlier: Mapping[str, Mask] = {}
        if predicted is not None and any(m.by_hand for m in shown.values()):
            earlier = {label: found.mask for label, found in predicted.at(index).items()}
        for label, found in shown.items():
            track = tracks.setdefault(label, TrackFigures(label, figures.frames))
            decided = figures.submitted and (found.by_hand or (label, index) in prompted)
            track.shown[frame] = mask_figures(found.mask, found.quality, decided)
            if found.by_hand and figures.submitted:
                if label in earlier:
                    both, either = (int((m).sum()) for m in (found.mask & earlier[label], found.mask | earlier[label]))
                    track.changed[frame] = both / either
                else:
                    track.changed_blind += 1
    for prompt in prompts:
        if prompt.label in tracks:
            tracks[prompt.label].clicks += 1
    order = [label for control in config.masks for label in control.labels]
    figures.tracks = [tracks[label] for label in order if label in tracks]
    compared = [(f"annotation {a['id']} by {_who(a)}", masks_of(a)) for a in counting[:_COMPARED]]
    for (one, a), (other, b) in itertools.combinations(compared, 2):
        figures.disagreements.append(
            disagreement(one, other, figures.frames, _plain(a), _plain(b), order)
        )  # fmt: skip


def _plain(masks: TaskMasks) -> Callable[[int], Mapping[str, Mask]]:
    return lambda index: {label: found.mask for label, found in masks.at(index).items()}


def _who(annotation: Json) -> str:
    """The person who made an annotation, as far as Label Studio says it here."""
    by = annotation.get("completed_by")
    if isinstance(by, dict):
        by = by.get("email") or by.get("username") or by.get("id")
    return f"user {by}" if isinstance(by, int) else str(by or "somebody")
