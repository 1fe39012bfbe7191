"""What a server runs on, for people: versions and devices."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from typing import Any

from tam_backend.engines import Engine

_PACKAGES = ("av", "numpy", "opencv-python-headless", "torch", "ray")


def describe_machine(engine: Engine) -> dict[str, Any]:
    """Plain data: ``engine_version``, ``engine_detail``, ``versions`` (name -> version), ``devices`` (words).

    Nothing is imported for it: PyTorch knows of GPUs only where an engine has loaded it.
    """
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    devices = [f"{os.cpu_count()} CPU cores"]
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(i)
            devices.append(f"cuda:{i}: {facts.name}, {facts.total_memory / 1e9:.0f} GB")
    return {
        "engine_version": engine.version, "engine_detail": engine.detail, "versions": versions, "devices": devices,
    }  # fmt: skip
