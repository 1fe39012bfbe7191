import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest

from tam_backend.errors import BadInput, MediaError
from tam_backend.features import CameraMotion, FeatureStore, FrameFeatures, Geometry
from tam_backend.features.colour import ColourModel, colour_bins
from tam_backend.features.filters import guided_filter, signed_distance

from .scenes import RED, ArrayReader, Disc, moving_disc, scene


def test_store_never_holds_more_than_its_bound_and_drops_the_least_recently_used():
    store = FeatureStore(max_bytes=3000)
    for key in "abc":
        store.get(key, lambda: np.zeros(1000, np.uint8))
    store.get("a", lambda: pytest.fail("held values are not computed again"))
    store.get("d", lambda: np.zeros(1000, np.uint8))
    assert store.nbytes == 3000
    computed = []
    store.get("a", lambda: pytest.fail("'a' was used after 'b'"))
    store.get("b", lambda: computed.append("b") or np.zeros(1000, np.uint8))
    assert computed == ["b"]
    assert store.nbytes == 3000
    store.clear()
    assert (store.nbytes, len(store)) == (0, 0)


def test_store_hands_out_but_does_not_keep_what_is_larger_than_its_bound():
    store = FeatureStore(max_bytes=10)
    assert store.get("large", lambda: np.ones(11, np.uint8)).sum() == 11
    assert (store.nbytes, len(store)) == (0, 0)
    with pytest.raises(BadInput, match="max_bytes"):
        FeatureStore(-1)


def test_two_threads_compute_a_value_once():
    store, calls, barrier = FeatureStore(), [], threading.Barrier(4)
    results = []

    def slow() -> np.ndarray:
        calls.append(threading.get_ident())
        time.sleep(0.05)
        return np.arange(3)

    def ask() -> None:
        barrier.wait()
        results.append(store.get("key", slow))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(calls) == 1
    assert all(r is results[0] for r in results)


def test_a_failure_stays_with_the_thread_it_happened_in():
    store, entered, fail = FeatureStore(), threading.Event(), threading.Event()
    errors, values = [], []

    def broken() -> np.ndarray:
        entered.set()
        fail.wait(5)
        raise OSError("the reader was closed")

    def first() -> None:
        try:
            store.get("key", broken)
        except OSError as error:
            errors.append(str(error))

    def second() -> None:
        values.append(store.get("key", lambda: np.arange(2)))

    a, b = threading.Thread(target=first), threading.Thread(target=second)
    a.start()
    assert entered.wait(5)
    b.start()
    fail.set()
    a.join()
    b.join()
    assert errors == ["the reader was closed"]
    assert values[0].tolist() == [0, 1]


def test_features_are_shared_between_directions_and_readers_of_one_video():
    reader, _ = moving_disc()
    features, other = FrameFeatures(), reader.clone()
    features.flow(reader, 0, 1)
    features.flow(other, 1, 0)
    features.relative_speed(other, 0)
    assert reader.reads == [0, 1]
    assert other.reads == []


def test_flow_points_where_things_went():
    reader, masks = moving_disc()
    flow = FrameFeatures().flow(reader, 3, 4)
    core = signed_distance(masks[3]) > 6
    assert np.allclose(np.median(flow[core], axis=0), (4, 1), atol=0.3)
    ground = signed_distance(masks[3]) < -12
    assert np.allclose(np.median(flow[ground], axis=0), (-1, -0.5), atol=0.2)


def test_flow_sees_a_small_thing_move():
    reader, (masks,) = scene(240, 320, 2, [Disc(lambda t: (100 + 4 * t, 60), 15, RED)])
    flow = FrameFeatures().flow(reader, 0, 1)
    disc = cv2.resize(masks[0].astype(np.uint8), flow.shape[1::-1], interpolation=cv2.INTER_AREA) > 0
    right = np.linalg.norm(flow[disc] - (2, 0), axis=1) < 0.7  # at half the size
    assert right.mean() > 0.5  # none at all where the search ends one level earlier


