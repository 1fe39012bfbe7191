"""Make the pictures of docs/how-it-works.md, one for each of the four steps, from the sample clip.

.venv/bin/python scripts/step_pictures.py
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from tamdev.sample import ANIMAL, sample_clip

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "images"
WIDTH, GAP = 1000, 6
#: The frames that are tracked, those that are shown, and what is clicked afterwards: frame, x, y, if on the object.
LAST, SHOWN = 60, (15, 30, 45, 60)
CORRECTION = (45, 430, 222, True)
ON, OFF = (0, 200, 0), (220, 0, 0)

sys.path.insert(0, str(ROOT))

from tam_backend.drawing import draw_objects  # noqa: E402
from tam_backend.video import open_video  # noqa: E402

Picture = np.ndarray


def track(clip: Path, out: Path, *clicks: str, **settings: str) -> None:
    given = [part for click in clicks for part in ("--click", click)]
    command = [sys.executable, "-m", "tam_backend.cli", "track", str(clip), *given, "--end", str(LAST), "--explain"]
    command += ["--out", str(out), "--engine", "embedded", "--quiet"]
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | settings)


def masked(picture: Picture, folder: Path, frame: int) -> Picture:
    with Image.open(folder / f"{frame:05d}.png") as image:
        return draw_objects(picture, np.array(image), frame)


def clicked(picture: Picture, x: float, y: float, positive: bool = True) -> Picture:
    picture = picture.copy()
    cv2.circle(picture, (round(x), round(y)), 11, (255, 255, 255), cv2.FILLED, cv2.LINE_AA)
    cv2.circle(picture, (round(x), round(y)), 8, ON if positive else OFF, cv2.FILLED, cv2.LINE_AA)
    return picture


def row(pictures: list[Picture], together: int = WIDTH) -> Picture:
    width = (together - GAP * (len(pictures) - 1)) // len(pictures)
    height = round(width * pictures[0].shape[0] / pictures[0].shape[1])
    small = [cv2.resize(p, (width, height), interpolation=cv2.INTER_AREA) for p in pictures]
    gap = np.full((height, GAP, 3), 255, np.uint8)
    return np.hstack([part for picture in small for part in (picture, gap)][:-1])


def most_helpful(explain: Path) -> Path:
    """The picture of the refinement that raised the quality most."""
    with (explain / "frames.csv").open() as file:
        refined = [r for r in csv.DictReader(file) if r["outcome"] == "refined"]
    if not refined:
        raise SystemExit("no frame was refined: choose other frames in this script")
    best = max(refined, key=lambda r: float(r["quality_after"]) - float(r["quality"]))
    return explain / f"{int(best['frame']):05d}-object{best['object']}-{best['direction']}.jpg"


def main() -> int:
    clip = sample_clip()
    first, other = f"0,{ANIMAL[0]},{ANIMAL[1]}", "{},{},{}{}".format(*CORRECTION[:3], "" if CORRECTION[3] else ",-")
    with tempfile.TemporaryDirectory() as folder, open_video(clip) as video:
        once, twice, refined = (Path(folder) / name for name in ("once", "twice", "refined"))
        track(clip, once, first)
        track(clip, twice, first, other)
        # The sample has no mask that is poor enough to be refined by itself.
        track(clip, refined, first, TAM_REFINE_BELOW="0.95")
        explained = np.array(Image.open(most_helpful(refined / "explain")))
        frame, x, y, positive = CORRECTION
        steps = [
            [clicked(video[0], *ANIMAL), clicked(masked(video[0], once, 0), *ANIMAL)],
            [masked(video[i], once, i) for i in SHOWN],
            [explained],
            [
                masked(video[frame], once, frame),
                clicked(masked(video[frame], twice, frame), x, y, positive),
                masked(video[frame + 10], once, frame + 10),
                masked(video[frame + 10], twice, frame + 10),
            ],
        ]
        for number, pictures in enumerate(steps, 1):
            path = PAGE / f"step-{number}.jpg"
            image = row(pictures, WIDTH if len(pictures) > 1 else 640)
            Image.fromarray(image).save(path, quality=85, optimize=True)
            print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
