"""The first check of what a request says about tasks and regions: what should be a word is one, a list a list.

Everything behind the door may then compare and look up these fields. What they mean is checked where it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tam_backend.errors import BadInput

#: Fields of a region that name something.
_NAMES = ("id", "type", "from_name", "to_name", "origin", "parentID")
_WORK = ("drafts", "annotations", "predictions")
#: A database of ours, and Label Studio's, keeps numbers of 64 bits.
_LARGEST = 2**63 - 1


def check_task(task: object, where: str) -> None:
    """Raise BadInput unless this is a task with data, and with nothing of a wrong kind in what people made."""
    if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
        raise BadInput(f"{where} must be an object with data")
    for name in ("id", "project"):
        check_number(task, name, where)
    for kind in _WORK:
        works = task.get(kind)
        if works is not None and not isinstance(works, list):
            raise BadInput(f"{where}.{kind} must be a list, not {type(works).__name__}")
        for i, work in enumerate(works or []):
            # A list of predictions may be numbers alone.
            if isinstance(work, dict):
                check_work(work, f"{where}.{kind}[{i}]")


def check_work(work: Mapping[str, Any], where: str) -> None:
    """Raise BadInput unless a draft, annotation or prediction holds a list of regions, or nothing."""
    check_number(work, "id", where)
    result = work.get("result")
    if result is not None:
        check_result(result, f"{where}.result")


def check_result(result: object, where: str) -> None:
    """Raise BadInput unless these are regions, whose names are words."""
    if not isinstance(result, list):
        raise BadInput(f"{where} must be a list, not {type(result).__name__}")
    for i, region in enumerate(result):
        if not isinstance(region, dict):
            raise BadInput(f"{where}[{i}] must be an object, not {type(region).__name__}")
        for name in _NAMES:
            if isinstance(region.get(name), list | dict):
                raise BadInput(f"{where}[{i}].{name} must be a text, not {type(region[name]).__name__}")


def check_number(thing: Mapping[str, Any], name: str, where: str) -> None:
    """Raise BadInput for a field that should be a whole number, or be missing, and is something else."""
    value = thing.get(name)
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST):
        return
    if isinstance(value, str) and len(value) < 100:
        return  # ours are numbers; a text is somebody else's name for it
    raise BadInput(f"{where}.{name} must be a whole number, not {value!r:.40}")
