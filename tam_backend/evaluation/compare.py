"""Two runs side by side: which sequences gained and which lost, and where the masks tell the difference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tam_backend.errors import BadInput, TamError
from tam_backend.evaluation.datasets import Sequence, load_sequence
from tam_backend.evaluation.layouts import find_sequences
from tam_backend.evaluation.pictures import read_ids, true_ids, write_side_by_side
from tam_backend.evaluation.protocols import PROTOCOLS
from tam_backend.evaluation.protocols.base import Json
from tam_backend.evaluation.report import is_percentage, read_report, show, table
from tam_backend.evaluation.runner import MASKS

#: Pictures that are made, at most one of each sequence.
PICTURES = 6


@dataclass(frozen=True, slots=True)
class Run:
    folder: Path
    report: Json

    @property
    def sequences(self) -> dict[str, Json]:
        return {s["sequence"]: s for s in self.report["sequences"]}


@dataclass(frozen=True, slots=True)
class Difference:
    """The frame of a sequence on which two runs differ most. gain: of J&F, from the first run to the second."""

    sequence: str
    frame: int
    gain: float


def load_runs(first: Path, second: Path) -> tuple[Run, Run]:
    """Raises BadInput if a report is missing, or if the two cannot be compared."""
    a, b = Run(first, read_report(first)), Run(second, read_report(second))
    protocols = [r.report["conditions"]["protocol"] for r in (a, b)]
    if protocols[0] != protocols[1]:
        raise BadInput(f"{first} is a run of {protocols[0]}, {second} of {protocols[1]}: there is nothing to compare")
    if not a.sequences.keys() & b.sequences.keys():
        raise BadInput(f"{first} and {second} have no sequence in common")
    return a, b


def compare(a: Run, b: Run) -> str:
    """The comparison as Markdown. Means are over the sequences that both runs have."""
    protocol = PROTOCOLS[a.report["conditions"]["protocol"]]
    common = [n for n in a.sequences if n in b.sequences]
    totals = [protocol.total([r.sequences[n] for n in common]) for r in (a, b)]
    lines = [
        f"# {protocol.NAME}: A = {a.folder.name}, B = {b.folder.name}",
        "",
        *(f"- {name}: {_conditions(run)}" for name, run in (("A", a), ("B", b))),
        "",
        f"All figures, over {len(common)} common sequences:",
        "",
        *table(
            ["figure", "A", "B", "B - A"],
            [[n, show(n, totals[0][n]), show(n, totals[1].get(n)), _gain(n, *totals)] for n in totals[0]],
        ),
        "",
        f"{protocol.MAIN} of each sequence, sorted by the difference:",
        "",
    ]
    figures = {n: tuple(r.sequences[n]["figures"] for r in (a, b)) for n in common}
    main = protocol.MAIN
    ordered = sorted(common, key=lambda n: ((figures[n][1][main] or 0) - (figures[n][0][main] or 0), n))
    lines += table(
        ["sequence", "A", "B", "B - A"],
        [[n, *(show(main, f[main]) for f in figures[n]), _gain(main, *figures[n])] for n in ordered],
    )
    for name, run, other in (("A", a, b), ("B", b, a)):
        alone = [n for n in run.sequences if n not in other.sequences]
        if alone:
            lines += ["", f"Only in {name}, and in no figure here: {', '.join(alone)}"]
    return "\n".join(lines) + "\n"


def differences(a: Run, b: Run) -> list[Difference]:
    """Where the masks differ most: a frame of each sequence, those with the largest difference first.

    None for a protocol of single frames, which keeps no masks.
    """
    found = []
    for name, first in a.sequences.items():
        if name in b.sequences and (gains := _gains(first, b.sequences[name])):
            frame = max(gains, key=lambda f: (abs(gains[f]), -f))
            if gains[frame]:
                found.append(Difference(name, frame, gains[frame]))
    return sorted(found, key=lambda d: (-abs(d.gain), d.sequence))[:PICTURES]


def write_pictures(a: Run, b: Run, folder: Path) -> Iterator[tuple[Difference, Path]]:
    """A picture of each of the ``differences``: A, B and the truth, from left to right. Raises TamError."""
    found = differences(a, b)
    if not found:
        return
    conditions = a.report["conditions"]
    paths = {s.name: s for s in find_sequences(Path(conditions["dataset"])).sequences}
    for difference in found:
        if difference.sequence not in paths:
            raise TamError(f"{difference.sequence} is no longer in the data set {conditions['dataset']}")
        sequence = load_sequence(paths[difference.sequence], merge=conditions["options"]["merge"])
        path = folder / f"{difference.sequence}-{difference.frame:05d}.png"
        with sequence.open() as video:
            panels = [_ids(r, sequence, difference.frame) for r in (a, b)]
            panels.append(true_ids(sequence, difference.frame))
            write_side_by_side(path, video[difference.frame], difference.frame, panels)
        yield difference, path


def _ids(run: Run, sequence: Sequence, frame: int) -> np.ndarray:
    ids = read_ids(run.folder / MASKS / sequence.name, sequence.stems[frame])
    if ids is None:
        raise TamError(f"{run.folder} has no mask of frame {sequence.stems[frame]} of {sequence.name}")
    return ids


def _gains(first: Json, second: Json) -> dict[int, float]:
    """Frame -> mean gain of J&F over the objects that both runs scored there."""
    gains: dict[int, list[float]] = {}
    for object_id, scored in first["objects"].items():
        other = second["objects"].get(object_id)
        if other is None or "J" not in scored or "J" not in other:
            continue
        after = {f: (j + v) / 2 for f, j, v in zip(other["frames"], other["J"], other["F"], strict=True)}
        for frame, j, v in zip(scored["frames"], scored["J"], scored["F"], strict=True):
            if frame in after:
                gains.setdefault(frame, []).append(after[frame] - (j + v) / 2)
    return {f: float(np.mean(values)) for f, values in gains.items()}


def _conditions(run: Run) -> str:
    conditions = run.report["conditions"]
    chosen = f", frames chosen: {conditions['options']['choose']}" if conditions["protocol"] == "offline" else ""
    return f"engine {conditions['engine']}, objects given by {conditions['init']}{chosen}"


def _gain(name: str, before: Json, after: Json) -> str:
    if before.get(name) is None or after.get(name) is None:
        return "-"
    difference = after[name] - before[name]
    return f"{100 * difference:+.1f}" if is_percentage(name) else f"{difference:+.2f}"
