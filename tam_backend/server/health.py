"""Whether the server on this machine answers, for the health check of a container.

``python -m tam_backend.server.health [PORT]`` ends with 0 if it does. It reads the environment as the server does, so
it knows the secret path and the password.
"""

from __future__ import annotations

import base64
import os
import sys
import urllib.request

from tam_backend.errors import BadInput
from tam_backend.settings import Settings

#: Label Studio itself gives /health no longer.
TIMEOUT_SECONDS = 1.0


def check(settings: Settings, port: int) -> None:
    """Ask for /health as Label Studio does. Raises OSError if the answer is not 200 within a second."""
    prefix = f"/{settings.secret_path}" if settings.secret_path else ""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{prefix}/health")
    if settings.basic_auth_user:
        credentials = f"{settings.basic_auth_user}:{settings.basic_auth_password}".encode()
        request.add_header("Authorization", "Basic " + base64.b64encode(credentials).decode())
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never by a proxy of the environment
    opener.open(request, timeout=TIMEOUT_SECONDS).close()


def main(arguments: list[str]) -> int:
    port = arguments[0] if arguments else "9090"
    try:
        check(Settings.from_env(os.environ), int(port))
    except (OSError, ValueError, BadInput) as e:
        print(f"not healthy: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