def test_camera_motion_ignores_a_large_object_and_finds_a_zoom_with_rotation():
    height, width = 60, 90
    y, x = np.mgrid[:height, :width].astype(np.float32)
    truth = np.stack([0.02 * (x - 40) - 0.01 * (y - 30) + 1, 0.01 * (x - 40) + 0.02 * (y - 30) - 2], axis=2)
    flow = truth.copy()
    flow[15:45, 20:65] += (5, -3)  # a quarter of the frame
    camera = CameraMotion.fit(flow)
    assert np.abs(camera.flow(height, width) - truth).max() < 0.05
    speed = camera.speed(flow)
    assert speed[15:45, 20:65].min() > 20 * speed[:15].max()


def test_relative_speed_needs_a_neighbour():
    reader, masks = moving_disc(3)
    features = FrameFeatures()
    speed = features.relative_speed(reader, 1)
    assert speed is not None
    assert np.median(speed[masks[1]]) > 5 * np.median(speed[~masks[1]])
    assert features.relative_speed(ArrayReader(reader.frames[:1], "still"), 0) is None


@pytest.mark.parametrize(
    ("size", "work", "flow"),
    [
        ((480, 854), (480, 854), (240, 427)),
        ((1080, 1920), (480, 854), (240, 427)),
        ((64, 64), (64, 64), (64, 64)),
        ((1, 1), (1, 1), (1, 1)),
    ],
)
def test_large_frames_are_worked_on_small_and_small_ones_whole(size, work, flow):
    g = Geometry.of(*size)
    assert g.work_shape == work
    assert (g.flow_height, g.flow_width) == flow
    assert g.work_height * g.work_width <= 854 * 480 * 1.01


def test_colour_model_tells_colours_apart():
    lab = np.full((4, 8, 3), (120, 128, 128), np.uint8)
    lab[:, :4] = (120, 170, 150)
    left = np.zeros((4, 8), np.float32)
    left[:, :4] = 1
    bins = colour_bins(lab)
    odds = ColourModel.learn(bins, left, 1 - left).log_odds(bins)
    assert odds[:, :4].min() > 3
    assert odds[:, 4:].max() < -3


def test_guided_filter_keeps_the_guides_edge_and_removes_noise():
    guide = np.zeros((40, 40, 3), np.float32)
    guide[:, 20:] = 0.5
    clean = np.zeros((40, 40), np.float32)
    clean[:, 20:] = 1
    noisy = clean + np.random.default_rng(0).normal(0, 0.3, clean.shape).astype(np.float32)
    smooth = guided_filter(guide, noisy, 5, 1e-4)
    assert np.abs(smooth - clean).max() < 0.15


