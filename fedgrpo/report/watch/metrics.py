"""Figures in the text that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


@dataclass(frozen=True)
class Kind:
    """A figure that is told.

    Attributes
    ----------
    name:
        For Prometheus.
    about:
        What it is, with its unit.
    labels:
        By which there are several.
    """

    name: str
    about: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sample:
    """A value of one of the kinds."""

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


def exposition(kinds: Iterable[Kind], samples: Iterable[Sample]) -> bytes:
    """Write samples, by their kinds. A kind of which there is none is left out.

    Raises
    ------
    KeyError
        If a sample is of no kind, or lacks a label.
    """
    families = {
        kind.name: GaugeMetricFamily(kind.name, kind.about, labels=kind.labels) for kind in kinds
    }
    names = {kind.name: kind.labels for kind in kinds}
    for sample in samples:
        values = [sample.labels[label] for label in names[sample.name]]
        families[sample.name].add_metric(values, float(sample.value))
    registry = CollectorRegistry()
    registry.register(_Told([family for family in families.values() if family.samples]))
    return generate_latest(registry)


class _Told(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families
