"""Rows of figures by name, and their mean."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def print_table(title: str, rows: Mapping[str, Mapping[str, float]], fine: tuple[str, ...] = ()) -> None:
    """Print a row for each name and the mean of the rows. fine: columns with two decimals instead of one."""
    names = list(next(iter(rows.values())))
    mean = {n: float(np.nanmean([row[n] for row in rows.values()])) for n in names}
    width = max(len(title), *(len(n) for n in rows)) + 2
    print(f"\n{title:{width}}" + "".join(f"{n:>12}" for n in names))
    for name, row in {**rows, "mean": mean}.items():
        print(f"{name:{width}}" + "".join(f"{row[n]:12.{2 if n in fine else 1}f}" for n in names), flush=True)
