"""Where the robot clicks, and that its clicks go the way that a person's go."""

from __future__ import annotations

import numpy as np
import pytest

from tam_backend.errors import TamError
from tam_backend.evaluation.protocols.suggestion import product_suggestion
from tam_backend.evaluation.robot import box_around, next_click
from tam_backend.evaluation.session import Session, ids_at
from tam_backend.prompts import Box, Click, FramePrompts
from tam_backend.tracking.correction import segment_with_prior
from tam_backend.tracking.tracker import Anchor
from tests.evaluation.scenes import square
from tests.tracking.fakes import HEIGHT, WIDTH, DictStore, content, disc, fake_engine, memory_video, run

EMPTY = np.zeros((24, 40), bool)


class TestClicks:
    def test_the_first_click_is_in_the_middle_of_the_largest_part(self):
        truth = square(2, 2, 3) | square(20, 8, 7)
        assert next_click(None, truth) == Click(23.5, 11.5, positive=True)
        assert next_click(EMPTY, truth) == Click(23.5, 11.5, positive=True)

    def test_a_missed_part_gets_a_positive_click(self):
        truth = square(2, 2, 5) | square(20, 8, 7)
        assert next_click(square(20, 8, 7), truth) == Click(4.5, 4.5, positive=True)

    def test_a_part_too_much_gets_a_negative_click(self):
        assert next_click(square(2, 2, 5) | square(20, 8, 7), square(20, 8, 7)) == Click(4.5, 4.5, positive=False)

    def test_missed_and_too_much_are_told_apart_where_they_touch(self):
        """5x5 pixels too much beside 7x7 missed: one region of errors, but two mistakes."""
        truth, mask = square(10, 2, 7), square(5, 2, 5)
        assert next_click(mask, truth) == Click(13.5, 5.5, positive=True)
        assert next_click(square(3, 2, 7), square(10, 2, 5)) == Click(6.5, 5.5, positive=False)

    def test_nothing_wrong(self):
        assert next_click(square(2, 2), square(2, 2)) is None
        assert next_click(None, EMPTY) is None

    def test_void_pixels_are_not_clicked(self):
        truth = square(2, 2, 3) | square(20, 8, 7)
        assert next_click(EMPTY, truth, void=square(20, 8, 7)) == Click(3.5, 3.5, positive=True)
        assert next_click(square(2, 2, 3), truth, void=square(20, 8, 7)) is None

    def test_a_single_pixel(self):
        assert next_click(None, square(7, 9, 1)) == Click(7.5, 9.5, positive=True)

    def test_box(self):
        assert box_around(square(7, 9, 1) | square(3, 2, 2)) == Box(3, 2, 8, 10)


class TestSuggestion:
    def test_poor_frames_are_suggested_until_all_are_decided(self):
        quality = {0: 0.9, 1: 0.9, 2: 0.9, 3: 0.3}
        assert product_suggestion(quality, [0]) == 3
        assert product_suggestion(quality, [0, 1, 2, 3]) is None


class TestSession:
    def test_clicks_of_a_frame_edit_the_mask_that_was_on_the_screen_at_the_first_of_them(self):
        video, engine = memory_video(8), fake_engine()
        with Session(engine, video, DictStore(), range(8)) as session:
            session.click(0, Click(10.5, 12.5))
            assert len(list(session.track(0))) == 8
            shown = session.shown(4)
            assert np.array_equal(shown, disc(14.5, 12.5, 5))
            clicks = (Click(24.5, 12.5), Click(14.5, 12.5, positive=False))
            session.click(4, clicks[0])
            mask = session.click(4, clicks[1])
            assert session.clicks == 3
            expected = segment_with_prior(engine.segmenter, video, 4, FramePrompts(clicks=clicks), shown)
            assert np.array_equal(mask, expected.mask)
            anchors = {
                0: Anchor(FramePrompts(clicks=(Click(10.5, 12.5),))),
                4: Anchor(FramePrompts(clicks=clicks), shown),
            }
            ours = sorted((content(t) for t in session.track(4)), key=lambda c: c[0])
            assert ours == sorted((content(t) for t in run(video, anchors, 4)), key=lambda c: c[0])

    def test_the_first_clicks_of_an_object_speak_for_themselves(self):
        with Session(fake_engine(), memory_video(4), DictStore(), range(4)) as session:
            assert np.array_equal(session.click(1, Click(10.5, 12.5)), disc(10.5, 12.5, 5))
            session.click(1, Click(20.5, 12.5))
            assert session.anchors[1].prior is None

    def test_a_negative_click_on_nothing_changes_nothing(self):
        with Session(fake_engine(), memory_video(4), DictStore(), range(4)) as session:
            assert not session.click(1, Click(3, 3, positive=False)).any()
            assert session.anchors == {}
            assert session.shown(1) is None
            with pytest.raises(TamError, match="frame 2 is not tracked yet"):
                session.at(2)

    def test_boxes_and_drawn_masks(self):
        with Session(fake_engine(), memory_video(4), DictStore(), range(4)) as session:
            assert np.array_equal(session.box(0, Box(3, 4, 8, 9)), square(3, 4, 5, HEIGHT, WIDTH))
            drawn = square(1, 1, 2, HEIGHT, WIDTH)
            assert np.array_equal(session.draw(0, drawn), drawn)
            assert np.array_equal(session.shown(0), drawn)
            assert session.clicks == 0

    def test_only_what_the_engine_makes_is_counted(self):
        store = DictStore()
        for fresh in (5, 0):
            with Session(fake_engine(), memory_video(5), store, range(5)) as session:
                session.click(0, Click(10.5, 12.5))
                for _ in session.track(0):
                    pass
                assert session.computed == fresh
                assert (session.seconds > 0) == (fresh > 0)

    def test_objects_share_no_pixel(self):
        """A drawn mask wins over a computed one; an object that begins later is not on earlier frames."""
        video, store = memory_video(4), DictStore()
        with (
            Session(fake_engine(), video, store, range(4)) as first,
            Session(fake_engine(), video, store, range(2, 4)) as second,
        ):
            first.click(0, Click(10.5, 12.5))
            second.draw(2, square(10, 10, 4, HEIGHT, WIDTH))
            for session in (first, second):
                for _ in session.track(0):
                    pass
            sessions = {1: first, 2: second}
            assert set(np.unique(ids_at(sessions, 1, HEIGHT, WIDTH))) == {0, 1}
            assert np.array_equal(ids_at(sessions, 2, HEIGHT, WIDTH) == 2, square(10, 10, 4, HEIGHT, WIDTH))
        assert not ids_at({}, 0, HEIGHT, WIDTH).any()