def test_no_torch_and_no_engine_before_it_is_asked_for():
    code = (
        "import sys, tam_backend.engines as e; assert 'tam_backend.features' not in sys.modules;"
        "e.load_engine('embedded'); assert 'torch' not in sys.modules; assert 'tam_backend.features' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class TestShared:
    """What the objects of a frame share."""

    def test_colour_bins_are_those_of_the_definition(self):
        lab = np.random.default_rng(3).integers(0, 256, (20, 30, 3), np.uint8)
        lightness, a, b = (lab[..., i].astype(int) for i in range(3))
        chroma = [np.clip((c - 64) // 4, 0, 31) for c in (a, b)]
        bins = colour_bins(lab)
        assert bins.dtype == np.uint16
        assert np.array_equal(bins, (lightness // 16) * 1024 + chroma[0] * 32 + chroma[1])

    @pytest.mark.parametrize("size", [(120, 160), (240, 320)])
    def test_arrival_is_the_flow_at_the_working_size(self, size):
        scale = size[0] // 120
        reader, (masks,) = scene(*size, 3, [Disc(lambda t: (scale * (60 + 4 * t), scale * 60), scale * 20, RED)])
        arrival = FrameFeatures().arrival(reader, 0, 1)
        assert arrival.back.shape == (*size, 2)
        middle = slice(55 * scale, 65 * scale), slice(59 * scale, 69 * scale)
        assert np.allclose(arrival.back[middle].mean(axis=(0, 1)), (-4 * scale, 0), atol=0.3)
        assert arrival.consistent[middle].min() > 0.8
        uncovered = masks[0] & ~masks[1]  # what comes out from behind the disc was nowhere before
        assert arrival.consistent[uncovered].mean() < 0.8

    def test_one_thread_or_two_make_no_difference(self):
        reader, _ = scene(240, 320, 2, [Disc(lambda t: (100 + 6 * t, 90), 40, RED)])
        threads, flows = cv2.getNumThreads(), []
        try:
            for count in (1, 2):
                cv2.setNumThreads(count)
                flows.append([FrameFeatures().flow(reader, *pair) for pair in ((0, 1), (1, 0))])
        finally:
            cv2.setNumThreads(threads)
        assert all(np.array_equal(a, b) for a, b in zip(*flows, strict=True))

    def test_shared_features_are_not_to_be_changed(self):
        reader, _ = scene(64, 80, 2, [Disc(lambda t: (40 + t, 30), 10, RED)])
        features = FrameFeatures()
        for shared in (features.lab(reader, 0), features.flow(reader, 0, 1)):
            with pytest.raises(ValueError, match="read-only"):
                shared[0] = 0

    def test_both_caches_keep_to_their_bounds(self):
        reader, _ = scene(120, 160, 12, [Disc(lambda t: (40 + 3 * t, 60), 15, RED)])
        features = FrameFeatures(FeatureStore(600_000), FeatureStore(1_000_000))
        for frame in range(1, 11):
            features.arrival(reader, frame - 1, frame)
            features.speed(reader, frame)
            features.bins(reader, frame)
        assert 0 < features.store.nbytes <= 600_000
        assert 0 < features.passing.nbytes <= 1_000_000

    def test_what_the_next_frame_needs_can_be_made_ready_ahead(self, monkeypatch):
        monkeypatch.setattr(cv2, "getNumThreads", lambda: 2)
        reader, _ = scene(120, 160, 4, [Disc(lambda t: (40 + 3 * t, 60), 15, RED)])
        features = FrameFeatures()
        features.prepare(reader, 0, 1)
        features._ahead.shutdown(wait=True)
        asked = features.store.misses + features.passing.misses
        assert asked > 0
        features.speed(reader, 1), features.arrival(reader, 0, 1)
        assert features.store.misses + features.passing.misses == asked
        fresh = FrameFeatures()
        assert np.array_equal(features.speed(reader, 1), fresh.speed(reader, 1))
        assert np.array_equal(features.arrival(reader, 0, 1).back, fresh.arrival(reader, 0, 1).back)

    @pytest.mark.parametrize("target", [-1, 3])
    def test_nothing_is_made_ready_beyond_the_ends(self, target, monkeypatch):
        monkeypatch.setattr(cv2, "getNumThreads", lambda: 2)
        reader, _ = scene(64, 80, 3, [Disc(lambda t: (40 + t, 30), 10, RED)])
        features = FrameFeatures()
        features.prepare(reader, max(0, target - 1), target)
        features._ahead.shutdown(wait=True)
        assert reader.reads == []

    def test_a_frame_that_cannot_be_read_fails_for_who_asks_for_it(self, monkeypatch):
        monkeypatch.setattr(cv2, "getNumThreads", lambda: 2)

        class Damaged(ArrayReader):
            def __getitem__(self, index):
                if index == 2:
                    raise MediaError("frame 2 cannot be decoded")
                return super().__getitem__(index)

        sound, _ = scene(64, 80, 4, [Disc(lambda t: (40 + t, 30), 10, RED)])
        features, reader = FrameFeatures(), Damaged(sound.frames, "damaged")
        features.prepare(reader, 1, 2)
        features._ahead.shutdown(wait=True)
        with pytest.raises(MediaError, match="frame 2"):
            features.arrival(reader, 1, 2)
        assert features.arrival(reader, 0, 1).back.shape == (64, 80, 2)
