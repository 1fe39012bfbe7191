"""From an interactive request to the regions that answer it."""

from __future__ import annotations

import logging
import time
from collections.abc import Hashable, Iterator
from dataclasses import replace
from typing import Protocol

import numpy as np

from tam_backend.errors import BadInput, LabelStudioError
from tam_backend.labelstudio.clips import Clip, ClipFiller, project_of
from tam_backend.labelstudio.config import LabelConfig
from tam_backend.labelstudio.connections import Connections
from tam_backend.labelstudio.drafts import Drafts
from tam_backend.labelstudio.library import VideoLibrary
from tam_backend.labelstudio.objects import TaskObject, TaskObjects
from tam_backend.labelstudio.prompts import PROMPT_TYPES, is_waiting
from tam_backend.labelstudio.regions import check_regions, echo_prompt
from tam_backend.labelstudio.requests import Ask, Json, drawn_objects, made_by_hand, newest_work, parse_asks
from tam_backend.logfacts import log_about
from tam_backend.metrics import CLICK, Metrics
from tam_backend.sessions.activity import Activity
from tam_backend.sessions.delivered import DeliveryLog
from tam_backend.sessions.pending import PendingRequests, Ticket, same_draft
from tam_backend.sessions.tracks import Track, TrackTable, Work
from tam_backend.sessions.turns import DeviceTurns
from tam_backend.sessions.unsaved import UnsavedPrompts
from tam_backend.tracking.tracker import TrackedFrame
from tam_backend.video.base import Reader

log = logging.getLogger(__name__)


#: How long one request may compute where many people are at work, in seconds. Then it is answered with what is
#: finished: its own frame at least.
CROWDED_SECONDS = 0.1


class Background(Protocol):
    """Where the rest of the work goes; see BackgroundJobs."""

    def begin(self, track: Track) -> Track: ...

    def note(self, track: Track, frame: int) -> None: ...

    def release(self, track: Track) -> None: ...


