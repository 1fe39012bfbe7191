"""The official code of XMem and Segment Anything from a checkout that the user has, for comparison. Nothing of it is
in this repository, and nothing is downloaded."""

from __future__ import annotations

import importlib
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

T = TypeVar("T")


@dataclass
class Turns:
    """Two ways to compute the same, in turns. Seconds by the clock, and of all threads together: on a busy machine the
    clock says little."""

    device: str = "cpu"
    clock: dict[str, list[float]] = field(default_factory=lambda: {"ours": [], "official": []})
    cpu: dict[str, list[float]] = field(default_factory=lambda: {"ours": [], "official": []})
    turn: int = 0

    def run(self, ours: Callable[[], T], official: Callable[[], T]) -> tuple[T, T]:
        """Both results. Who comes first changes every time."""
        ways = [("ours", ours), ("official", official)]
        results = {name: self._timed(name, way) for name, way in (ways if self.turn % 2 else reversed(ways))}
        self.turn += 1
        return results["ours"], results["official"]

    def _timed(self, name: str, way: Callable[[], T]) -> T:
        start, start_cpu = time.perf_counter(), time.process_time()
        result = way()
        if self.device != "cpu":
            torch.cuda.synchronize()
        self.clock[name].append(time.perf_counter() - start)
        self.cpu[name].append(time.process_time() - start_cpu)
        return result

    def tell(self, what: str) -> None:
        print(f"{what}, {len(self.clock['ours'])} times", flush=True)
        for name, times in (("clock", self.clock), ("processor time of all threads", self.cpu)):
            theirs, ours = (statistics.median(times[way]) * 1e3 for way in ("official", "ours"))
            print(
                f"  {name}: official {theirs:.0f} ms, ours {ours:.0f} ms (medians), ratio {theirs / ours:.2f}",
                flush=True,
            )


def load_xmem(checkout: Path, state: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> tuple[Any, type]:
    """The official network with these weights, and the class of its inference core."""
    if not (checkout / "inference" / "inference_core.py").is_file():
        raise SystemExit(f"{checkout} is no checkout of XMem: it has no inference/inference_core.py")
    sys.path.insert(0, str(checkout))
    resnet = importlib.import_module("model.resnet")
    # its constructors download ImageNet weights, which the state dict replaces
    resnet.model_zoo.load_url = lambda *_, **__: {}
    resnet.load_weights_add_extra_dim = lambda *_, **__: None
    network = importlib.import_module("model.network").XMem(dict(config)).eval()
    network.load_state_dict(dict(state))
    return network, importlib.import_module("inference.inference_core").InferenceCore


def load_sam(checkout: Path) -> Any:
    """The official package ``segment_anything`` from the checkout, not an installed one."""
    if not (checkout / "segment_anything" / "build_sam.py").is_file():
        raise SystemExit(f"{checkout} is no checkout of segment-anything: it has no segment_anything/build_sam.py")
    if "segment_anything" in sys.modules:
        raise RuntimeError("segment_anything was imported before the checkout's")
    sys.path.insert(0, str(checkout))
    try:
        return importlib.import_module("segment_anything")
    finally:
        for name in [n for n in sys.modules if n.split(".")[0] == "segment_anything"]:
            sys.modules["official_" + name] = sys.modules.pop(name)
        sys.path.remove(str(checkout))
