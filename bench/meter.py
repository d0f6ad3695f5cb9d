"""What a relay costs, by the kernel's accounting: CPU and memory of a process and its children. (shell)"""

from __future__ import annotations

from dataclasses import dataclass

import psutil  # type: ignore[import-untyped]

__all__ = ["Meter", "Usage"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Sizes in bytes, time in seconds."""

    cpu_seconds: float
    rss_bytes: int
    pss_bytes: int


class Meter:
    """Reads one process tree. A tree that has gone reads as zeros."""

    def __init__(self, pid: int | None) -> None:
        try:
            self._root = psutil.Process(pid) if pid else None
        except psutil.NoSuchProcess:
            self._root = None

    def _tree(self) -> list[psutil.Process]:
        if self._root is None:
            return []
        try:
            return [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def cpu_seconds(self) -> float:
        """User and system time of the tree, children that have ended included. Resolution: 10 ms."""
        total = 0.0
        for process in self._tree():
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system + times.children_user + times.children_system
        return total

    @staticmethod
    def machine_seconds() -> float:
        """CPU time that all processes of this machine have used together, the kernel's own work included."""
        times = psutil.cpu_times()
        return float(times.user + times.nice + times.system + times.irq + times.softirq)

    def usage(self) -> Usage:
        """CPU and memory. Reading the proportional size walks all mappings: some milliseconds."""
        rss = pss = 0
        for process in self._tree():
            try:
                memory = process.memory_full_info()
            except psutil.NoSuchProcess:
                continue
            rss += memory.rss
            pss += memory.pss
        return Usage(self.cpu_seconds(), rss, pss)
