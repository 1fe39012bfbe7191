"""What is asked of the embedded engine, and what it reaches, in one table.

    python benchmarks/embedded_bars.py --data DIR --sequences dog libby ... [--only clicks masks speed memory]

DIR in the DAVIS layout. The figures are those of ``embedded_clicks.py`` and ``embedded_propagation.py``, which say how
they are measured and print them for each sequence; here are their means over the sequences. Times are by the clock, so
nothing else should run; in brackets those of all cores together, which other work does not change as much.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.embedded_clicks import clicks_tables, mean_of
from benchmarks.embedded_propagation import OBJECT_COUNTS, measure_masks, measure_memory, measure_speed, read_ids
from tam_backend.segmenters.embedded.view import Cues

Rows = Mapping[str, float]

#: Column of the benchmarks -> what it is, must, aim, whether more is better.
BARS = {
    "IoU@1": ("IoU after 1 click", 57, 62, True),
    "IoU@3": ("IoU after 3 clicks", 68, 73, True),
    "IoU@5": ("IoU after 5 clicks", 77, 82, True),
    "random": ("IoU after 1 drawn click", 50, 56, True),
    "kept": ("clicks that lose at most 3 points, %", 95, 99, True),
    "ms first": ("first click, ms", 600, 350, False),
    "ms next": ("next click, ms", 400, 150, False),
    "first mask": ("J&F, first mask, one pass", 54, 58, True),
    "three masks": ("J&F, three masks, both ways", 73, 78, True),
    "one way": ("one way, ms a frame", 90, 60, False),
    "both ways": ("both ways, ms a frame", 180, 120, False),
    "5 objects / 1": ("five objects against one", 2, 1.5, False),
    "MB": ("memory, 1,000 frames of 720p, MB", 600, 300, False),
}
#: Of these there is the time of all cores as well, in these columns.
CORES = {"ms first": "cpu first", "ms next": "cpu next", "one way": "cpu one way", "both ways": "cpu both ways"}
CORES["5 objects / 1"] = "cpu 5 / 1"


def reached_word(value: float, must: float, aim: float, more: bool) -> str:
    return next((w for w, bar in (("aim", aim), ("must", must)) if (value >= bar if more else value <= bar)), "missed")


def print_bars(reached: Rows) -> None:
    print(f"| {'':36} | must | aim | reached | |\n|---|---|---|---|---|")
    for column, (name, must, aim, more) in BARS.items():
        if column in reached:
            cores = f" ({reached[CORES[column]]:.2f})" if column in CORES else ""
            word = reached_word(reached[column], must, aim, more)
            print(f"| {name:36} | {must:g} | {aim:g} | {reached[column]:.2f}{cores} | {word} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder in the DAVIS layout")
    parser.add_argument("--sequences", nargs="+", required=True, help="names of sequences")
    parser.add_argument("--only", nargs="+", choices=["clicks", "masks", "speed", "memory"], help="part of the table")
    parser.add_argument("--frames", type=int, default=25, help="frames of each sequence that are timed")
    arguments = parser.parse_args()
    data, names = arguments.data, arguments.sequences
    images, annotations = data / "JPEGImages" / "480p", data / "Annotations" / "480p"

    def of_sequences(measure: Callable[..., dict[str, float]], frames: int | None) -> dict[str, float]:
        return mean_of({n: measure(images / n, read_ids(annotations / n, False, frames)) for n in names})

    parts: dict[str, Callable[[], Rows]] = {
        "clicks": lambda: mean_of(clicks_tables(data, names, {"full": Cues()}, 3, 2, False)["full"]),
        "masks": lambda: of_sequences(measure_masks, None),
        "speed": lambda: of_sequences(measure_speed, arguments.frames),
        "memory": lambda: max((measure_memory(n) for n in OBJECT_COUNTS), key=lambda row: row["MB"]),
    }
    reached: dict[str, float] = {}
    for part in arguments.only or parts:
        reached |= parts[part]()
    print_bars(reached)


if __name__ == "__main__":
    main()
