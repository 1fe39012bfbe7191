"""The commands of scripts/dev.py."""

from __future__ import annotations

import argparse
import sys

from tamdev import DevError, checks, product, supply
from tamdev.environment import BACKEND, DEVELOPMENT, LABEL_STUDIO, WITH_TORCH

_COMMANDS = {
    "install": "install what is missing: .venv for the backend, .venv-ls for Label Studio",
    "run": "start Label Studio with a sample video and the backend, connected and ready to click",
    "serve": "start the backend alone (further arguments go to `tam serve`)",
    "demo": "track the sample video without Label Studio, and write an overlay video",
    "test": "all checks and tests, also those in a browser (further arguments go to pytest)",
    "test-fast": "all checks and tests but those in a browser and with Prometheus (further arguments go to pytest)",
    "crash-test": "kill the backend 200 times while annotators work on it, and compare (further arguments go to it)",
    "lint": "style and types alone",
    "fuzz": "10,000 random requests to a server on loopback (further arguments: --requests, --seed)",
    "lock": "pin what the image is made of, with hashes, in requirements.lock",
    "audit": "known vulnerabilities of what the image is made of, if a database answers",
    "sbom": "list what the image is made of as CycloneDX JSON (a further argument: the file)",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog="The Makefile has a target for each command.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in _COMMANDS.items():
        own_help = name not in ("serve", "crash-test", "fuzz")
        command = commands.add_parser(name, help=text, description=text, add_help=own_help)
        if name == "install":
            command.add_argument("--torch", action="store_true", help="also PyTorch and SAM, for the engine sam-xmem")
            command.add_argument("--dev", action="store_true", help="also the tools that the tests need")
    args, further = parser.parse_known_args()
    if further and args.command not in ("serve", "test", "test-fast", "crash-test", "fuzz", "sbom"):
        parser.error(f"{args.command} takes no {' '.join(further)}")
    try:
        return _start(args, further)
    except DevError as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def _start(args: argparse.Namespace, further: list[str]) -> int:
    match args.command:
        case "install":
            (DEVELOPMENT if args.dev else WITH_TORCH if args.torch else BACKEND).install()
            LABEL_STUDIO.install()
            return 0
        case "run":
            return product.run()
        case "serve":
            return product.serve(further)
        case "demo":
            return product.demo()
        case "lint":
            return checks.lint()
        case "fuzz":
            return checks.fuzz(further)
        case "lock":
            return supply.lock()
        case "audit":
            return supply.audit()
        case "sbom":
            return supply.sbom(further)
        case "crash-test":
            return checks.crash_test(further)
        case "test-fast":
            return checks.test_fast(further)
        case _:
            return checks.test(further)
