"""What a scraper such as Prometheus reads of a running job: what the driver sees of the whole OUTPUT."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.run.watch import Progress
from schemas.records import Counts


class PortError(OSError):
    """The port of `--metrics-port` cannot be listened at. Commands exit 2 on it."""

    exit_code = 2


@contextmanager
def served(port: int | None) -> Iterator[Callable[[Progress], None]]:
    """Serve what the yielded function was told last at `port`, on all interfaces; with None, nothing.

    Raises PortError, and ImportError where the client's package is missing.
    """
    if port is None:
        yield lambda progress: None
        return
    from prometheus_client import CollectorRegistry, start_http_server

    told = _Told()
    registry = CollectorRegistry()
    registry.register(told)
    try:
        server, thread = start_http_server(port, registry=registry)
    except OSError as error:
        raise PortError(f"--metrics-port {port}: {error.strerror}; choose another") from error
    try:
        yield told.tell
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Told:
    """A collector of what was told last: totals of OUTPUT, whichever driver did the work."""

    def __init__(self) -> None:
        self._last: Progress | None = None

    def tell(self, progress: Progress) -> None:
        """Take note of how far the job is."""
        self._last = progress

    def collect(self) -> Iterator[object]:
        """Yield the metrics; none before the job has begun."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        last = self._last
        if last is None:
            return
        for name, counts in (("images", last.totals.images), ("regions", last.totals.regions)):
            family = CounterMetricFamily(f"fineclip_{name}", f"{name} in finished shards, by status", labels=["status"])
            for status, number in _by_status(counts):
                family.add_metric([status], number)
            yield family
        yield CounterMetricFamily("fineclip_units_done", "units that are done", value=last.num_units_done)
        yield GaugeMetricFamily("fineclip_units", "units of the plan", value=last.plan.num_units)
        yield GaugeMetricFamily("fineclip_images_in_hand", "images of unfinished shards", value=last.num_images_in_hand)
        yield GaugeMetricFamily("fineclip_workers", "workers that hold a unit", value=last.num_workers)
        yield GaugeMetricFamily("fineclip_drivers", "drivers that these belong to", value=last.num_drivers)


def _by_status(counts: Counts) -> tuple[tuple[str, int], ...]:
    return ("ok", counts.ok), ("filtered", counts.num_filtered), ("dead", counts.num_dead)
