"""From prompts on some frames to masks on all frames: initialise, propagate outwards, start again from corrections.

A frame that has prompts is an *anchor*: its mask comes from the prompts alone (and from the mask that was on the screen
when they were made). Every other frame gets its mask by propagation from the two anchors that bracket it: forward from
one, backward from the other, both with both anchors as memory, and fused (``fusion``). Near an anchor one side is
enough; so it is before the first anchor and after the last. A new prompt changes just the frames between its
neighbouring anchors; all others keep their masks, byte for byte, whatever the order in which the prompts came.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from tam_backend.engines import Engine
from tam_backend.errors import BadInput
from tam_backend.prompts import FramePrompts, Mask
from tam_backend.propagators.base import SOFT_THRESHOLD, Propagated, Propagation, Propagator, SoftMask
from tam_backend.propagators.probes import ReviewedPropagator
from tam_backend.quality import from_anchor
from tam_backend.segmenters.base import Refiner
from tam_backend.tracking.correction import segment_with_prior
from tam_backend.tracking.keys import Keys
from tam_backend.tracking.refinement import Decision, Journal, RefiningPropagator
from tam_backend.tracking.runs import Due, Run, bracket_of, joined, origins_of, plan_runs
from tam_backend.tracking.shots import ShotPropagator
from tam_backend.tracking.store import BlobStore, pack_frame, pack_state, unpack_frame, unpack_state
from tam_backend.video.base import Reader


@dataclass(frozen=True, slots=True, eq=False)
class Anchor:
    """What a person decided on one frame. prior: HxW bool, the mask they were looking at (None: there was none)."""

    prompts: FramePrompts
    prior: Mask | None = None
    _digest: str = field(default="", init=False)

    def digest(self) -> str:
        """A name for what decides the mask: equal anchors have equal digests, in every process.

        Made once: every key of a stored frame has it, and masks take a while to read.
        """
        if not self._digest:
            object.__setattr__(self, "_digest", self._make_digest())
        return self._digest

    def _make_digest(self) -> str:
        if self.prompts.by_hand:  # what was on the screen before does not matter to a drawn mask
            return self.prompts.digest()
        prior = FramePrompts(mask=self.prior).digest() if self.prior is not None else ""
        return hashlib.blake2b(f"{self.prompts.digest()}/{prior}".encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class TrackedFrame:
    """One object on one frame.

    soft: HxW uint8, 255 x probability. by_hand: the mask is a person's own drawing. reused: it came out of the store.
    """

    frame: int
    soft: SoftMask
    quality: float
    anchor: bool
    by_hand: bool = False
    reused: bool = False

    @property
    def mask(self) -> Mask:
        """HxW bool."""
        return self.soft >= SOFT_THRESHOLD


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the work that finished no frame of the range: one side of a frame that is to be fused from two, or a
    frame outside the range. reused: it came out of the store."""

    frame: int
    reused: bool


