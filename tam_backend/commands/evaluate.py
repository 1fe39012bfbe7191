"""``tam evaluate``: how good the masks are on videos with known truth, and how many clicks they cost."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tam_backend import __version__
from tam_backend.engines import load_engine
from tam_backend.errors import BadInput, MediaError, TamError
from tam_backend.evaluation.datasets import load_sequence
from tam_backend.evaluation.figures import NoPlots, draw_plots, score_of
from tam_backend.evaluation.folder import OVERLAYS, PLOTS, REPORT, TABLE, EvaluationFolder
from tam_backend.evaluation.layouts import Layout, SequencePaths, find_sequences
from tam_backend.evaluation.pictures import write_overlay
from tam_backend.evaluation.protocols import PROTOCOLS
from tam_backend.evaluation.protocols.base import Json, Options, parse_init
from tam_backend.evaluation.published import Published, find_split, published_on
from tam_backend.evaluation.report import make_report, markdown
from tam_backend.evaluation.runner import MASKS, Job, run_sequences
from tam_backend.tracking.filestore import write_atomically

#: Sequences of which an overlay video is written.
WORST = 3

_DESCRIPTION = """\
Measure an engine on videos whose true masks are known. The data set is laid out as DAVIS, as YouTube-VOS, MOSE and
LVOS are, or as a plain folder with frames/ and masks/ (or many folders with these in them).
"""

_EPILOG = """\
examples:
  J&F on DAVIS 2017 val, as papers report it:
      tam evaluate DAVIS --imset 2017/val.txt --out results
  The same, where the first mask comes from three clicks and not from the data set:
      tam evaluate DAVIS --imset 2017/val.txt --init clicks:3 --out results-clicks
  DAVIS 2016, where all objects of a sequence are one:
      tam evaluate DAVIS --imset 480p/val.txt --merge --out results-2016
  How many clicks does it take on my own videos?
      tam evaluate my-videos --protocol noc --out noc
      tam evaluate my-videos --protocol offline --out offline

what is written to DIR:
  report.md, report.json    the figures: of each sequence, and of all; what depends on time is under "timing"
  masks/SEQUENCE/           the final masks: indexed PNG with the DAVIS palette
  plots/                    J&F per frame of each sequence, best and worst (with requirements-evaluate.txt)
  overlays/                 videos of the three worst sequences: ours on the left, the truth on the right
  .tam/                     finished work. The same command goes on where it was stopped.
