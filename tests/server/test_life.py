"""Random lives of a task, compared with a slow model: nothing that a person fixed is ever lost or changed.

The page and Label Studio's drafts are played by the test. The model knows the rules of docs/how-it-works.md, and makes
every mask anew, from nothing, out of the two anchors around its frame.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tam_backend.labelstudio.config import EXAMPLE, parse_label_config
from tam_backend.labelstudio.regions import mask_region
from tam_backend.labelstudio.requests import decode_region_mask
from tam_backend.prompts import Click, FramePrompts, Mask
from tam_backend.tracking.store import MemoryStore
from tam_backend.tracking.tracker import Anchor, TrackedFrame, Tracker
from tam_backend.video import open_source
from tests.fakes import FakeLabelStudio, fake_engine, make_video
from tests.server.conftest import LABELS, Backend, point, regions_of
from tests.server.test_background import draft, leave, quick, until

FRAMES, WIDTH, HEIGHT = 8, 64, 48
MASK_TAG = parse_label_config(EXAMPLE).masks[0]

labels = st.sampled_from(LABELS)
frames = st.integers(0, FRAMES - 1)
columns, rows = st.integers(2, WIDTH - 3), st.integers(2, HEIGHT - 3)


def same(region: Mapping[str, Any], mask: Mask | None) -> bool:
    shown = decode_region_mask(dict(region), HEIGHT, WIDTH)
    return np.array_equal(shown, mask) if mask is not None else not shown.any()


@dataclass
class Object:
    """What a person decided about one object. clicks: with the mask that the page showed before the first of them.

    clicked: frame -> when it was clicked last. delivered: frames on which a mask of ours ever was on the page; deleted:
    those from which the person took it.
    """

    clicks: dict[int, tuple[list[Click], Mask | None]] = field(default_factory=dict)
    hand: dict[int, Mask] = field(default_factory=dict)
    clicked: dict[int, int] = field(default_factory=dict)
    delivered: set[int] = field(default_factory=set)
    deleted: set[int] = field(default_factory=set)


class SlowModel:
    """The frames that follow from what was decided."""

    def __init__(self, video: Path) -> None:
        self._video = open_source(video)

    def frames(self, known: Object) -> dict[int, TrackedFrame]:
        anchors = {f: Anchor(FramePrompts(tuple(clicks)), prior) for f, (clicks, prior) in known.clicks.items()}
        anchors |= {f: Anchor(FramePrompts(mask=mask)) for f, mask in known.hand.items()}
        return {f: self._frame(anchors, f) for f in range(FRAMES)} if anchors else {}

    def _frame(self, anchors: Mapping[int, Anchor], frame: int) -> TrackedFrame:
        """From the anchors around a frame alone, with an engine and a store that know nothing yet."""
        if frame in anchors:
            return self.anchor(anchors[frame], frame)
        before, after = [f for f in anchors if f < frame], [f for f in anchors if f > frame]
        around = ([max(before)] if before else []) + ([min(after)] if after else [])
        return self._track({f: anchors[f] for f in around}, frame)

    def anchor(self, anchor: Anchor, frame: int) -> TrackedFrame:
        return self._track({frame: anchor}, frame)

    def _track(self, anchors: Mapping[int, Anchor], frame: int) -> TrackedFrame:
        with Tracker(fake_engine(), self._video, range(FRAMES), MemoryStore(1 << 24)) as tracker:
            return next(t for t in tracker.track(anchors, frame) if t.frame == frame)

    def close(self) -> None:
        self._video.close()


class Life(RuleBasedStateMachine):
    """One person at one task with two objects."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        files = self.root / "files"
        files.mkdir()
        self.model = SlowModel(make_video(files / "a.mp4", FRAMES))
        self.label_studio = FakeLabelStudio(files)
        self.backend = self.start()
        self.task = self.backend.uploaded(FRAMES)
        self.page: dict[str, dict[str, Any]] = {}
        self.objects = {label: Object() for label in LABELS}
        self.saved_as = "drafts"
        self.count = 0

    def start(self) -> Backend:
        backend = Backend(self.root / "data", self.label_studio)
        backend.autosave = False
        backend.connect()
        return backend

    def teardown(self) -> None:
        self.backend.service.close()
        self.label_studio.close()
        self.model.close()
        shutil.rmtree(self.root)

    # ---- the page

    def next(self, name: str) -> str:
        self.count += 1
        return f"{name}{self.count}"

    def saved(self, *extra: dict[str, Any]) -> dict[str, Any]:
        """The page's state as Label Studio has saved it."""
        self.count += 1
        moment = f"2026-01-01T{self.count // 3600:02}:{self.count // 60 % 60:02}:{self.count % 60:02}Z"
        return draft(*self.page.values(), *extra, updated=moment)

    def mask_of(self, label: str, frame: int) -> dict[str, Any] | None:
        """The region that shows an object on a frame. Two would be an error."""
        found = [
            r
            for r in self.page.values()
            if r["type"] == MASK_TAG.type and r["value"][MASK_TAG.type] == [label] and r["item_index"] == frame
        ]
        assert len(found) < 2, f"{label} has {len(found)} masks on frame {frame}"
        return found[0] if found else None

    def points_of(self, label: str) -> list[dict[str, Any]]:
        return [r for r in self.page.values() if r["value"].get("keypointlabels") == [label]]

    def shown(self, label: str, frame: int) -> Mask | None:
        region = self.mask_of(label, frame)
        mask = decode_region_mask(region, HEIGHT, WIDTH) if region else None
        return mask if mask is not None and mask.any() else None

    def request(self, points: list[dict[str, Any]], before: dict[str, Any]) -> list[dict[str, Any]]:
        work = {"drafts": [], "annotations": []} | {self.saved_as: [before]}
        return regions_of(self.backend.click(self.task, *points, **work))

    # ---- what a person does

    @rule(
        label=labels, frame=frames, x=columns, y=rows, positive=st.booleans(), rushed=st.booleans(), lost=st.booleans()
    )
    def click(self, label: str, frame: int, x: int, y: int, positive: bool, rushed: bool, lost: bool) -> None:
        """rushed: the answer carries what is finished, the rest is computed behind it. lost: it does not arrive."""
        known = self.objects[label]
        if frame in known.hand:
            return  # the mask by hand stands; clicks there change nothing (documented)
        positive |= not known.clicks and not known.hand
        clicks, priors = self.before(label, frame)
        if not clicks and priors[0] is None:
            positive = True  # a negative click alone does not say where the object is
        if any((int(c.x), int(c.y)) == (x, y) for c in clicks):
            return
        new = point(self.next("p"), frame, x + 0.5, y + 0.5, positive=positive, label=label)
        before = self.saved()
        self.label_studio.drafts = [self.saved(new)]
        if rushed:
            quick(self.backend)
        answer = self.request([*self.points_of(label), new], before)
        self.backend.service._clicks._answer_seconds = self.backend.settings.answer_seconds
        px, py = new["value"]["x"] / 100 * WIDTH, new["value"]["y"] / 100 * HEIGHT  # as the percentages say, to the bit
        clicks = [*clicks, Click(px, py, positive)]
        known.deleted.discard(frame)
        known.clicked[frame] = self.count
        known.clicks[frame] = (clicks, self.prior_of(label, frame, clicks, priors, answer))
        self.page[new["id"]] = new
        if lost:
            return
        self.receive(answer)
        if not rushed:
            self.check_all(label)
        self.backend.arrived()

    def before(self, label: str, frame: int) -> tuple[list[Click], list[Mask | None]]:
        """The clicks on a frame, and the masks that a further one may correct.

        If it is the first on a frame that shows a mask: that, or the one that followed from what was decided since.
        """
        known = self.objects[label]
        if frame in known.clicks:
            clicks, prior = known.clicks[frame]
            return clicks, [prior]
        shown = self.shown(label, frame)
        return [], [None] if shown is None else [shown, self.model.frames(known)[frame].mask]

    def prior_of(
        self, label: str, frame: int, clicks: list[Click], priors: list[Mask | None], answer: list[dict[str, Any]]
    ) -> Mask | None:
        """Which of the priors the clicked frame's mask in an answer was made from."""
        regions = [r for r in answer if r["value"].get(MASK_TAG.type) == [label] and r["item_index"] == frame]
        assert len(regions) == 1
        [region] = regions
        for prior in priors:
            anchor = Anchor(FramePrompts(tuple(clicks)), prior)
            if any(same(region, mask) for mask in self.allowed(label, self.model.anchor(anchor, frame))):
                return prior
        raise AssertionError(f"the mask on the clicked frame {frame} follows from none of the masks before")

    def receive(self, answer: list[dict[str, Any]]) -> None:
        """Put an answer on the page as the editor does, and judge each of its masks."""
        expected = {label: self.model.frames(known) for label, known in self.objects.items()}
        for region in answer:
            if region["type"] == MASK_TAG.type:
                [label] = region["value"][MASK_TAG.type]
                frame = region["item_index"]
                known = self.objects[label]
                assert frame not in known.hand, f"{label}: the mask by hand on frame {frame} would be replaced"
                assert frame not in known.deleted, f"{label}: the mask deleted on frame {frame} came back"
                allowed = self.allowed(label, expected[label][frame])
                assert any(same(region, m) for m in allowed), f"{label}: the mask of frame {frame} is not what follows"
                known.delivered.add(frame)
            self.page[region["id"]] = region
        waiting = {i for i, r in self.page.items() if "is_positive" in r}
        assert not waiting, f"the page would drop the points {waiting}"
        for label in LABELS:
            for frame in range(FRAMES):
                self.mask_of(label, frame)

    def check_all(self, label: str) -> None:
        """After a complete answer: the page shows what follows from all that was decided, everywhere."""
        known = self.objects[label]
        for frame, tracked in self.model.frames(known).items():
            region, allowed = self.mask_of(label, frame), self.allowed(label, tracked)
            if frame in known.deleted:
                assert region is None
            elif region is None:
                assert not all(mask.any() for mask in allowed), f"{label}: frame {frame} has no mask"
            else:
                assert any(same(region, mask) for mask in allowed), f"{label}: frame {frame} shows an old mask"

    def allowed(self, label: str, tracked: TrackedFrame) -> list[Mask]:
        """What an object's region may show on a frame: its mask, without what the other object claims more as far as
        that is finished by then."""
        [rival] = [r for r in LABELS if r != label]
        others = self.model.frames(self.objects[rival])
        mask, frame = tracked.mask, tracked.frame
        if frame not in others or frame in self.objects[rival].deleted:
            return [mask]
        other = others[frame]

        left = mask.copy()
        for row, column in np.argwhere(mask & other.mask):
            mine = (tracked.anchor + tracked.by_hand, tracked.soft[row, column])
            theirs = (other.anchor + other.by_hand, other.soft[row, column])
            if mine == theirs:  # who was clicked later on this frame, then the order of the labels
                mine, theirs = self.tie(label, frame), self.tie(rival, frame)
            left[row, column] = mine > theirs
        return [mask, left]

    def tie(self, label: str, frame: int) -> tuple[int, int]:
        return self.objects[label].clicked.get(frame, -1), -LABELS.index(label)

    @rule(label=labels, frame=frames, x=columns, y=rows)
    def paint(self, label: str, frame: int, x: int, y: int) -> None:
        """Draw a mask, or change the one that is there."""
        pixels = np.zeros((HEIGHT, WIDTH), bool)
        pixels[max(0, y - 5) : y + 5, max(0, x - 4) : x + 4] = True
        region = mask_region(MASK_TAG, label, frame, pixels, 1.0, {})
        there = self.mask_of(label, frame)
        if there is None:
            region |= {"id": self.next("hand"), "origin": "manual"}
        else:
            region |= {"id": there["id"], "origin": "manual" if there["origin"] == "manual" else "prediction-changed"}
        known = self.objects[label]
        self.page[region["id"]] = region
        known.hand[frame] = pixels
        known.clicked.pop(frame, None)
        known.deleted.discard(frame)
        known.clicks.pop(frame, None)
        for p in [p for p in self.points_of(label) if p["item_index"] == frame]:
            del self.page[p["id"]]

    @rule(label=labels, frame=frames)
    def delete_mask(self, label: str, frame: int) -> None:
        region = self.mask_of(label, frame)
        if region is None:
            return
        known = self.objects[label]
        del self.page[region["id"]]
        known.hand.pop(frame, None)
        if frame in known.delivered:
            known.deleted.add(frame)

    @rule(label=labels)
    def remove_object(self, label: str) -> None:
        for region in [*self.points_of(label), *filter(None, (self.mask_of(label, f) for f in range(FRAMES)))]:
            del self.page[region["id"]]
        self.objects[label] = Object()

    @precondition(lambda self: self.page)
    @rule()
    def submit_and_reload(self) -> None:
        self.saved_as = "annotations"
        self.label_studio.drafts = []

    @precondition(lambda self: self.page and self.saved_as == "drafts")
    @rule()
    def come_back_later(self) -> None:
        """The page is closed; what was computed behind the answers is in the draft when the task is opened again."""
        self.label_studio.drafts = [self.saved()]
        leave(self.backend)
        until(lambda: not self.backend.service.jobs.running)
        assert self.backend.batch(self.task).status_code == 200
        [reopened] = self.label_studio.drafts
        for region in reopened["result"]:
            known = self.objects[(region["value"].get(MASK_TAG.type) or LABELS)[0]]
            if region["type"] == MASK_TAG.type and region["id"] not in self.page:
                assert region["item_index"] not in known.hand
                assert region["item_index"] not in known.deleted
                known.delivered.add(region["item_index"])
        self.page = {r["id"]: r for r in reopened["result"]}
        for label in LABELS:
            for frame in range(FRAMES):
                self.mask_of(label, frame)

    @rule()
    def restart(self) -> None:
        self.backend.service.close()
        self.backend = self.start()

    @invariant()
    def what_people_fixed_is_there(self) -> None:
        for label, known in self.objects.items():
            for frame, mask in known.hand.items():
                region = self.mask_of(label, frame)
                assert region is not None
                assert same(region, mask)


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=30,
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)