class Tracker:
    """Tracks objects through ``frames`` (a range with step 1) of one video with one engine.

    reach: the frames on which anchors may be (default: ``frames``). Anchors beyond ``frames`` decide masks in it as if
    the whole reach were tracked; what lies in between is computed where that needs it, and not yielded.

    Results go to and come from ``store``, so that a tracker made later for the same video continues where this one
    was stopped. One tracker serves one caller; where ``concurrent``, the generators that it has made may run in several
    threads, each in one at a time.
    """

    def __init__(
        self, engine: Engine, video: Reader, frames: range, store: BlobStore, reach: range | None = None
    ) -> None:
        for span in (frames, reach or frames):
            if not (0 <= span.start < span.stop <= len(video)) or span.step != 1:
                raise BadInput(f"frames {span.start} to {span.stop - 1} are not all in the video: it has {len(video)}")
        self._reach = reach or frames
        self._engine = engine
        self._keys = Keys(video.key, engine.id)
        self._video = video
        self.frames = frames
        self._store = store
        self._readers = {+1: video, -1: video.clone()}
        self._journal = Journal(store, engine.id, engine.decided)
        self._propagator = _prepared(engine, self._journal)

    @property
    def concurrent(self) -> bool:
        """Whether several objects may be, and gain by being, tracked at once."""
        return self._engine.concurrent

    def close(self) -> None:
        """Close what the tracker opened (not the video it was given)."""
        self._readers[-1].close()

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def track(self, anchors: Mapping[int, Anchor], focus: int) -> Generator[TrackedFrame, None, None]:
        """``steps`` without those that finish no frame."""
        with contextlib.closing(self.steps(anchors, focus)) as steps:
            for step in steps:
                if isinstance(step, TrackedFrame):
                    yield step

    def steps(
        self, anchors: Mapping[int, Anchor], focus: int, *, finish: bool = False
    ) -> Generator[TrackedFrame | Step, None, None]:
        """Yield every frame of the range once: anchors first, then the frames nearest to ``focus`` as far as the order
        of propagation permits. In between comes a Step for each piece of work that finished no frame, so that a caller
        can stop, or let others have the device, after each frame computed.

        finish: the finishing pass, when all of that is done. Frames between two anchors are computed once more with all
        anchors as memory, not only those two, and a result takes the place of the one before where its quality is
        higher. Frames that cannot gain are left out. What was finished so stays until the prompts around it change.

        Stop iterating at any time: what was computed is stored, and so is the state to go on from. Raises BadInput if
        an anchor is outside the reach or does not fit on the frame.
        """
        self._validate(anchors)
        order = sorted(anchors, key=lambda f: (abs(f - focus), f))
        masks: dict[int, Mask] = {}
        given: dict[int, float] = {}
        for frame in order:
            tracked = self._anchor(frame, anchors[frame])
            masks[frame], given[frame] = tracked.mask, tracked.quality
            if not finish:
                yield tracked if frame in self.frames else Step(frame, tracked.reused)
        digests = {f: anchors[f].digest() for f in anchors}

        def key(origin: int, memory: tuple[int, ...]) -> str:
            return self._keys.run(origin, memory, digests)

        plan = plan_runs(self.frames, masks, given, key, finish=finish)
        try:
            for target in sorted(plan, key=lambda f: (abs(f - focus), f)):
                # The side with the longer way goes first: what it passes near its own anchor is finished by that, and
                # then every step of the other side finishes a frame, the nearest to the focus first.
                while (run := max(plan[target].runs, key=lambda r: r.steps_to(target))).steps_to(target):
                    due = plan.get(run.next_frame)
                    step = self._advance(run, due)
                    if due is not None and isinstance(step, TrackedFrame):
                        step = self._better(anchors, step) if finish else self._finished(anchors, step)
                    yield step
                    if run.done:
                        run.propagation = None
        finally:
            for run in {id(r): r for due in plan.values() for r in due.runs}.values():
                self._save(run)

    def stored(self, anchors: Mapping[int, Anchor], frame: int) -> TrackedFrame | None:
        """The mask of ``frame`` under these anchors if it is finished already. Computes nothing."""
        if not anchors:
            return None
        if frame in anchors:
            if anchors[frame].prompts.by_hand:
                return self._anchor(frame, anchors[frame])
            bracket: tuple[int, ...] = (frame,)
            keys = [self._keys.anchor(frame, anchors[frame])]
        else:
            bracket = bracket_of(anchors, frame)
            digests = {f: anchors[f].digest() for f in bracket}
            keys = [f"{self._keys.run(origin, bracket, digests)}/{frame}" for origin in origins_of(bracket, frame)]
        blobs = [blob for key in keys if (blob := self._store.get(key)) is not None]
        if len(blobs) < len(keys):
            return None
        result = joined([unpack_frame(blob) for blob in blobs], frame, bracket)
        tracked = TrackedFrame(frame, result.soft, result.quality, anchor=frame in anchors, reused=True)
        return tracked if frame in anchors else self._finished(anchors, tracked)

    def decisions(self, anchors: Mapping[int, Anchor], frame: int) -> list[Decision]:
        """What refinement decided about a finished frame: up to one decision for each direction it was reached from."""
        bracket = bracket_of(anchors, frame) if frame not in anchors else ()
        masks = {f: self._anchor(f, anchors[f]).mask for f in bracket}
        return self._journal.read(self._video.key, masks, frame) if masks else []

    def _validate(self, anchors: Mapping[int, Anchor]) -> None:
        for frame, anchor in anchors.items():
            if frame not in self._reach:
                raise BadInput(
                    f"frame {frame} is outside the range {self._reach.start} to {self._reach.stop - 1}: "
                    "prompts must be on frames of the range"
                )
            try:
                anchor.prompts.validate(self._video.height, self._video.width)
            except BadInput as e:
                raise BadInput(f"frame {frame}: {e}") from e
            if anchor.prior is not None and anchor.prior.shape != (self._video.height, self._video.width):
                got = "x".join(map(str, anchor.prior.shape))
                raise BadInput(
                    f"frame {frame}: the mask that the prompts correct is {got} (height x width), "
                    f"the frame is {self._video.height}x{self._video.width}"
                )
            if not anchor.prompts.locates and anchor.prior is None:
                raise BadInput(
                    f"frame {frame}: negative clicks alone do not say where the object is; "
                    "give a positive click, a box or a mask"
                )

    def _anchor(self, frame: int, anchor: Anchor) -> TrackedFrame:
        if anchor.prompts.by_hand:
            assert anchor.prompts.mask is not None
            soft = anchor.prompts.mask.astype(np.uint8) * np.uint8(255)
            return TrackedFrame(frame, soft, 1.0, anchor=True, by_hand=True)
        key = self._keys.anchor(frame, anchor)
        blob = self._store.get(key)
        if blob is not None:
            result = unpack_frame(blob)
        else:
            found = segment_with_prior(self._engine.segmenter, self._readers[+1], frame, anchor.prompts, anchor.prior)
            result = Propagated(soft=found.mask.astype(np.uint8) * np.uint8(255), quality=found.score)
            self._store.put(key, pack_frame(result))
        return TrackedFrame(frame, result.soft, result.quality, anchor=True, reused=blob is not None)

    def _finished(self, anchors: Mapping[int, Anchor], tracked: TrackedFrame) -> TrackedFrame:
        """The result of a finishing pass where there is one, else the frame as it is."""
        blob = self._store.get(self._keys.finished(anchors, tracked.frame))
        if blob is None:
            return tracked
        result = unpack_frame(blob)
        return replace(tracked, soft=result.soft, quality=result.quality)

    def _better(self, anchors: Mapping[int, Anchor], found: TrackedFrame) -> TrackedFrame:
        """What the finishing pass found for a frame, or what was there before if that is no worse."""
        before = self.stored(anchors, found.frame)
        if before is not None and before.quality >= found.quality:
            return before
        self._store.put(self._keys.finished(anchors, found.frame), pack_frame(Propagated(found.soft, found.quality)))
        return found

    def _advance(self, run: Run, due: Due | None) -> TrackedFrame | Step:
        """Take a run one frame further. due: what that frame waits for; None if it is outside the range."""
        frame = run.next_frame
        result: Propagated | None = None
        blob = self._store.get(f"{run.key}/{frame}")
        reused = blob is not None
        if blob is None:
            result = self._compute(run, frame)
            blob = pack_frame(result)
            self._store.put(f"{run.key}/{frame}", blob)
            every = self._propagator.state_every
            if run.position % every == every - 1:
                self._save(run)
        run.position += 1
        if due is None:
            return Step(frame, reused)
        due.sides[run.origin] = blob
        due.reused &= reused
        if len(due.sides) < len(due.runs):
            return Step(frame, reused)
        results = [result if r is run and result else unpack_frame(due.sides[r.origin]) for r in due.runs]
        due.sides.clear()
        result = joined(results, frame, due.bracket)
        return TrackedFrame(frame, result.soft, result.quality, anchor=False, reused=due.reused)

    def _compute(self, run: Run, frame: int) -> Propagated:
        direction = run.frames.step
        propagation = run.propagation or self._begin(run, frame, direction)
        # A step that is cut short (an unreadable frame, Ctrl-C) leaves a state that fits no frame: never save that.
        run.propagation = None
        while True:
            result = propagation.step(run.at + direction)
            run.at += direction
            if run.at == frame:
                run.propagation = propagation
                return replace(result, quality=from_anchor(result.quality, run.given))

    def _begin(self, run: Run, frame: int, direction: int) -> Propagation:
        """Start at the stored state that lies between the anchor and the frame, or else at the anchor itself."""
        propagator, reader = self._propagator, self._readers[direction]
        blob = self._store.get(self._keys.state(run.key, direction))
        if blob is not None:
            run.saved, state = unpack_state(blob)
            if (frame - run.saved) * direction > 0:
                run.at = run.saved
                return propagator.begin(reader, run.anchors, run.at, state)
        run.at = run.origin
        return propagator.begin(reader, run.anchors, run.origin)

    def _save(self, run: Run) -> None:
        """Store the run's state, unless the store has one from farther on (frames in between were lost and redone)."""
        direction = run.frames.step
        known = run.origin if run.saved is None else run.saved
        if run.propagation is not None and (run.at - known) * direction > 0:
            self._store.put(self._keys.state(run.key, direction), pack_state(run.at, run.propagation.state()))
            run.saved = run.at


def _prepared(engine: Engine, journal: Journal) -> Propagator:
    """The engine's propagator with what belongs around it: refinement, and care for cuts."""
    propagator: Propagator = engine.propagator
    if engine.refine is not None:
        assert isinstance(propagator, ReviewedPropagator)
        assert isinstance(engine.segmenter, Refiner)
        propagator = RefiningPropagator(propagator, engine.segmenter, engine.refine, journal)
    return propagator if engine.shots is None else ShotPropagator(propagator, engine.shots)
