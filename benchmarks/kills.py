"""Kill the backend at random moments while it tracks a whole video, and compare with an undisturbed run.

    python benchmarks/kills.py VIDEO --click FRAME,X,Y [--kills 20] [--within 15]

X and Y are percent of the picture. Prints the figures; exit code 1 if anything was lost or differs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.server.kills import track


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--click", required=True, metavar="FRAME,X,Y")
    parser.add_argument("--clip-length", type=int, default=100)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--within", type=float, default=15.0, help="seconds of life at most")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    frame, x, y = args.click.split(",")
    click = (int(frame), float(x), float(y))
    video = args.video.resolve()
    with tempfile.TemporaryDirectory() as folder:
        calm = track(Path(folder) / "calm", video, click, args.clip_length)
        print(f"undisturbed: {len(calm.predictions)} predictions, {calm.masks} masks in them, {calm.seconds:.0f} s")
        killed = track(
            Path(folder) / "killed", video, click, args.clip_length, args.kills, within=args.within, seed=args.seed
        )
        print(f"{killed.kills} kills: {killed.masks} masks in the predictions, {killed.seconds:.0f} s")
        print("stored blobs at each kill:", *killed.blobs_at_kill)
    same = killed.predictions == calm.predictions
    same_answer = {r["id"]: r for r in killed.answer} == {r["id"]: r for r in calm.answer}
    print(f"predictions equal: {same}; answer to the next click equal: {same_answer} ({len(calm.answer)} regions)")
    return 0 if same and same_answer else 1


if __name__ == "__main__":
    sys.exit(main())
