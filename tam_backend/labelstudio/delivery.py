"""How masks that were finished in the background reach people, within what Label Studio permits.

The labeling page has no channel for late results. So they go
- into the answer to the next click (see ``clicks``);
- into a person's draft, but only while nobody works on it: when its task is opened, or when it was left alone for a
  while. A page that is open all the same does not lose anything: its next save puts its own state back;
- into a prediction, where a task has neither draft nor annotation: the page begins with it.
A submitted annotation is never changed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tam_backend.errors import BadInput, NotFound, TamError
from tam_backend.labelstudio.clicks import project_number, work_of
from tam_backend.labelstudio.clips import Clip, ClipFiller
from tam_backend.labelstudio.config import LabelConfig, parse_label_config
from tam_backend.labelstudio.connections import Client, Connections
from tam_backend.labelstudio.library import VideoLibrary
from tam_backend.labelstudio.objects import TaskObjects
from tam_backend.labelstudio.posting import prediction_of, put_prediction
from tam_backend.labelstudio.prompts import PROMPT_TYPES
from tam_backend.labelstudio.regions import check_regions, echo_prompt, mask_region
from tam_backend.labelstudio.requests import Json, drawn_objects, parse_asks
from tam_backend.quality import Review, review
from tam_backend.sessions.activity import Activity
from tam_backend.sessions.delivered import DeliveryLog
from tam_backend.sessions.inherited import InheritedAnchors
from tam_backend.sessions.job import FollowPlan, Obsolete
from tam_backend.sessions.predictions import PostedPredictions
from tam_backend.sessions.tracks import Track, TrackTable, Work
from tam_backend.tracking.objects import own_pixels
from tam_backend.tracking.tracker import Anchor
from tam_backend.video.base import Reader

log = logging.getLogger(__name__)

#: A draft that was not saved for so many seconds counts as left alone. (The page saves 5 s after a change.)
LEFT_ALONE = 60.0
#: The same at the moment when the task is opened: whoever opens it is not working on it.
LEFT_ALONE_AT_OPENING = 10.0
#: Seconds until a draft that someone works on is looked at again.
_LOOK_AGAIN = 60.0


class Deliveries:
    """Brings finished masks into tasks. Thread-safe.

    follow_frames: how far beyond its task an object is followed, in each direction. model_version: of predictions.
    """

    def __init__(
        self,
        objects: TaskObjects,
        library: VideoLibrary,
        clips: ClipFiller,
        connections: Connections,
        activity: Activity,
        predictions: PostedPredictions,
        tracks: TrackTable,
        deliveries: DeliveryLog,
        inherited: InheritedAnchors,
        follow_frames: int,
        model_version: str,
    ) -> None:
        self._objects = objects
        self._library = library
        self._clips = clips
        self._connections = connections
        self._activity = activity
        self._predictions = predictions
        self._tracks = tracks
        self._deliveries = deliveries
        self._inherited = inherited
        self._follow_frames = follow_frames
        self._model_version = model_version
        # An opening and a job may want to complete one draft at the same moment.
        self._writing: defaultdict[Work, threading.Lock] = defaultdict(threading.Lock)

    # ---- what background jobs need

    def open(self, video: str) -> Reader:
        """A reader for the caller alone. Raises MediaError."""
        return self._library.open(video)

    def deliver(self, track: Track) -> float | None:
        """Bring a track's masks into its own task. Returns seconds to wait before trying again, None if all is there.

        Raises Obsolete if task or label are gone, LabelStudioError if Label Studio does not answer.
        """
        client, config, task = self._read(track)
        drafts = client.drafts(track.work.task)
        own = [d for d in drafts if _ids(d) & track.ids]
        if own:
            clip = self._clip(task, track.work, config, client)
            waiting = [self._complete(draft, track.work, clip, config, client, LEFT_ALONE) for draft in own]
            return _LOOK_AGAIN if any(waiting) else None
        if not drafts and not task.get("annotations"):
            asked = _seconds_since(track.asked) if track.prompts else LEFT_ALONE  # seeds were asked for by no page
            if min(self._activity.idle_seconds(track.work), asked) < LEFT_ALONE:
                return _LOOK_AGAIN  # the page saves its first draft some seconds after the click
            self._predict(track.work, task, config, client)
        # Otherwise the person has submitted, or left before the page saved anything while others work on the task.
        return None

    def follow(self, track: Track) -> FollowPlan | None:
        """Plan the way of a track into its video's other tasks: those that nobody has worked on, out to the nearest
        tasks with prompts for the same object, whose prompts count as well."""
        if not self._follow_frames:
            return None
        client, config, task = self._read(track)
        address = task["data"].get(config.video_key)
        if not isinstance(address, str):
            return None
        clips = self._clips_of(client, config, track, address)
        own = clips.pop(track.work.task, None)
        if own is None:
            return None
        tracks = self._of_object(track)
        anchors = dict(tracks[track.work.task].own_anchors if track.work.task in tracks else track.own_anchors)
        targets: dict[int, range] = {}
        for side in (-1, +1):
            ordered = sorted(clips, key=lambda t: side * clips[t][0].start)
            for number in [n for n in ordered if (clips[n][0].start - own[0].start) * side > 0]:
                clip, sibling = clips[number]
                if number in tracks and tracks[number].own_anchors:
                    anchors |= tracks[number].own_anchors
                    break
                gap = clip.start - own[0].stop if side > 0 else own[0].start - clip.stop
                if gap >= self._follow_frames:
                    break
                if not sibling.get("annotations") and not client.drafts(number):
                    targets[number] = clip
        if not targets:
            return None
        frames = range(min(c.start for c in targets.values()), max(c.stop for c in targets.values()))
        plan = Track(
            work=track.work, tag=track.tag, label=track.label, video=track.video, frames=frames, focus=track.focus,
            anchors=anchors, prompts=track.prompts, draft=track.draft, follows=True, content=track.content,
        )  # fmt: skip
        return FollowPlan(plan, tuple(sorted(targets.items(), key=lambda t: abs(t[1].start - track.focus))))

    def fill(self, track: Track, task: int) -> None:
        """One of the other tasks is finished: it gets a prediction, unless someone has begun to work on it."""
        client, config, _ = self._read(track)
        work = Work(track.work.label_studio, track.work.project, task)
        found = client.find_task(work.project, task)
        working = self._activity.idle_seconds(work) < LEFT_ALONE
        if found is not None and not found.get("annotations") and not client.drafts(task) and not working:
            self._predict(work, found, config, client)

    # ---- what requests need

    def complete_at_opening(self, task: Json, project: str | None, config: LabelConfig) -> None:
        """A task is being opened: put what was finished since into the draft that the page is about to read."""
        connection = self._connections.current()
        number = project_number(task, project)
        if connection is None or number is None:
            return
        try:
            clip = self._clips.find(task["data"], config, connection, project=number)
            work = work_of(task, number, clip)
            tracks = self._tracks.of_task(work.label_studio, work.task)
            if not tracks:
                return
            client = Client(connection, (1.0, 5.0))
            for draft in client.drafts(work.task):
                alone = self._idle_seconds(draft, work, client) >= LEFT_ALONE_AT_OPENING
                if alone and any(_ids(draft) & track.ids for track in tracks):
                    self._complete(draft, work, clip, config, client, LEFT_ALONE_AT_OPENING)
        except TamError as e:
            log.info("task %s: its draft was not completed: %s", task.get("id"), e)

    def readdress(self, base: str) -> None:
        """Give the tasks that have predictions of ours frames under the present address of this server.

        Label Studio does not ask for predictions where there are some, so nothing else would. Raises TamError.
        """
        connection = self._connections.current()
        if connection is None:
            return
        for work in self._predictions.elsewhere(connection.url, base):
            client = Client(connection)
            try:
                config = parse_config(client.project(work.project))
                self._clips.fill(work.task, work.project, config, connection, base)
            except (NotFound, Obsolete):
                self.forget(work)
            else:
                self._predictions.moved(work, base)

    def forget(self, work: Work) -> None:
        """The task is gone."""
        self._tracks.delete(self._tracks.of_task(work.label_studio, work.task))
        self._deliveries.forget(work)
        self._inherited.forget(work)
        self._predictions.forget(work)

    # ---- inside

    def _read(self, track: Track) -> tuple[Client, LabelConfig, Json]:
        """Label Studio as it is now. Raises Obsolete if the track's task or label are gone."""
        client = Client(self._connections.get(track.work.label_studio))
        task = client.find_task(track.work.project, track.work.task)
        if task is None:
            self.forget(track.work)
            raise Obsolete("the task was deleted")
        config = parse_config(client.project(track.work.project))
        if config.find_mask(track.tag, track.label) is None:
            raise Obsolete(
                f"the project's labeling configuration has no label {track.label!r} in {track.tag!r} any more"
            )
        return client, config, task

    def _clips_of(
        self, client: Client, config: LabelConfig, track: Track, address: str
    ) -> dict[int, tuple[range, Json]]:
        """The tasks of a track's video: id -> (frames, task)."""
        clips = {}
        for task in client.tasks_with(track.work.project, config.video_key, address):
            try:
                clip = self._clip(task, track.work, config, client)
            except TamError:
                continue  # it has no frames yet, or none that we know
            if clip.video == track.video:
                clips[task["id"]] = (clip.frames, task)
        return clips

    def _of_object(self, track: Track) -> dict[int, Track]:
        """Task -> newest prompts for the object of a track on its video."""
        same = [t for t in self._tracks.of_video(track) if (t.tag, t.label) == (track.tag, track.label)]
        return {t.work.task: t for t in same}

    def _idle_seconds(self, draft: Json, work: Work, client: Client) -> float:
        """Since the draft was saved or anything was asked about its task."""
        return min(client.age(draft.get("updated_at")), self._activity.idle_seconds(work))

    def _clip(self, task: Json, work: Work, config: LabelConfig, client: Client) -> Clip:
        return self._clips.find(task["data"], config, client.connection, project=work.project)

    def _complete(
        self, draft: Json, work: Work, clip: Clip, config: LabelConfig, client: Client, left_alone: float
    ) -> bool:
        """Put finished masks into a draft. Returns whether it has to wait, because someone may be working on it."""
        with self._writing[work]:
            return self._complete_alone(draft, work, clip, config, client, left_alone)

    def _complete_alone(
        self, draft: Json, work: Work, clip: Clip, config: LabelConfig, client: Client, left_alone: float
    ) -> bool:
        seen = {"drafts": [draft]}
        # Someone who works on it may have made prompts whose request knows better what the page showed before them.
        alone = self._idle_seconds(draft, work, client) >= left_alone
        prompts = [r for r in draft["result"] if r.get("type") in PROMPT_TYPES]
        asks = parse_asks(seen, {"result": prompts}, config, len(clip.frames))
        regions: dict[str, Json] = {}
        added: dict[tuple[str, str], set[int]] = {}
        reader = self._library.open(clip.video)
        try:
            with self._objects.tracker(clip, reader) as tracker:
                drawn = drawn_objects(seen, frozenset(), config, len(clip.frames))
                targets, rivals = (
                    [self._objects.prepare(a, seen, clip, reader, work, tracker, remember=alone) for a in some]
                    for some in (asks, [a for a in drawn if a.object not in {a.object for a in asks}])
                )
                for target in self._objects.against(targets, rivals):
                    ask = target.ask
                    target = replace(target, unsure=frozenset())  # here it is the draft that counts, not the page
                    for region in self._objects.finished(target, tracker):
                        if not alone:
                            return True  # there is something to deliver: it is prepared once it can be
                        regions[region["id"]] = region
                        if region["item_index"] not in ask.ours:
                            added.setdefault(ask.object, set()).add(region["item_index"])
                    regions |= {p.id: echo_prompt(p) for p in ask.echoed}
        finally:
            reader.close()
        if not regions:
            return False
        if not alone or self._idle_seconds(draft, work, client) < left_alone:
            return True
        check_regions(regions.values(), config, len(clip.frames))
        # Read once more: the time between this and writing is all that another save could fall into.
        now = next((d for d in client.drafts(work.task) if d["id"] == draft["id"]), None)
        if now is None or now["updated_at"] != draft["updated_at"]:
            return True
        marker = f"draft:{draft['id']}/{time.time_ns()}"
        for region in regions.values():
            region["meta"]["batch"] = marker
        kept = [regions.get(str(r.get("id")), r) for r in now["result"]]
        new = [r for i, r in regions.items() if i not in _ids(now)]
        saved = client.replace_draft_result(draft["id"], [*kept, *new])
        for (tag, label), frames in added.items():
            self._deliveries.record(work, tag, label, marker, frames, str(saved.get("updated_at", "")))
        log.info("task %s: draft %s got %d regions", work.task, draft["id"], len(regions))
        return False

    def _predict(self, work: Work, task: Json, config: LabelConfig, client: Client) -> None:
        """Make the task's prediction, or bring it up to date, from all that is finished of its video's objects."""
        clip = self._clip(task, work, config, client)
        prediction, frames, anchors = self._prediction(work, clip, config)
        if not prediction["result"]:
            return
        content = json.dumps(prediction, sort_keys=True).encode()
        digest = hashlib.blake2b(content, digest_size=16).hexdigest()
        known = self._predictions.get(work)
        number, changed = put_prediction(client, work.task, prediction, lambda p: known == (p["id"], digest))
        if not changed:
            return
        asked = {(t.tag, t.label) for t in self._tracks.of_task(work.label_studio, work.task) if t.prompts}
        for (tag, label), indices in frames.items():
            if (tag, label) not in asked:  # prompts of the task itself are in its regions, and change there
                self._inherited.set(work, tag, label, anchors[tag, label])
            self._deliveries.record(work, tag, label, _prediction_marker(work), indices)
        self._predictions.set(work, number, digest, self._clips.base_of(task["data"], config))
        log.info("task %s: prediction %s has %d regions", work.task, number, len(prediction["result"]))

    def _prediction(
        self, work: Work, clip: Clip, config: LabelConfig
    ) -> tuple[Json, dict[tuple[str, str], set[int]], dict[tuple[str, str], dict[int, Anchor]]]:
        """(prediction, frames with masks by object, anchors by object) of a task from what is finished."""
        objects: list[tuple[dict[int, Json], Review, list[Json]]] = []
        frames: dict[tuple[str, str], set[int]] = {}
        anchors = self._anchors_around(work, clip)
        oldest_first = reversed(self._tracks.of_task(work.label_studio, work.task))
        own = {(t.tag, t.label): t for t in oldest_first if not t.follows}
        reader = self._library.open(clip.video)
        try:
            with self._objects.tracker(clip, reader) as tracker:
                known = [(c, label) for (tag, label) in sorted(anchors) if (c := config.find_mask(tag, label))]
                known.sort(key=lambda entry: (entry[0].image, entry[0].labels.index(entry[1])))
                for place, (control, label) in enumerate(known):
                    tag = control.name
                    around = anchors[tag, label]
                    rivals = [
                        [anchors[c.name, name] for c, name in some if c.image == control.image]
                        for some in (known[:place], known[place + 1 :])
                    ]
                    quality: dict[int, float] = {}
                    masks: dict[int, Json] = {}
                    for index, frame in enumerate(clip.frames):
                        tracked = tracker.stored(around, frame)
                        if tracked is None:
                            continue
                        quality[frame] = tracked.quality
                        mask = own_pixels(
                            tracked,
                            *([t for a in some if (t := tracker.stored(a, frame)) is not None] for some in rivals),
                        )
                        if mask.any():
                            meta = self._objects.meta(tracked) | {"batch": _prediction_marker(work)}
                            region = mask_region(control, label, index, mask, tracked.quality, meta)
                            masks[frame] = region
                            frames.setdefault((tag, label), set()).add(index)
                    prompts = list(own[tag, label].prompts) if (tag, label) in own else []
                    objects.append((masks, review(quality, around), prompts))
        finally:
            reader.close()
        return prediction_of(objects, self._model_version, config, len(clip.frames)), frames, anchors

    def _anchors_around(self, work: Work, clip: Clip) -> dict[tuple[str, str], dict[int, Anchor]]:
        """The anchors that decide a task's masks, by object: its own, or else those of the nearest tasks that have
        some, before and after it."""
        of_video: dict[tuple[str, str], list[Track]] = {}
        probe = Track(work, "", "", clip.video, clip.frames, clip.frames.start, {})
        for track in self._tracks.of_video(probe):
            if track.own_anchors:
                of_video.setdefault((track.tag, track.label), []).append(track)
        anchors: dict[tuple[str, str], dict[int, Anchor]] = {}
        for key, tracks in of_video.items():
            own = [t for t in tracks if t.work.task == work.task]
            if own:
                anchors[key] = dict(own[0].anchors)
                continue
            before = [t for t in tracks if t.frames.start < clip.frames.start]
            after = [t for t in tracks if t.frames.start > clip.frames.start]
            near: dict[int, Anchor] = {}
            if before:
                near |= max(before, key=lambda t: t.frames.start).own_anchors
            if after:
                near |= min(after, key=lambda t: t.frames.start).own_anchors
            anchors[key] = near
        return anchors


def parse_config(project: Mapping[str, Any]) -> LabelConfig:
    """A project's labeling configuration. Raises Obsolete if it cannot work any more."""
    try:
        return parse_label_config(str(project.get("label_config", "")))
    except BadInput as e:
        raise Obsolete("the project's labeling configuration was changed and cannot take masks any more") from e


def _seconds_since(moment: float) -> float:
    """By the clock of this machine; infinite for a moment to come: then the clock was set back, and says nothing."""
    passed = time.time() - moment
    return passed if passed >= 0 else math.inf


def _prediction_marker(work: Work) -> str:
    return f"prediction:{work.task}"


def _ids(draft: Json) -> set[str]:
    return {str(r["id"]) for r in draft.get("result") or [] if isinstance(r, dict) and r.get("id")}
