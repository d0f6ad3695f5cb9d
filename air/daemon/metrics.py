"""Counters as Prometheus reads them. (shell)

Reads the process's own accounting when it is asked. Imported at the first scrape: the library
takes 60 ms that a start need not wait for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from air import __version__
from air.base.metrics import Counters, Sample

__all__ = ["CONTENT_TYPE", "exposition"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Samples(Collector):
    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def collect(self) -> Iterator[Metric]:
        build = GaugeMetricFamily(
            "air_build_info", "Always 1; the label tells the version.", labels=["version"]
        )
        build.add_metric([__version__], 1)
        yield build
        yield from _families(self._counters.samples())


def _families(samples: Iterable[Sample]) -> Iterator[Metric]:
    grouped: dict[str, list[Sample]] = {}
    for sample in samples:
        grouped.setdefault(sample.name, []).append(sample)
    for name, group in grouped.items():
        # A sample without the label is one with an empty label, as Prometheus sees it.
        labels = list(dict.fromkeys(label for sample in group for label, _ in sample.labels))
        kind = CounterMetricFamily if group[0].kind == "counter" else GaugeMetricFamily
        family = kind(name if name.startswith("air_") else f"air_{name}", group[0].help, labels=labels)
        for sample in group:
            values = dict(sample.labels)
            family.add_metric([values.get(label, "") for label in labels], sample.value)
        yield family


def exposition(counters: Counters) -> bytes:
    """All counters and the process's own figures in the Prometheus text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Samples(counters))
    ProcessCollector(registry=registry)
    return generate_latest(registry)
