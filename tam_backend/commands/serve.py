"""``tam serve``: the backend that Label Studio connects to."""

from __future__ import annotations

import argparse
import ipaddress
import logging
import os
import signal
import socket
import sys
import threading
import time
from typing import Any

from tam_backend.errors import TamError
from tam_backend.settings import Settings

log = logging.getLogger(__name__)

#: Seconds in which clicks under way are answered, and background work is parked, once the server is told to stop.
ANSWERED_WITHIN, PARKED_WITHIN = 5.0, 10.0


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
    from tam_backend.server.app import THREADS, create_app
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

    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    service = app.extensions["tam"]
    print(f"Track anything is ready on http://{args.host}:{args.port} (engine: {service.engine.name})")
    sys.stdout.flush()
    # In a thread of its own: it must go on until the last answer is out.
    threading.Thread(target=server.run, name="serving", daemon=True).start()
    told.wait()
    log.info("stopping: what is under way is answered with what is finished, the rest goes on at the next start")
    if service.drain(ANSWERED_WITHIN):
        time.sleep(0.2)  # the answers are on their way
    service.close(PARKED_WITHIN)
    # Requests that still compute are given up: nothing of theirs is half-written, and threads do not end by themselves.
    logging.shutdown()
    os._exit(0)


def _local(host: str) -> bool:
    """Whether only this machine reaches an address to listen on."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
