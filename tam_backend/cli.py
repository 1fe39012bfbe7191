"""The console script ``tam``. Each command is a module of ``tam_backend.commands`` with ``add_parser`` and ``run``."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from tam_backend import __version__
from tam_backend.errors import BadInput, TamError

#: Commands and what they are for. A command's module is imported when it is used: `track` never imports a web server.
COMMANDS = {
    "track": "track objects through a video: masks, an overlay video, predictions for Label Studio",
    "batch": "the same for many videos, also on several machines or GPUs",
    "export": "masks of a project or of tam track as a data set: COCO, DAVIS, YOLO and others",
    "render": "videos and sheets with the masks drawn in",
    "review": "a report about a project: what to fix next, where people disagree",
    "inpaint": "take tracked objects out of a video, and fill what was behind them",
    "serve": "start the backend for Label Studio",
    "project": "make a Label Studio project that is ready for annotators",
    "import": "bring videos into a Label Studio project: frames, clips, first masks",
    "storage": "see what the server keeps on disk, and drop what is not needed",
    "doctor": "see what is installed and whether it works",
    "evaluate": "measure an engine on videos with known masks: J&F, and how many clicks it takes",
    "report": "compare two runs of tam evaluate, with pictures of where they differ",
    "checkpoints": "list, download and verify the published weights of SAM, XMem and E2FGVI-HQ",
}

EXIT_OK, EXIT_FAILURE, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130

_EPILOG = """\
examples:
  tam track video.mp4 --click 0,320,240 --out masks --overlay
      Click the pixel x=320, y=240 of the first frame, and get the object's mask on every frame.
  tam serve
      Start the backend, to be connected in Label Studio: project > Settings > Model.

tam COMMAND --help has all the options of a command, with more examples.
Exit codes: 0 done, 1 failed, 2 something given cannot be used, 130 stopped by Ctrl-C.
"""


class _Parser(argparse.ArgumentParser):
    """Errors in one line, like all errors of this program."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_BAD_INPUT, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def _make_parser(command: str | None) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="tam",
        description="Track anything: clicks on one frame of a video become masks on every frame.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tam {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, title="commands")
    for name, summary in COMMANDS.items():
        if name == command:
            _module(name).add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=summary)
    return parser


def _module(command: str) -> ModuleType:
    return importlib.import_module(f"tam_backend.commands.{'import_videos' if command == 'import' else command}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 1 failed, 2 bad input, 130 stopped by Ctrl-C.

    Expected failures are one line on stderr. Options that argparse itself refuses end in SystemExit(2).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = next((a for a in arguments if a in COMMANDS), None)
    args = _make_parser(command).parse_args(arguments)
    try:
        return int(_module(args.command).run(args))
    except BadInput as e:
        code, message = EXIT_BAD_INPUT, f"error: {e}"
    except (TamError, OSError) as e:  # OSError: disk full, folder gone; nothing that this program can set right
        code, message = EXIT_FAILURE, f"error: {e}"
    except KeyboardInterrupt:
        code, message = EXIT_INTERRUPTED, "stopped"
    print(f"tam {args.command}: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
