"""Every n-th frame of a video as a video."""

import pytest

from tam_backend.video import open_video
from tam_backend.video.subsample import EveryNth, original_frame
from tests.fakes import make_video


def test_its_frames_are_those_of_the_video(tmp_path):
    path = make_video(tmp_path / "a.mp4", 12)
    with open_video(path) as video:
        thirds = EveryNth(video, 3, 1)
        assert len(thirds) == 4
        assert [thirds.original(i) for i in range(4)] == [1, 4, 7, 10]
        assert all((thirds[i] == video[thirds.original(i)]).all() for i in range(4))
        assert [int(f[40, 60, 0]) for f in reversed(thirds)] == [int(f[40, 60, 0]) for f in thirds][::-1]
        assert (thirds.height, thirds.width) == (video.height, video.width)
        assert thirds.time(2) == pytest.approx(video.time(7) - video.time(1))
        assert len({video.key, thirds.key, EveryNth(video, 3).key, EveryNth(video, 4, 1).key}) == 4
        assert (original_frame(thirds, 2), original_frame(video, 2)) == (7, 2)
        copy = thirds.clone()
        assert copy.key == thirds.key
        assert (copy[3] == video[10]).all()
        copy.close()
        with pytest.raises(IndexError, match="frame 4: there are frames 0 to 3"):
            thirds[4]
