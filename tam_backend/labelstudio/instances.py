"""What the labels of a project mean: each label is one object, of a class, with a number within that class.

Label Studio has no track ids, so several objects of a class are labels of their own: ``Person 1`` to ``Person 4`` are
tracks 1 to 4 of the class ``Person``. Any other label is a class with a single object.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tam_backend.errors import BadInput
from tam_backend.labelstudio.config import LabelConfig
from tam_backend.tracking.objects import MAX_ID

_NUMBERED = re.compile(r"(?P<category>.*\S) (?P<track>[1-9][0-9]{0,3})")


@dataclass(frozen=True, slots=True)
class Instance:
    """One label. category: its class. track: its number within the class, from 1. object_id: its place among all
    labels, from 1: the pixel value in indexed masks. category_id: the place of the class among all classes, from 1.

    Both ids follow from the project's configuration alone, so they are the same in every clip and every video.
    """

    label: str
    category: str
    track: int
    object_id: int
    category_id: int


class Vocabulary:
    """The labels of a project, in the order of its configuration. Iterating gives the instances."""

    def __init__(self, labels: Iterable[str]) -> None:
        """labels: each once. Raises BadInput if there are more than pixel values (255)."""
        names = list(dict.fromkeys(labels))
        if len(names) > MAX_ID:
            raise BadInput(f"the project has {len(names)} labels; indexed masks have room for {MAX_ID} objects")
        parts = dict(zip(names, _classes(names), strict=True))
        self.categories: tuple[str, ...] = tuple(dict.fromkeys(category for category, _ in parts.values()))
        self._instances = {
            label: Instance(label, category, track, place, self.categories.index(category) + 1)
            for place, (label, (category, track)) in enumerate(parts.items(), 1)
        }

    @classmethod
    def of_config(cls, config: LabelConfig) -> Vocabulary:
        """The labels of a configuration's mask tags."""
        return cls(label for control in config.masks for label in control.labels)

    def __iter__(self) -> Iterator[Instance]:
        return iter(self._instances.values())

    def __len__(self) -> int:
        return len(self._instances)

    def find(self, label: str) -> Instance | None:
        return self._instances.get(label)

    def of_category(self, category: str) -> tuple[Instance, ...]:
        """The instances of a class, by their number. Empty if there is no such class."""
        return tuple(i for i in self if i.category == category)


def labels_of(classes: Sequence[str], instances: Mapping[str, int]) -> tuple[str, ...]:
    """The labels for classes with so many objects each (default: one, whose label is the class itself).

    Raises BadInput for names that cannot be used, naming the option of ``tam project create``.
    """
    for name, count in Counter(classes).items():
        if count > 1:
            raise BadInput(f"--label {name!r} is given twice; for several objects of a class say --instances {name}=2")
    for name in instances:
        if name not in classes:
            raise BadInput(f"--instances {name}={instances[name]}: there is no --label {name!r}")
    for name in classes:
        if not name.strip() or name != name.strip() or any(c in name for c in ",<>\n"):
            raise BadInput(f"--label {name!r}: a label is a name without commas, angle brackets, or spaces around it")
    labels = [
        label
        for name in classes
        for label in ([f"{name} {i}" for i in range(1, instances[name] + 1)] if name in instances else [name])
    ]
    for label, count in Counter(labels).items():
        if count > 1:
            raise BadInput(f"--label {label!r} is also one of --instances; leave one of them out")
    if not labels:
        raise BadInput("say what is to be labelled: --label Person")
    Vocabulary(labels)
    return tuple(labels)


def _classes(labels: Sequence[str]) -> list[tuple[str, int]]:
    """(class, track) of each label: ``X 1`` to ``X n`` without gaps, and without an ``X``, are the tracks of X."""
    numbers: dict[str, set[int]] = {}
    for label in labels:
        if match := _NUMBERED.fullmatch(label):
            numbers.setdefault(match["category"], set()).add(int(match["track"]))
    found = []
    for label in labels:
        match = _NUMBERED.fullmatch(label)
        tracks = numbers[match["category"]] if match else set()
        if match and match["category"] not in labels and tracks == set(range(1, len(tracks) + 1)):
            found.append((match["category"], int(match["track"])))
        else:
            found.append((label, 1))
    return found
