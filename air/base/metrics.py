"""Counters as plain integers; a root prints them. (core)"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

__all__ = ["Counters", "Sample"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One number as an operator reads it."""

    name: str
    help: str
    kind: str
    """``counter`` or ``gauge``."""
    value: float
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Counters:
    """The numbers of one part of the program, by name and one optional label.

    Adding is a dictionary look-up, so a hot loop keeps its own integers and adds them once per batch.
    """

    values: dict[tuple[str, str], float] = field(default_factory=dict)
    gauges: dict[str, tuple[str, Callable[[], float]]] = field(default_factory=dict)
    helps: dict[str, tuple[str, str]] = field(default_factory=dict)
    """name -> (help, name of the label or "")."""
    labels_max: int = 256
    """Distinct label values a name may have; later ones are counted under ``other``."""

    def describe(self, name: str, help: str, label: str = "") -> None:
        """Declare a counter; without a label it is shown as 0 until something is counted."""
        self.helps[name] = (help, label)
        if not label:
            self.values.setdefault((name, ""), 0)

    def add(self, name: str, amount: float = 1, label: str = "") -> None:
        key = (name, label)
        if key not in self.values and label and len(self.values) >= self.labels_max:
            key = (name, "other")
        self.values[key] = self.values.get(key, 0) + amount

    def gauge(self, name: str, help: str, read: Callable[[], float]) -> None:
        """Declare a number that is read when somebody looks."""
        self.gauges[name] = (help, read)

    def get(self, name: str, label: str = "") -> float:
        return self.values.get((name, label), 0)

    def samples(self) -> Iterator[Sample]:
        for (name, label), value in sorted(self.values.items()):
            help, label_name = self.helps.get(name, (name, "reason"))
            labels = ((label_name or "reason", label),) if label else ()
            yield Sample(name, help, "counter", value, labels)
        for name, (help, read) in sorted(self.gauges.items()):
            yield Sample(name, help, "gauge", read())
