"""Memory and time of exports, by the length of the video: python benchmarks/export_memory.py [FORMAT...].

Each line is a process of its own: made masks of three objects at 854x480, written in one format, without pictures.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tam_backend.export.dataset import Dataset, MaskedFrame, Track, Video
from tam_backend.export.formats import FORMATS, find_format

HEIGHT, WIDTH, LENGTHS = 480, 854, (100, 800)
TRACKS = tuple(Track(i, f"Person {i}", "Person") for i in (1, 2, 3))


def read(frames: range) -> Iterator[MaskedFrame]:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    for frame in frames:
        yield MaskedFrame(
            frame,
            {
                t.id: (columns - 100 - 200 * t.id + frame % 90) ** 2 + (rows - 240) ** 2 < (60 + frame % 17) ** 2
                for t in TRACKS
            },
        )


def export(name: str, length: int) -> None:
    frames = range(length)
    video = Video("made", HEIGHT, WIDTH, frames, TRACKS, lambda: read(frames))
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        find_format(name).write(Dataset((video,), TRACKS), Path(folder))
        seconds = time.monotonic() - started
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(f"{name:16} {length:5} frames  {memory:6.0f} MB  {1000 * seconds / length:6.1f} ms a frame", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        export(sys.argv[2], int(sys.argv[3]))
    else:
        for name in sys.argv[1:] or [n for n, f in FORMATS.items() if not f.needs_pictures]:
            for length in LENGTHS:
                subprocess.run([sys.executable, __file__, "--one", name, str(length)], check=True)
