"""One object of one task: from what a person asked to anchors, and from tracked frames to the regions to send."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from tam_backend.engines import Engine
from tam_backend.errors import BadInput
from tam_backend.labelstudio.clips import Clip
from tam_backend.labelstudio.prompts import is_waiting
from tam_backend.labelstudio.regions import mask_region, quality_note
from tam_backend.labelstudio.requests import Ask, Json, check_size, decode_region_mask, newest_work
from tam_backend.prompts import FramePrompts, Mask
from tam_backend.sessions.delivered import DeliveryLog
from tam_backend.sessions.inherited import InheritedAnchors
from tam_backend.sessions.seen import SeenMasks
from tam_backend.sessions.tracks import Work
from tam_backend.tracking.executor import Executor
from tam_backend.tracking.objects import own_pixels
from tam_backend.tracking.store import BlobStore
from tam_backend.tracking.tracker import Anchor, TrackedFrame, Tracker
from tam_backend.video.base import Reader


@dataclass(frozen=True, slots=True, eq=False)
class TaskObject:
    """An object that a person asked for, ready to be tracked.

    anchors: frame of the video -> what decides it. deleted: frames (item_index) whose mask the person removed: the
    object is not there for them. unsure: frames that are in the saved work, but perhaps not on the page. newest: frame
    (item_index) -> place of its newest prompt among the person's regions. rivals: other objects on the same picture; no
    pixel belongs to two.
    """

    ask: Ask
    clip: Clip
    work: Work
    anchors: dict[int, Anchor]
    deleted: frozenset[int]
    unsure: frozenset[int]
    newest: dict[int, int] = field(default_factory=dict)
    rivals: tuple[TaskObject, ...] = ()

    def rank(self, index: int) -> tuple[int, int]:
        """Who goes first where two are equally sure of a pixel: who was clicked last on this frame, then the order of
        the labels."""
        return -self.newest.get(index, -1), self.ask.mask_control.labels.index(self.ask.label)


@dataclass(frozen=True, slots=True)
class _Sent:
    """What became of the masks that were sent before (item_index). deleted, unsure: see TaskObject. shown: frames on
    which the page shows a mask of ours, as far as the saved work tells."""

    deleted: frozenset[int]
    unsure: frozenset[int]
    shown: frozenset[int]


class TaskObjects:
    """Makes them. Thread-safe."""

    def __init__(
        self,
        engine: Engine,
        store: BlobStore,
        seen: SeenMasks,
        log: DeliveryLog,
        inherited: InheritedAnchors,
        executor: Executor,
    ) -> None:
        self._executor = executor
        self._engine = engine
        self._store = store
        self._seen = seen
        self._log = log
        self._inherited = inherited

    def tracker(self, clip: Clip, reader: Reader) -> Tracker:
        """A tracker of the clip's frames that takes anchors from anywhere in the video; the caller closes it."""
        return self._executor.tracker(reader, clip.frames, self._store, range(len(reader)))

    def prepare(
        self, ask: Ask, task: Json, clip: Clip, reader: Reader, work: Work, tracker: Tracker, *, remember: bool = True
    ) -> TaskObject:
        """Read what a person decided on. task: as in the request, with drafts and annotations. Raises BadInput.

        remember: keep what the page showed before the first prompts of a frame for all requests to come.
        """
        for prompt in ask.prompts:
            check_size(prompt.region, reader.height, reader.width, f"the point or box {prompt.id!r}")
        sent = self._sent_before(ask, task, work)
        anchors = self._inherited.get(work, *ask.object, ask.ids, corrects=bool(ask.ours))
        gone = {clip.frames[i] for i in sent.deleted}
        anchors = {f: a for f, a in anchors.items() if f not in gone} | self._anchors(
            ask, clip, reader, work, tracker, sent.shown, remember
        )
        places = {r.get("id"): i for i, r in enumerate(newest_work(task, ask.ids).regions)}
        newest = {p.frame: places.get(p.id, len(places)) for p in ask.prompts}  # the last prompt of a frame counts
        return TaskObject(ask, clip, work, anchors, sent.deleted, sent.unsure, newest)

    @staticmethod
    def against(targets: Iterable[TaskObject], rivals: Iterable[TaskObject] = ()) -> list[TaskObject]:
        """The targets as rivals of each other and of ``rivals``, as far as they are on the same picture."""
        targets = list(targets)
        everyone = [*targets, *rivals]
        return [
            replace(
                t,
                rivals=tuple(
                    r for r in everyone if r is not t and r.ask.mask_control.image == t.ask.mask_control.image
                ),
            )
            for t in targets
        ]

    def region(self, target: TaskObject, tracked: TrackedFrame, tracker: Tracker) -> Json | None:
        """The region to send for a frame; None if a person's own mask is there, or nothing would change."""
        ask, index = target.ask, tracked.frame - target.clip.frames.start
        if index in ask.by_hand or index in target.deleted:
            return None
        mask = self._own(target, tracked, tracker)
        shown = ask.ours.get(index)
        if shown is None and not mask.any():
            return None  # an empty mask is sent only to take away one that the page shows
        region = mask_region(ask.mask_control, ask.label, index, mask, tracked.quality, self.meta(tracked))
        region["id"] = ask.region_id(index)
        # The clicked frame is sent in any case: a mask just deleted there still stands in the saved draft.
        again = (bool(ask.new_prompts) and index == ask.focus) or index in target.unsure
        return None if shown is not None and not again and _shows(shown, region, mask) else region

    def finished(self, target: TaskObject, tracker: Tracker, skip: frozenset[int] = frozenset()) -> Iterator[Json]:
        """The regions to send of all frames that are finished, but for those (of the video) to skip. Computes none."""
        for frame in target.clip.frames:
            if frame not in skip:
                tracked = tracker.stored(target.anchors, frame)
                region = self.region(target, tracked, tracker) if tracked is not None else None
                if region is not None:
                    yield region

    def _own(self, target: TaskObject, tracked: TrackedFrame, tracker: Tracker) -> Mask:
        """The object's mask without the pixels that a rival claims more, as far as the rivals' masks are finished."""
        index = tracked.frame - target.clip.frames.start
        others: tuple[list[TrackedFrame], list[TrackedFrame]] = [], []
        for rival in sorted(target.rivals, key=lambda r: r.rank(index)):
            if index not in rival.deleted:
                other = tracker.stored(rival.anchors, tracked.frame)
                if other is not None:
                    others[rival.rank(index) > target.rank(index)].append(other)
        return own_pixels(tracked, *others)

    def meta(self, tracked: TrackedFrame) -> Json:
        return quality_note(self._engine.name, tracked.frame, tracked.quality, self._engine.version)

    def _sent_before(self, ask: Ask, task: Json, work: Work) -> _Sent:
        """A mask that arrived on the page and is not in the work saved after that was deleted by the person.

        An object of which nothing is left was removed as a whole: what is asked now is a new one under its label.
        """
        if not ask.continued and not ask.taken:
            return _Sent(frozenset(), frozenset(), frozenset())
        saved = newest_work(task, ask.ids)
        answered = {r.get("id") for r in saved.regions if not is_waiting(r)}
        brought = {m.get("batch") for r in saved.regions if isinstance(m := r.get("meta"), dict)}
        here = ask.ours.keys() | ask.by_hand.keys() | ask.taken
        sent: set[int] = set()
        missing: set[int] = set()
        unsure: set[int] = set()
        for batch in self._log.batches(work, *ask.object):
            kind, _, name = batch.marker.partition(":")
            arrived = name in answered if kind == "prompt" else batch.marker in brought
            if arrived or (kind == "prompt" and name in ask.ids):  # it may be on its way into the saved work
                sent |= batch.frames
            if arrived:
                missing |= batch.frames - here
            if batch.saved and batch.saved == saved.version:
                unsure |= batch.frames
        asked = {p.frame for p in ask.new_prompts}  # a click on a frame says that the object is there
        return _Sent(frozenset(missing - asked), frozenset(unsure), frozenset(sent - missing | ask.ours.keys()))

    def _anchors(
        self, ask: Ask, clip: Clip, reader: Reader, work: Work, tracker: Tracker, shown: frozenset[int], remember: bool
    ) -> dict[int, Anchor]:
        """What the person decided, frame of the video -> anchor: their own masks, and their prompts elsewhere.

        shown: see ``_Sent``. remember: see ``prepare``.
        """
        height, width = reader.height, reader.width
        anchors: dict[int, Anchor] = {}
        for index, regions in ask.by_hand.items():
            mask = np.logical_or.reduce([decode_region_mask(r, height, width) for r in regions])
            anchors[clip.frames[index]] = Anchor(FramePrompts(mask=mask))
        for index, asked in ask.prompts_by_frame(height, width).items():
            frame = clip.frames[index]
            prior = None
            if asked.prompts.box is None:  # a box says by itself where the object is
                known, prior = self._seen.get(work, asked.first)
                if not known:
                    if index in shown:
                        prior = self._shown(ask, index, frame, anchors, tracker, height, width)
                    if remember:
                        self._seen.set(work, asked.first, prior)
            if asked.prompts.locates or prior is not None:
                anchors[frame] = Anchor(asked.prompts, prior)
        return anchors

    def _shown(
        self, ask: Ask, index: int, frame: int, anchors: dict[int, Anchor], tracker: Tracker, height: int, width: int
    ) -> Mask | None:
        """The mask that the page shows on a frame: that of our last answer, else the saved one. None if empty.

        Our last answer goes first because the saved draft lags some seconds behind the page.
        """
        tracked = tracker.stored(anchors, frame)
        if tracked is not None:
            mask = tracked.mask
        elif index in ask.ours:
            mask = decode_region_mask(ask.ours[index], height, width)
        else:
            return None
        return mask if mask.any() else None


def _shows(shown: Json, region: Json, mask: Mask) -> bool:
    """Whether a saved region looks as the one that would replace it. The page may have packed the mask anew."""
    if shown.get("type") != region["type"] or shown.get("from_name") != region["from_name"]:
        return False
    value = shown.get("value")
    if value == region["value"]:
        return True
    if not isinstance(value, dict) or value.get(region["type"]) != region["value"][region["type"]]:
        return False
    try:
        return np.array_equal(decode_region_mask(shown, *mask.shape), mask)
    except BadInput:
        return False