"""


def add_parser(subparsers: Any) -> None:
    protocols = "\n".join(f"  {name:18}{module.SUMMARY}" for name, module in PROTOCOLS.items())
    parser = subparsers.add_parser(
        "evaluate",
        help="measure an engine on videos with known masks",
        description=_DESCRIPTION,
        epilog=f"protocols:\n{protocols}\n\n{_EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", type=Path, metavar="DATASET", help="folder of the data set")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to; it is made")
    parser.add_argument("--engine", default="embedded", help="what is measured (default: embedded)")
    parser.add_argument(
        "--protocol", choices=sorted(PROTOCOLS), default="semi-supervised", help="default: semi-supervised; see below"
    )
    parser.add_argument(
        "--init", metavar="MODE", help="how objects are given in semi-supervised: first-mask (default), box, or "
        "clicks:N, the clicks of a robot (the other protocols start with clicks)",
    )  # fmt: skip
    parser.add_argument(
        "--choose", choices=["worst", "suggested"], default="worst",
        help="which frame offline corrects next: the one of lowest IoU (default), or the one that the product suggests",
    )  # fmt: skip
    parser.add_argument("--merge", action="store_true", help="all objects of a sequence are one, as in DAVIS 2016")
    parser.add_argument("--imset", type=Path, metavar="FILE", help="list of the sequences to take (default: all)")
    parser.add_argument("--limit", type=_positive, metavar="N", help="take the first N sequences only")
    parser.add_argument("--jobs", type=_positive, default=1, metavar="N", help="processes at work (default: 1)")
    parser.add_argument("--force", action="store_true", help="replace results of other conditions in DIR")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """Evaluate and report. Raises TamError, also if not one sequence could be evaluated."""
    options = _options(args)
    layout = find_sequences(args.dataset, args.imset, args.limit)
    if args.out.resolve() == args.dataset.resolve() or args.dataset.resolve() in args.out.resolve().parents:
        raise BadInput(f"--out {args.out} is inside the data set; choose another folder")
    engine = load_engine(args.engine)
    conditions = {
        "engine": engine.id,
        "protocol": args.protocol,
        "init": options.init_text if args.protocol == "semi-supervised" else "clicks",
        "options": options.as_json(),
        "dataset": str(args.dataset.resolve()),
        "version": __version__,
    }
    with EvaluationFolder(args.out, conditions, force=args.force) as out:
        job = Job(args.engine, args.protocol, options, out.path)
        results: dict[str, Json] = {}
        skipped: dict[str, str] = {}
        with _Progress(layout, quiet=args.quiet) as bar:
            for outcome in run_sequences(job, list(layout.sequences), engine, args.jobs, bar.advance):
                if outcome.result is None:
                    skipped[outcome.name] = outcome.skipped
                    bar.say(f"tam evaluate: skipped {outcome.skipped}")
                    bar.advance(outcome.name, 1.0)
                else:
                    results[outcome.name] = outcome.result
        if not results:
            raise TamError(f"none of the {len(layout.sequences)} sequences of {args.dataset} could be evaluated")
        ordered = [results[s.name] for s in layout.sequences if s.name in results]
        dataset = {"name": layout.root.resolve().name, "layout": layout.kind, "split": layout.split}
        report = make_report(conditions, dataset, ordered, skipped)
        text = markdown(report, _published(report))
        write_atomically(out.path / REPORT, json.dumps(report, indent=1).encode())
        write_atomically(out.path / TABLE, text.encode())
        print(text, end="")
        _illustrate(report, layout, out.path, options)
    return 0


def _options(args: argparse.Namespace) -> Options:
    if args.init is not None and args.protocol != "semi-supervised":
        raise BadInput(f"--init belongs to the protocol semi-supervised; {args.protocol} starts with clicks")
    if args.choose != "worst" and args.protocol != "offline":
        raise BadInput(f"--choose belongs to the protocol offline, not to {args.protocol}")
    init, clicks = parse_init(args.init or "first-mask")
    return Options(init=init, init_clicks=clicks, choose=args.choose, merge=args.merge)


def _published(report: Json) -> list[Published]:
    """Figures of others to stand beside ours: only on exactly their split, and under their protocol."""
    if report["conditions"]["protocol"] != "semi-supervised" or report["skipped"]:
        return []
    one_object = all(list(s["objects"]) == ["1"] for s in report["sequences"])
    split = find_split((s["sequence"] for s in report["sequences"]), one_object=one_object)
    return published_on(split) if split is not None else []


def _illustrate(report: Json, layout: Layout, out: Path, options: Options) -> None:
    """Plots and overlays. What fails here costs a picture, not the report."""
    try:
        draw_plots(report, out / PLOTS)
    except NoPlots as e:
        print(f"tam evaluate: note: {e}", file=sys.stderr)
    if report["conditions"]["protocol"] == "noc":  # single frames: there is nothing to play
        return
    paths: dict[str, SequencePaths] = {s.name: s for s in layout.sequences}
    worst = sorted(report["sequences"], key=lambda s: (score_of(s), s["sequence"]))[:WORST]
    (out / OVERLAYS).mkdir(exist_ok=True)
    wanted = {f"{s['sequence']}.mp4" for s in worst}
    for old in (out / OVERLAYS).glob("*.mp4"):
        if old.name not in wanted:
            old.unlink()
    for sequence in worst:
        name = sequence["sequence"]
        try:
            write_overlay(
                out / OVERLAYS / f"{name}.mp4", load_sequence(paths[name], merge=options.merge), out / MASKS / name
            )
        except MediaError as e:
            print(f"tam evaluate: note: no overlay of {name}: {e}", file=sys.stderr)


class _Progress:
    """A bar on stderr with the time left, counted in frames; invisible if that is no terminal."""

    def __init__(self, layout: Layout, *, quiet: bool) -> None:
        self._frames = {
            s.name: sum(1 for _ in s.frames.iterdir()) if s.frames.is_dir() else 1 for s in layout.sequences
        }
        self._shares = dict.fromkeys(self._frames, 0.0)
        self._bar = tqdm(
            total=sum(self._frames.values()), desc="evaluating", unit="frame", dynamic_ncols=True, smoothing=0.1,
            disable=quiet or not sys.stderr.isatty(),
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}",
        )  # fmt: skip

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.close()

    def advance(self, name: str, share: float) -> None:
        gained = max(0.0, min(1.0, share) - self._shares[name])
        self._shares[name] += gained
        self._bar.set_postfix_str(name, refresh=False)
        self._bar.update(gained * self._frames[name])

    def say(self, text: str) -> None:
        tqdm.write(text, file=sys.stderr)


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)