class ClickAnswers:
    """Answers clicks. Thread-safe.

    answer_seconds: how long one request may compute; what is finished then is sent, the rest goes on in the background
    and comes with the next click. queue_limit: so many requests compute at once; more are told that the server is busy,
    and their frames are computed in the background. model_version: that of our predictions.
    """

    def __init__(
        self,
        objects: TaskObjects,
        library: VideoLibrary,
        clips: ClipFiller,
        connections: Connections,
        turns: DeviceTurns,
        background: Background,
        activity: Activity,
        tracks: TrackTable,
        deliveries: DeliveryLog,
        answer_seconds: float,
        queue_limit: int,
        model_version: str,
        metrics: Metrics,
    ) -> None:
        self._metrics = metrics
        self._queue_limit = queue_limit
        self._stopping = False
        self._objects = objects
        self._library = library
        self._clips = clips
        self._connections = connections
        self._turns = turns
        self._background = background
        self._activity = activity
        self._tracks = tracks
        self._deliveries = deliveries
        self._answer_seconds = answer_seconds
        self._model_version = model_version
        self._pending: PendingRequests[Ask] = PendingRequests()
        self._unsaved = UnsavedPrompts()

    @property
    def running(self) -> int:
        """How many requests are being answered."""
        return self._pending.running

    def stop(self) -> None:
        """Answer what is under way with what is finished; the rest is work for the next start."""
        self._stopping = True

    def answer(self, task: Json, context: Json, config: LabelConfig, project: str, started: float) -> Json:
        """What answers a click: ``{"result": regions, "score": ...}``, the masks that change and the prompts; with
        ``busy``, a sentence, if nothing was computed because too many others came before.

        started: time.monotonic() at which the request came. Raises BadInput or MediaError.
        """
        number = project_number(task, project)
        clip = self._clips.find(task["data"], config, self._connections.current(), project=number)
        task = self._with_prediction(task)
        asks = parse_asks(task, context, config, len(clip.frames))
        if not asks:
            raise BadInput("params.context.result has no keypoints or boxes: only those of smart tags can be answered")
        work = work_of(task, number, clip)
        with self._activity.request(work), log_about(project=work.project, task=work.task):
            return self._told(self._answer(asks, context, task, work, clip, config, started), work, started)

    def _told(self, answer: Json, work: Work, started: float) -> Json:
        """The answer, counted and noted in the log."""
        seconds = time.monotonic() - started
        self._metrics.click_seconds.labels("busy" if "busy" in answer else "answered").observe(seconds)
        masks = sum("score" in region for region in answer["result"])
        facts = {"seconds": round(seconds, 3), "masks": masks}
        log.info("task %s: click answered in %.2f s, %d masks", work.task, seconds, masks, extra={"facts": facts})
        return answer

    def _answer(
        self, asks: list[Ask], context: Json, task: Json, work: Work, clip: Clip, config: LabelConfig, started: float
    ) -> Json:
        frames = len(clip.frames)
        self._forget_dropped(work, asks)
        subject = frozenset(a.object for a in asks)
        ids = frozenset[str]().union(*(a.ids for a in asks))
        ticket = Ticket(work, subject, ids, asks[0].draft, asks, _person(task, work))
        siblings = self._pending.begin(ticket)
        drafts = Drafts(self._connections.current(), task)
        try:
            if self._incomplete(work, asks):
                new_prompts = frozenset(p.id for a in asks for p in a.new_prompts)
                if saved := drafts.saved_after(new_prompts, lambda: ticket.overtaken or self._stopping):
                    task = task | {"drafts": saved}
                    ticket.work = asks = parse_asks(task, context, config, frames)
                started = time.monotonic()
            reader = self._library.open(clip.video)
            try:
                deadline = started + self._answer_seconds
                rivals = self._rivals(ticket, task, work, clip, reader, config)
                regions = self._answers(asks, rivals, ticket, task, work, clip, reader, deadline)
                left = self._left_behind(ticket, siblings, drafts, task, config, frames)
                left += self._still_waiting([*asks, *left], siblings, task, config, frames)
                for ask in left:
                    ticket.work = [*ticket.work, ask]
                    self._forget_dropped(work, [ask])
                    late = max(deadline, time.monotonic() + 1)
                    regions += self._answers([ask], rivals, ticket, task, work, clip, reader, late)
                others = self._others(ticket, task, work, config, frames)
                sent = {r["item_index"] for r in regions if "score" in r}
                regions += self._finished(others, rivals, sent, ticket, task, work, clip, reader)
                regions = self._safe(regions, ticket, others, drafts, config)
            finally:
                reader.close()
        finally:
            self._pending.end(ticket)
        regions = list({r["id"]: r for r in regions}.values())  # a prompt may be strayed and left behind
        check_regions(regions, config, frames)
        if not ticket.overtaken and (new := [p for a in asks for p in a.new_prompts]):
            self._record(work, [*ticket.work, *others], f"prompt:{new[-1].id}", regions)
        score = float(np.mean([r["score"] for r in regions if "score" in r] or [0.0]))
        return {"result": regions, "score": score} | ({"busy": ticket.busy} if ticket.busy else {})

    def _with_prediction(self, task: Json) -> Json:
        """The task as the page shows it: with neither draft nor annotation it begins with our prediction."""
        saved = [*(task.get("drafts") or []), *(task.get("annotations") or [])]
        if any(not (isinstance(work, dict) and work.get("was_cancelled")) for work in saved):
            return task
        predictions = [p for p in task.get("predictions") or [] if isinstance(p, dict)]
        ours = [p.get("result") or [] for p in predictions if p.get("model_version") == self._model_version]
        return task | {"annotations": [{"id": "prediction", "result": ours[-1]}]} if ours else task

    def _forget_dropped(self, work: Work, asks: list[Ask]) -> None:
        """New prompts, and those left behind, were not answered for the page: it drops an answer that is on its way."""
        for prompt in (p for ask in asks for p in ask.new_prompts):
            self._deliveries.drop(work, f"prompt:{prompt.id}")

    def _incomplete(self, work: Work, asks: list[Ask]) -> bool:
        """Whether points (or boxes) of an object may be missing, made so shortly before a box (or a point) that the
        draft in its request does not have them yet."""
        missing = False
        for ask in asks:
            for kind in {p.region["type"] for p in ask.prompts if not p.merged}:
                missing |= self._unsaved.note((work, *ask.object), kind, ask.saved)
        return missing

    def _record(self, work: Work, asks: list[Ask], marker: str, regions: list[Json]) -> None:
        """Note which masks go out with which point."""
        for ask in asks:
            tag = ask.mask_control
            mine = [r for r in regions if r["from_name"] == tag.name and r["value"].get(tag.type) == [ask.label]]
            frames = {r["item_index"] for r in mine if "score" in r}
            self._deliveries.record(work, tag.name, ask.label, marker, frames)

    def _others(self, ticket: Ticket[Ask], task: Json, work: Work, config: LabelConfig, frames: int) -> list[Ask]:
        """The person's other objects, as their draft has them: masks of those may have been finished since."""
        mine = {a.object for a in ticket.work}
        prompts = [
            region
            for draft in task.get("drafts") or []
            for region in draft.get("result") or []
            if region.get("type") in PROMPT_TYPES and not is_waiting(region)
        ]
        asks = self._read_saved(prompts, task, config, frames)
        # A draft that lags behind the page would bring masks of fewer prompts than the page has.
        tracks = self._tracks.of_task(work.label_studio, work.task)
        latest = {(t.tag, t.label, t.ids) for t in tracks if not any(t.overlaps(n) for n in tracks if n.id > t.id)}
        return [a for a in asks if a.object not in mine and (*a.object, a.ids) in latest]

    def _rivals(
        self, ticket: Ticket[Ask], task: Json, work: Work, clip: Clip, reader: Reader, config: LabelConfig
    ) -> list[TaskObject]:
        """The person's other objects, with prompts or drawn: their masks may be where the new ones come to lie."""
        frames = len(clip.frames)
        others = self._others(ticket, task, work, config, frames)
        known = {a.object for a in (*ticket.work, *others)}
        drawn = [a for a in drawn_objects(task, ticket.ids, config, frames) if a.object not in known]
        with self._objects.tracker(clip, reader) as tracker:
            return [self._objects.prepare(a, task, clip, reader, work, tracker) for a in (*others, *drawn)]

    def _finished(
        self,
        asks: list[Ask],
        rivals: list[TaskObject],
        sent: set[int],
        ticket: Ticket[Ask],
        task: Json,
        work: Work,
        clip: Clip,
        reader: Reader,
    ) -> list[Json]:
        """The masks of several objects that are finished, on frames where the page has none. Nothing is computed.

        sent: frames (item_index) where another object may just have taken pixels from them; those are looked at, too.
        """
        regions: list[Json] = []
        with self._objects.tracker(clip, reader) as tracker:
            ready = {ask.object: r for ask in asks for r in rivals if r.ask == ask}
            targets, clicked = (
                [ready.get(a.object) or self._objects.prepare(a, task, clip, reader, work, tracker) for a in some]
                for some in (asks, ticket.work if asks else [])
            )
            known = {t.ask.object for t in (*targets, *clicked)}
            for target in self._objects.against(targets, [*clicked, *(r for r in rivals if r.ask.object not in known)]):
                shown = frozenset(clip.frames[index] for index in target.ask.ours.keys() - sent)
                regions += self._objects.finished(target, tracker, shown)
        return regions

    def _safe(
        self, regions: list[Json], ticket: Ticket[Ask], others: list[Ask], drafts: Drafts, config: LabelConfig
    ) -> list[Json]:
        """Leave out masks that might overwrite what a person has just fixed.

        A draft is saved some seconds after a change. So a fix made shortly before the click is not in the request, and
        a mask of ours with the same id would replace it. Where the page may show masks of ours already, frames other
        than the clicked one go out only if a draft saved after the click says that they are untouched; otherwise they
        come with the next click. Masks that other objects show already, and that only lose pixels now, are not waited
        for.
        """
        asks = {a.object: a for a in ticket.work}
        late = {a.object: a.ours for a in others}

        def key(region: Json) -> tuple[str, str, int]:
            return region["from_name"], region["value"][region["type"]][0], region["item_index"]

        def at_risk(region: Json) -> bool:
            if key(region)[:2] in late:
                return True
            ask = asks.get(key(region)[:2]) if "score" in region else None
            return ask is not None and (ask.answered or (ask.continued and region["item_index"] != ask.focus))

        if not drafts.readable or not any(map(at_risk, regions)):
            return regions
        new_prompts = frozenset(p.id for a in ticket.work for p in a.new_prompts)
        patient = any(at_risk(r) and r["item_index"] not in late.get(key(r)[:2], ()) for r in regions)
        found = drafts.saved_after(new_prompts, lambda: ticket.overtaken or self._stopping, patient=patient)
        saved = [r for draft in found for r in draft["result"]]
        if not saved:
            log.info("task %s: no draft was saved after the click; frames shown before wait for the next", ticket.task)
            return [r for r in regions if not at_risk(r)]
        fixed = made_by_hand(saved, config)
        here = {r.get("id") for r in saved}

        def untouched(region: Json) -> bool:
            ask = asks.get(key(region)[:2])
            shown = ask.ours.get(region["item_index"]) if ask and at_risk(region) else None
            return key(region) not in fixed and (shown is None or shown.get("id") in here)

        return [r for r in regions if "score" not in r or untouched(r)]

    def _left_behind(
        self,
        ticket: Ticket[Ask],
        siblings: list[Ticket[Ask]],
        drafts: Drafts,
        task: Json,
        config: LabelConfig,
        frames: int,
    ) -> list[Ask]:
        """What older requests of the same person asked for other objects: the page will drop the answers to those.

        Their prompts count, with the masks by hand that were saved since.
        """
        taken: dict[tuple[str, str], Ask] = {}
        mine = {a.object for a in ticket.work}
        for sibling in reversed(siblings):  # the newest request for an object has all of its prompts
            answered = sibling.answered_at is not None
            same = None if answered else same_draft(sibling, ticket)
            if same is None:
                same = drafts.held_together(ticket.ids, sibling.ids, answered=answered)
            if same:
                sibling.overtake()
                for ask in sibling.work:
                    if ask.object not in mine and ask.mask_control in config.masks:
                        taken.setdefault(
                            ask.object, replace(self._read_again(ask, task, config, frames), answered=answered)
                        )
        return list(taken.values())

    @staticmethod
    def _read_saved(prompts: list[Json], task: Json, config: LabelConfig, frames: int) -> list[Ask]:
        """The objects of saved prompts; none where those cannot be read, which is nothing the click can help."""
        try:
            return parse_asks(task, {"result": prompts}, config, frames)
        except BadInput as e:
            log.info("task %s: the person's other objects cannot be read: %s", task.get("id"), e)
            return []

    @staticmethod
    def _read_again(ask: Ask, task: Json, config: LabelConfig, frames: int) -> Ask:
        """The same prompts with the masks that the task has now."""
        prompts = [p.region for p in ask.prompts if not p.merged]
        try:
            found = [a for a in parse_asks(task, {"result": prompts}, config, frames) if a.object == ask.object]
        except BadInput:  # what was saved meanwhile cannot be read
            return ask
        return found[0] if found else ask

    def _still_waiting(
        self, taken: list[Ask], siblings: list[Ticket[Ask]], task: Json, config: LabelConfig, frames: int
    ) -> list[Ask]:
        """What the person asked for other objects and never got, because the answer was lost or the server restarted:
        the page drops the prompts that still wait for it unless they are in this answer."""
        known = frozenset[str]().union(*(t.ids for t in siblings))
        saved = newest_work(task, frozenset[str]().union(*(a.ids for a in taken)))
        prompts = [r for r in saved.regions if r.get("type") in PROMPT_TYPES] if saved.certain else []
        if not any(is_waiting(r) and r.get("id") not in known for r in prompts):
            return []
        asks = self._read_saved(prompts, task, config, frames)
        mine = {a.object for a in taken}
        return [
            replace(a, answered=True)  # the page may show masks of it from before
            for a in asks
            if a.object not in mine and any(p.id not in known for p in a.new_prompts)
        ]

    def _answers(
        self,
        asks: list[Ask],
        rivals: list[TaskObject],
        ticket: Ticket[Ask],
        task: Json,
        work: Work,
        clip: Clip,
        reader: Reader,
        deadline: float,
    ) -> list[Json]:
        """The regions for several objects: masks unless a newer request came, and the prompts in any case."""
        regions: list[Json] = []
        for ask in asks:
            with self._turns.request() as ahead:
                if ahead >= self._queue_limit:
                    ticket.busy = (
                        f"busy, position {ahead + 1}: the masks are computed when it is this one's turn, and come with "
                        "the next click, or when the task is opened again"
                    )
                    log.warning("task %s, %s: %s", work.task, ask.label, ticket.busy)
                masks = list(self._masks(ask, rivals, ticket, task, work, clip, reader, deadline))
            if not ticket.overtaken:
                regions += masks
            regions += map(echo_prompt, ask.echoed)
        return regions

    def _masks(
        self,
        ask: Ask,
        rivals: list[TaskObject],
        ticket: Ticket[Ask],
        task: Json,
        work: Work,
        clip: Clip,
        reader: Reader,
        deadline: float,
    ) -> Iterator[Json]:
        """The regions of one object that the page does not show yet, until a newer request came.

        When the time is up, those that are finished already and no more.
        """
        with self._objects.tracker(clip, reader) as tracker:
            target = self._objects.prepare(ask, task, clip, reader, work, tracker)
            if not target.anchors:
                return
            [target] = self._objects.against([target], [r for r in rivals if r.ask.object != ask.object])
            track = self._background.begin(track_of(target, reader.key))
            if ticket.busy:
                self._background.release(track)
                yield from self._objects.finished(target, tracker)
                return
            spent = 0.0
            done: set[int] = set()
            person = ticket.person
            hurried = time.monotonic() + CROWDED_SECONDS
            steps = tracker.steps(target.anchors, track.focus)
            try:
                while not ticket.overtaken:
                    with self._turns.interactive(person):
                        began = time.monotonic()
                        step = next(steps, None)
                    if step is None:
                        return
                    spent += 0.0 if step.reused else time.monotonic() - began
                    if isinstance(step, TrackedFrame):
                        if spent:
                            self._metrics.frame_seconds.labels(CLICK).observe(spent)
                            spent = 0.0
                        done.add(step.frame)
                        self._background.note(track, step.frame)
                        region = self._objects.region(target, step, tracker)
                        if region is not None:
                            yield region
                    now = time.monotonic()
                    if now > deadline or self._stopping or (now > hurried and self._turns.crowded):
                        yield from self._objects.finished(target, tracker, frozenset(done))
                        return
            finally:
                steps.close()
                self._background.release(track)


