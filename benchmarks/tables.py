"""Rows of figures by name, and their mean."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def print_table(
    title: str, rows: Mapping[str, Mapping[str, float]], fine: tuple[str, ...] = (), mean: bool = True
) -> None:
    """Print a row for each name, and the mean of the rows. fine: columns with two decimals instead of one."""
    names = list(next(iter(rows.values())))
    last = {"mean": {n: float(np.nanmean([row[n] for row in rows.values()])) for n in names}} if mean else {}
    width = max(len(title), *(len(n) for n in rows)) + 2
    print(f"\n{title:{width}}" + "".join(f"{n:>15}" for n in names))
    for name, row in {**rows, **last}.items():
        print(f"{name:{width}}" + "".join(f"{row[n]:15.{2 if n in fine else 1}f}" for n in names), flush=True)
