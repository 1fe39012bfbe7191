"""Cut a range of frames out of a video, scaled down. Run with the Python of .venv:

cut_clip.py SOURCE.mp4 CLIP.mp4 FIRST COUNT HEIGHT
"""

from __future__ import annotations

import sys

import cv2

from tam_backend.video.reader import open_video
from tam_backend.video.write import VideoWriter


def main(source: str, clip: str, first: int, count: int, height: int) -> None:
    reader = open_video(source)
    width = round(reader.width * height / reader.height / 2) * 2
    with VideoWriter(clip, reader.fps, (width, height)) as video:
        for index in range(first, first + count):
            video.write(cv2.resize(reader[index], (width, height), interpolation=cv2.INTER_AREA))
    reader.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6]))
