"""From an interactive request to the regions that answer it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Hashable, Iterator
from dataclasses import replace

import numpy as np

from tam_backend.engines import Engine
from tam_backend.errors import BadInput
from tam_backend.labelstudio.clips import Clip, ClipFiller
from tam_backend.labelstudio.config import LabelConfig
from tam_backend.labelstudio.connections import Connections
from tam_backend.labelstudio.drafts import Drafts
from tam_backend.labelstudio.library import VideoLibrary
from tam_backend.labelstudio.regions import check_regions, echo_prompt, mask_region
from tam_backend.labelstudio.requests import Ask, Json, check_size, decode_region_mask, parse_asks
from tam_backend.prompts import FramePrompts, Mask
from tam_backend.sessions.pending import PendingRequests, Ticket, same_draft
from tam_backend.sessions.seen import SeenMasks
from tam_backend.sessions.unsaved import UnsavedPrompts
from tam_backend.tracking.store import BlobStore
from tam_backend.tracking.tracker import Anchor, TrackedFrame, Tracker
from tam_backend.video.base import Reader

log = logging.getLogger(__name__)


class ClickAnswers:
    """Answers clicks. Thread-safe.

    answer_seconds: how long one request may compute; what is finished then is sent, the rest comes with the next click.
    """

    def __init__(
        self,
        engine: Engine,
        library: VideoLibrary,
        clips: ClipFiller,
        store: BlobStore,
        connections: Connections,
        answer_seconds: float,
    ) -> None:
        self._engine = engine
        self._library = library
        self._clips = clips
        self._store = store
        self._connections = connections
        self._answer_seconds = answer_seconds
        self._seen = SeenMasks(store)
        self._pending: PendingRequests[Ask] = PendingRequests()
        self._unsaved = UnsavedPrompts()
        # Frames are computed one at a time: each uses all cores, and requests that take turns frame by frame all
        # get their nearest frames soon.
        self._compute = threading.Lock()

    @property
    def running(self) -> int:
        """How many requests are being answered."""
        return self._pending.running

    def answer(self, task: Json, context: Json, config: LabelConfig, project: str, started: float) -> Json:
        """What answers a click: ``{"result": regions, "score": ...}``, the masks that change and the prompts.

        started: time.monotonic() at which the request came. Raises BadInput or MediaError.
        """
        clip = self._clips.find(task["data"], config, self._connections.current())
        frames = len(clip.frames)
        asks = parse_asks(task, context, config, frames)
        if not asks:
            raise BadInput("params.context.result has no keypoints or boxes: only those of smart tags can be answered")
        work = (project, task.get("id"))
        subject = frozenset((a.mask_control.name, a.label) for a in asks)
        ids = frozenset[str]().union(*(a.ids for a in asks))
        ticket = Ticket(work, subject, ids, asks[0].draft, asks)
        siblings = self._pending.begin(ticket)
        drafts = Drafts(self._connections.current(), task)
        try:
            if self._incomplete(work, asks):
                new_prompts = frozenset(p.id for a in asks for p in a.new_prompts)
                if saved := drafts.saved_after(new_prompts, lambda: ticket.overtaken):
                    ticket.work = asks = parse_asks(task | {"drafts": saved}, context, config, frames)
                started = time.monotonic()
            reader = self._library.open(clip.video)
            try:
                deadline = started + self._answer_seconds
                regions = self._objects(asks, ticket, clip, reader, deadline)
                for ask in self._left_behind(ticket, siblings, drafts, config):
                    ticket.work = [*ticket.work, ask]
                    regions += self._objects([ask], ticket, clip, reader, max(deadline, time.monotonic() + 1))
                regions = self._safe(regions, ticket, drafts, config)
            finally:
                reader.close()
        finally:
            self._pending.end(ticket)
        regions = list({r["id"]: r for r in regions}.values())  # a point may be strayed and left behind
        check_regions(regions, config, frames)
        score = float(np.mean([r["score"] for r in regions if "score" in r] or [0.0]))
        return {"result": regions, "score": score}

    def _incomplete(self, work: Hashable, asks: list[Ask]) -> bool:
        """Whether points (or boxes) of an object may be missing, made so shortly before a box (or a point) that the
        draft in its request does not have them yet."""
        missing = False
        for ask in asks:
            for kind in {p.region["type"] for p in ask.prompts if not p.merged}:
                missing |= self._unsaved.note((work, ask.mask_control.name, ask.label), kind, ask.saved)
        return missing

    def _safe(self, regions: list[Json], ticket: Ticket[Ask], drafts: Drafts, config: LabelConfig) -> list[Json]:
        """Leave out masks that might overwrite what a person has just fixed.

        A draft is saved some seconds after a change. So a fix made shortly before the click is not in the request, and
        a mask of ours with the same id would replace it. Where the page may show masks of ours already, frames other
        than the clicked one go out only if a draft saved after the click says that they are untouched; otherwise they
        come with the next click.
        """
        asks = {(a.mask_control.name, a.label): a for a in ticket.work}

        def key(region: Json) -> tuple[str, str, int]:
            return region["from_name"], region["value"][region["type"]][0], region["item_index"]

        def at_risk(region: Json) -> bool:
            ask = asks.get(key(region)[:2])
            if "score" not in region or ask is None:
                return False
            return ask.answered or (ask.continued and region["item_index"] != ask.focus)

        if not drafts.readable or not any(map(at_risk, regions)):
            return regions
        new_prompts = frozenset(p.id for a in ticket.work for p in a.new_prompts)
        fixed = drafts.by_hand(new_prompts, config, lambda: ticket.overtaken)
        if fixed is None:
            log.info("task %s: no draft was saved after the click; frames shown before wait for the next", ticket.task)
            return [r for r in regions if not at_risk(r)]
        return [r for r in regions if "score" not in r or key(r) not in fixed]

    def _left_behind(
        self, ticket: Ticket[Ask], siblings: list[Ticket[Ask]], drafts: Drafts, config: LabelConfig
    ) -> list[Ask]:
        """What older requests of the same person asked for other objects: the page will drop the answers to those."""
        taken: list[Ask] = []
        for sibling in siblings:
            answered = sibling.answered_at is not None
            same = None if answered else same_draft(sibling, ticket)
            if same is None:
                same = drafts.held_together(ticket.ids, sibling.ids, answered=answered)
            if same:
                sibling.overtake()
                mine = {(a.mask_control.name, a.label) for a in (*ticket.work, *taken)}
                left = [
                    a
                    for a in sibling.work
                    if (a.mask_control.name, a.label) not in mine and a.mask_control in config.masks
                ]
                taken += [replace(a, answered=answered) for a in left]
        return taken

    def _objects(self, asks: list[Ask], ticket: Ticket[Ask], clip: Clip, reader: Reader, deadline: float) -> list[Json]:
        """The regions for several objects: masks unless a newer request came, and the prompts in any case."""
        regions: list[Json] = []
        for ask in asks:
            masks = list(self._masks(ask, ticket, clip, reader, deadline))
            if not ticket.overtaken:
                regions += masks
            regions += map(echo_prompt, ask.echoed)
        return regions

    def _masks(self, ask: Ask, ticket: Ticket[Ask], clip: Clip, reader: Reader, deadline: float) -> Iterator[Json]:
        """The regions of one object that the page does not show yet, until the time is up or a newer request came."""
        for prompt in ask.prompts:
            check_size(prompt.region, reader.height, reader.width, f"the point or box {prompt.id!r}")
        with Tracker(self._engine, reader, clip.frames, self._store) as tracker:
            anchors = self._anchors(ask, clip, reader, ticket.task, tracker)
            if not anchors:
                return
            tracked = tracker.track(anchors, clip.frames[ask.focus])
            try:
                while not ticket.overtaken:
                    with self._compute:
                        frame = next(tracked, None)
                    if frame is None:
                        return
                    region = self._region(ask, clip, frame)
                    if region is not None:
                        yield region
                    if time.monotonic() > deadline:
                        return
            finally:
                tracked.close()

    def _region(self, ask: Ask, clip: Clip, tracked: TrackedFrame) -> Json | None:
        """The region to send for a frame; None if a person's own mask is there, or nothing would change."""
        index = tracked.frame - clip.frames.start
        if index in ask.by_hand:
            return None
        mask = tracked.mask
        shown = ask.ours.get(index)
        if shown is None and not mask.any():
            return None  # an empty mask is sent only to take away one that the page shows
        meta = {"engine": self._engine.name, "frame": tracked.frame, "quality": round(tracked.quality, 4)}
        region = mask_region(ask.mask_control, ask.label, index, mask, tracked.quality, meta)
        region["id"] = ask.region_id(index)
        # The clicked frame is sent in any case: a mask just deleted there still stands in the saved draft.
        if shown is not None and shown.get("value") == region["value"] and index != ask.focus:
            return None
        return region

    def _anchors(self, ask: Ask, clip: Clip, reader: Reader, work: Hashable, tracker: Tracker) -> dict[int, Anchor]:
        """What the person decided, frame of the video -> anchor: their own masks, and their prompts elsewhere."""
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
                    prior = self._shown(ask, index, frame, anchors, tracker, height, width)
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