def _person(task: Json, work: Work) -> Hashable:
    """Who asks, as far as Label Studio tells: drafts in a request are those of the user who made it. Without any it is
    whoever works on the task: a click by itself is nobody."""
    users = {d["user"] for d in task.get("drafts") or [] if isinstance(d, dict) and isinstance(d.get("user"), str)}
    return users.pop() if len(users) == 1 else work


def project_number(task: Json, project: str | None) -> int | None:
    """The id of a task's project, None if the request does not say."""
    try:
        return project_of(task, project)
    except LabelStudioError:
        return None


def work_of(task: Json, project: int | None, clip: Clip) -> Work:
    """Which task this is. The same after a restart, before Label Studio has connected again."""
    task_id = task.get("id")
    return Work(clip.label_studio, project or 0, task_id if isinstance(task_id, int) else 0)


def track_of(target: TaskObject, content: str) -> Track:
    """What goes on in the background. content: key of the video's content."""
    ask, clip = target.ask, target.clip
    return Track(
        work=target.work,
        tag=ask.mask_control.name,
        label=ask.label,
        video=clip.video,
        frames=clip.frames,
        focus=clip.frames[ask.focus],
        anchors=target.anchors,
        prompts=tuple(echo_prompt(p) for p in ask.prompts),
        draft=ask.draft,
        content=content,
    )
