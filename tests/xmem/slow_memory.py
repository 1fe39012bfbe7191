"""XMem's memory the slow and obvious way: every element is an object, every formula is written out, in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tam_backend.propagators.xmem import XMemConfig

Vector = npt.NDArray[np.float64]


@dataclass(eq=False)
class Element:
    kind: str  # "permanent", "long" or "work"
    frame: int
    key: Vector
    shrinkage: float
    selection: Vector
    values: dict[int, Vector]
    use: float = 0.0
    life: float = 1e-7
    serial: int = 0

    @property
    def usage(self) -> float:
        return self.use / self.life


def similarity(element: Element, key: Vector, selection: Vector) -> float:
    distance = sum(e * (a - b) ** 2 for e, a, b in zip(selection, element.key, key, strict=True))
    return -element.shrinkage * distance / math.sqrt(len(key))


def softmax(values: list[float]) -> list[float]:
    powers = [math.exp(v - max(values)) for v in values]
    return [p / sum(powers) for p in powers]


def mix(weights: list[float], items: list[Vector]) -> Vector:
    return np.sum([w * item for w, item in zip(weights, items, strict=True)], axis=0)


@dataclass
class SlowMemory:
    config: XMemConfig
    elements: list[Element] = field(default_factory=list)
    joined: dict[int, int] = field(default_factory=dict)  # label -> order in which it came
    first_work_frame: dict[int, int] = field(default_factory=dict)
    serial: int = 0

    def of(self, kind: str) -> list[Element]:
        return [e for e in self.elements if e.kind == kind]

    def read(self, keys: Vector, selections: Vector, labels: list[int]) -> Vector:
        oldest = min(self.joined.values())
        result: dict[int, list[Vector]] = {label: [] for label in labels}
        used: dict[int, float] = {}
        for key, selection in zip(keys, selections, strict=True):
            for label in labels:
                mine = [e for e in self.elements if label in e.values]
                mine.sort(key=lambda e: similarity(e, key, selection), reverse=True)
                best = mine[: self.config.top_k]
                weights = softmax([similarity(e, key, selection) for e in best])
                result[label].append(mix(weights, [e.values[label] for e in best]))
                if self.joined[label] == oldest and label == min(x for x, o in self.joined.items() if o == oldest):
                    for e, w in zip(best, weights, strict=True):
                        used[e.serial] = used.get(e.serial, 0.0) + w
        for e in self.elements:
            e.use += used.get(e.serial, 0.0)
            e.life += 1
        return np.array([result[label] for label in labels])

    def _new(
        self, kind: str, frame: int, key: Vector, shrinkage: float, selection: Vector, values: dict[int, Vector]
    ) -> None:
        self.serial += 1
        self.elements.append(Element(kind, frame, key, shrinkage, selection, values, serial=self.serial))

    def add(
        self, kind: str, frame: int, keys: Vector, shrinkages: Vector, selections: Vector, values: dict[int, Vector]
    ) -> None:
        order = 1 + max(self.joined.values(), default=0)
        for label in values:
            self.joined.setdefault(label, order)
            if kind == "work":
                self.first_work_frame.setdefault(label, frame)
        for i in range(len(keys)):
            here = {label: v[i] for label, v in values.items()}
            self._new(kind, frame, keys[i], float(shrinkages[i]), selections[i], here)
        if kind == "work":
            self._forget()

    def remove(self, label: int) -> None:
        for e in self.elements:
            e.values.pop(label, None)
        self.elements = [e for e in self.elements if e.values]
        del self.joined[label], self.first_work_frame[label]

    def _forget(self) -> None:
        c = self.config
        keep_for_good = set(self.first_work_frame.values())
        frames = sorted({e.frame for e in self.of("work")} - keep_for_good)
        if not c.enable_long_term:
            if len(frames) > c.max_work_frames - 1:
                self.elements = [e for e in self.elements if not (e.kind == "work" and e.frame == frames[0])]
            return
        if len(frames) < c.max_mid_term_frames - 1:
            return
        room = c.max_long_term_elements - c.num_prototypes
        excess = len(self.of("long")) - room
        if excess > 0:
            by_use = (lambda e: (e.usage, e.serial)) if c.enable_long_term_count_usage else (lambda e: e.serial)
            gone = sorted(self.of("long"), key=by_use)[:excess]
            self.elements = [e for e in self.elements if e not in gone]
        chosen_frames = frames[: len(frames) - (c.min_mid_term_frames - 1)]
        candidates = [e for e in self.of("work") if e.frame in chosen_frames]
        candidates.sort(key=lambda e: e.usage, reverse=True)
        for p in candidates[: c.num_prototypes]:
            weights = softmax([similarity(e, p.key, p.selection) for e in candidates])
            shrinkage = sum(w * e.shrinkage for w, e in zip(weights, candidates, strict=True))
            values = {}
            for label in p.values:
                mine = [e for e in candidates if label in e.values]
                weights = softmax([similarity(e, p.key, p.selection) for e in mine])
                values[label] = mix(weights, [e.values[label] for e in mine])
            self._new("long", -1, p.key, shrinkage, p.selection, values)
        self.elements = [e for e in self.elements if e not in candidates]
