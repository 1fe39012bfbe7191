"""Write docs/evaluation.md from results of `tam evaluate`.

    python benchmarks/evaluation_note.py RUNS --scoring TEXT_FILE [--out FILE]

RUNS holds a folder for each data set, and in it the --out folder of each run; both are named as they are shown.
TEXT_FILE is what benchmarks/scoring.py printed. The text around the figures is in evaluation_note.txt.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from pathlib import Path
from string import Template

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tam_backend.evaluation import published
from tam_backend.evaluation.protocols import PROTOCOLS
from tam_backend.evaluation.report import read_report, show, table

ROOT = Path(__file__).resolve().parents[1]
#: Names of runs in the order in which they are shown; others come after them.
ORDER = ("first-mask", "clicks-3", "box", "noc", "offline", "offline-suggested", "online", "davis-interactive")
TITLES = {"dev": "Seven sequences of DAVIS 2016 val, 854x480, one object each", "schoolgirls": "schoolgirls, apart"}


def machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores ({platform.machine()}, {memory:.0f} GiB, no GPU), Python {platform.python_version()}"
    )


def command(report: dict) -> str:
    conditions = report["conditions"]
    options = conditions["options"]
    words = ["tam evaluate DATASET", "--imset LIST"]
    if conditions["engine"].split("-")[0] != "embedded":
        words.append(f"--engine {conditions['engine'].rsplit('-', 1)[0]}")
    if conditions["protocol"] != "semi-supervised":
        words.append(f"--protocol {conditions['protocol']}")
    elif conditions["init"] != "first-mask":
        words.append(f"--init {conditions['init']}")
    if options["choose"] != "worst":
        words.append(f"--choose {options['choose']}")
    if options["merge"]:
        words.append("--merge")
    return " ".join([*words, "--out DIR"])


def section(name: str, report: dict) -> list[str]:
    names = [n for n in report["summary"] if n != "sequences"]
    objects = sum(len(s["objects"]) for s in report["sequences"])
    rows = [[s["sequence"], *(show(n, s["figures"][n]) for n in names)] for s in report["sequences"]]
    if len(rows) > 1:
        rows.append([f"**all ({objects} objects)**", *(show(n, report["summary"][n]) for n in names)])
    timing = ", ".join(f"{n} {show(n, v)}" for n, v in report["timing"].items() if v is not None)
    lines = [f"#### {name}", "", f"`{command(report)}`", "", *table(["sequence", *names], rows)]
    if timing:
        lines += ["", f"Depends on the machine: {timing}."]
    if report["skipped"]:
        lines += ["", "Skipped: " + "; ".join(report["skipped"].values())]
    return [*lines, ""]


def results(runs: Path) -> str:
    lines: list[str] = []
    for folder in sorted(p for p in runs.iterdir() if p.is_dir()):
        lines += [f"### {TITLES.get(folder.name, folder.name)}", ""]
        reports = {p.name: read_report(p) for p in folder.iterdir() if (p / "report.json").is_file()}
        first = next(iter(reports.values()))
        listed = ", ".join(f"{s['sequence']} ({s['frames']} frames)" for s in first["sequences"])
        lines += [f"{listed}. Engine {first['conditions']['engine']}.", ""]
        for name in sorted(reports, key=lambda n: (ORDER.index(n) if n in ORDER else len(ORDER), n)):
            lines += section(name, reports[name])
    return "\n".join(lines).strip()


def others() -> str:
    lines: list[str] = []
    for split, title in published.splits().items():
        rows = [p.row() for p in published.published_on(split)]
        lines += [f"### {title}", "", *table(["method", "venue", "given by", "J&F", "J", "F", "source"], rows), ""]
    return "\n".join(lines).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("runs", type=Path, help="folder of data sets, each a folder of runs")
    parser.add_argument("--scoring", type=Path, required=True, help="what benchmarks/scoring.py printed")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "evaluation.md", help="default: docs/evaluation.md")
    arguments = parser.parse_args()
    text = Template((ROOT / "benchmarks" / "evaluation_note.txt").read_text()).substitute(
        protocols="\n".join(f"| {name} | {module.SUMMARY} |" for name, module in PROTOCOLS.items()),
        machine=machine(),
        runs=results(arguments.runs),
        published=others(),
        scoring="`python benchmarks/scoring.py DATASET DIR/masks --imset LIST`, files read included:\n\n"
        + "\n".join(f"    {line}" for line in arguments.scoring.read_text().splitlines()),
    )
    arguments.out.write_text(text)


if __name__ == "__main__":
    main()
