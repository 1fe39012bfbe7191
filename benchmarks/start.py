"""From the command to the first answer of the backend, with the embedded engine.

    python benchmarks/start.py [--repeats 3] [--port 19190]

Seconds by the clock, and of processor time, which other programs change less.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--port", type=int, default=19190)
    args = parser.parse_args()
    for _ in range(args.repeats):
        with tempfile.TemporaryDirectory() as folder:
            environment = os.environ | {"TAM_ENGINE": "embedded", "TAM_DATA_DIR": folder, "PYTHONPATH": str(ROOT)}
            command = [sys.executable, "-m", "tam_backend.cli", "serve", "--port", str(args.port)]
            start = time.perf_counter()
            server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while True:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{args.port}/health", timeout=60):
                        break
                except (urllib.error.URLError, ConnectionError):
                    time.sleep(0.02)
            took = time.perf_counter() - start
            fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
            cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            print(f"first answer after {took:.2f} s; processor time {cpu:.2f} s", flush=True)
            server.send_signal(signal.SIGTERM)
            server.wait()


if __name__ == "__main__":
    main()
