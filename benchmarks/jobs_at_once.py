"""XMem on one video, and on two at once: frames per second of all, and how many threads there are.

    python benchmarks/jobs_at_once.py [--size 480x854] [--frames 10]

As in the server: one network, a thread for each job, PyTorch's own number of threads. Weights and video are made. One
job and two take turns. If jobs fought over the cores, two at once would get through fewer frames together than one.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from compare_xmem import video

from tam_backend.propagators.xmem import XMem, XMemCore
from tests.deterministic_weights import XMEM, fill


class Job:
    def __init__(self, network: XMem, height: int, width: int) -> None:
        self._core, self._video = XMemCore(network), video(height, width, 1)
        self._core.set_all_labels([1])
        self._core.step(*next(self._video))

    def run(self, frames: int) -> None:
        for _ in range(frames):
            self._core.step(next(self._video)[0])


def rate(jobs: list[Job], frames: int) -> tuple[float, float]:
    """Frames per second of all together, by the clock and by processor time."""
    threads = [threading.Thread(target=job.run, args=(frames,)) for job in jobs]
    start, start_cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done = frames * len(jobs)
    return done / (time.perf_counter() - start), done / (time.process_time() - start_cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="480x854", help="height x width")
    parser.add_argument("--frames", type=int, default=10)
    args = parser.parse_args()
    height, width = map(int, args.size.split("x"))
    network = XMem()
    fill(network, XMEM)
    first, second = Job(network, height, width), Job(network, height, width)
    rates: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    rate([first, second], 2)
    for _ in range(3):
        rates[1].append(rate([first], args.frames))
        rates[2].append(rate([first, second], args.frames // 2))
    for jobs, measured in rates.items():
        clock, cpu = (statistics.median(numbers) for numbers in zip(*measured, strict=True))
        print(f"{jobs} at once: {clock:.2f} frames a second; {cpu:.2f} a second of processor time (medians)")
    alive = sum(1 for _ in Path("/proc/self/task").iterdir())
    print(f"{alive} threads in the process; PyTorch may use {torch.get_num_threads()}")


if __name__ == "__main__":
    main()
