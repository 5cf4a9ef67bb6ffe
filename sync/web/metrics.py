"""Prometheus metrics, read from the ledger, so that they are right however many processes share it."""

from collections.abc import Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sync.ledger import Ledger
from sync.ledger.writer import Writer

Sample = tuple[tuple[str, ...], float]


class LedgerCollector(Collector):
    """Events, deliveries and refusals. `refresh` reads; `collect` shows what was read last."""

    def __init__(self, rejected: Mapping[str, int]) -> None:
        self._rejected = rejected
        self._events: list[Sample] = []
        self._deliveries: list[Sample] = []
        self._paused: list[Sample] = []

    async def refresh(self, writer: Writer) -> None:
        """Read the ledger anew. Raises LedgerError."""
        self._events, self._deliveries, self._paused = await writer.do(_read)

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand: the registry must not ask the ledger when it is built."""
        return []

    def collect(self) -> Iterable[Metric]:
        """The families with their samples."""
        yield _filled(CounterMetricFamily("crm_sync_events", "Events stored", labels=["state"]), self._events)
        yield _filled(
            GaugeMetricFamily("crm_sync_deliveries", "Deliveries", labels=["destination", "kind", "state"]),
            self._deliveries,
        )
        yield _filled(GaugeMetricFamily("crm_sync_paused", "1: paused", labels=["destination"]), self._paused)
        rejected: list[Sample] = [((name.removeprefix("rejected_"),), float(n)) for name, n in self._rejected.items()]
        yield _filled(
            CounterMetricFamily(
                "crm_sync_rejected", "Requests not stored, by status, by this process", labels=["status"]
            ),
            rejected,
        )


def _filled(family: CounterMetricFamily | GaugeMetricFamily, samples: list[Sample]) -> Metric:
    for labels, value in samples:
        family.add_metric(labels, value)
    return family


def _read(ledger: Ledger) -> tuple[list[Sample], list[Sample], list[Sample]]:
    rows = ledger.engine.rows
    return (
        [((r["state"],), float(r["n"])) for r in rows("event_states")],
        [((r["destination"], r["kind"], r["state"]), float(r["n"])) for r in rows("delivery_states")],
        [((r["name"],), float(r["paused_until"] is not None)) for r in rows("load_destinations")],
    )
