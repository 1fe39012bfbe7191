"""``tam serve``: the backend that Label Studio connects to."""

from __future__ import annotations

import argparse
import ipaddress
import logging
import os
import signal
import socket
import sys
from types import FrameType
from typing import Any, NoReturn

from tam_backend.errors import TamError
from tam_backend.settings import Settings

log = logging.getLogger(__name__)

#: Requests served at once. Most of them wait: for frames of the compute lock, or for a video.
THREADS = 32


def add_parser(subparsers: Any) -> None:
    options = [f"  {name} (default: {default or 'empty'})\n      {text}" for name, default, text in Settings.describe()]
    parser = subparsers.add_parser(
        "serve",
        help="start the backend for Label Studio",
        description="Start the backend. In Label Studio: project > Settings > Model > Connect Model, with the address\n"
        "that is printed and 'Interactive preannotations' on.",
        epilog="Options from the environment:\n\n" + "\n".join(options),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)")
    parser.add_argument("--port", type=int, default=9090, help="port to listen on (default: 9090)")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM. Raises TamError when the server cannot be started."""
    settings = Settings.from_env(os.environ)
    from waitress.server import create_server

    from model import TrackAnything
    from tam_backend.server.app import create_app
    from tam_backend.server.logs import start_logging

    start_logging(settings)

    app = create_app(settings, TrackAnything)
    try:
        server = create_server(
            app,
            host=args.host,
            port=args.port,
            threads=THREADS,
            ident="tam",
            max_request_body_size=settings.max_request_mb * 1_000_000,  # before the application sees anything of it
        )
    except (OSError, OverflowError, socket.gaierror) as e:
        raise TamError(f"cannot listen on {args.host}:{args.port}: {e}. Choose another with --host and --port") from e

    if not _local(args.host) and not settings.secret_path and not settings.basic_auth_user:
        log.warning(
            "whoever reaches %s:%s can use this server: set TAM_SECRET_PATH, or TAM_BASIC_AUTH_USER and "
            "TAM_BASIC_AUTH_PASSWORD, or both (docs/deploy.md)", args.host, args.port,
        )  # fmt: skip

    def stop(signum: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, stop)
    try:
        print(
            f"Track anything is ready on http://{args.host}:{args.port} (engine: {app.extensions['tam'].engine.name})"
        )
        sys.stdout.flush()
        server.run()
    except (KeyboardInterrupt, SystemExit):
        pass
    finally:
        server.close()
        app.extensions["tam"].close()
    # Requests that still compute are given up: nothing of theirs is half-written, and threads do not end by themselves.
    logging.shutdown()
    os._exit(0)


def _local(host: str) -> bool:
    """Whether only this machine reaches an address to listen on."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
