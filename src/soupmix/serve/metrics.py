"""What Prometheus reads. No label says who: neither tenants nor people nor profiles."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from soupmix.backends import Backend
from soupmix.serve.policies import Policies

__all__ = ["Metrics"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_GAUGES = {
    "running": ("soupmix_answers_running", "Answers that are being made"),
    "waiting": ("soupmix_answers_waiting", "Answers in the queue"),
    "kv_used": ("soupmix_kv_cache_used_ratio", "Share of the KV cache that running answers fill"),
}
_COUNTERS = {
    "steps": ("soupmix_steps", "Steps of the running batch"),
    "seconds": ("soupmix_step_seconds", "Seconds in which something was computed"),
    "prompt_tokens": ("soupmix_prompt_tokens", "Prompt tokens computed"),
    "cached_tokens": ("soupmix_cached_prompt_tokens", "Prompt tokens that were not computed again"),
    "generated_tokens": ("soupmix_generated_tokens", "Tokens of answers computed"),
}


class Metrics:
    """The metrics of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("http_requests", "HTTP requests", "route", "method", "status")
        self.seconds = self._histogram(
            "http_request_seconds", "Seconds from a request to the end of its answer", "route"
        )
        self.first_token = self._histogram("time_to_first_token_seconds", "Seconds from the queue to the first text")
        self.between_tokens = self._histogram("inter_token_seconds", "Seconds between two deltas of an answer")
        self.answers = self._counter("answers", "Answers by how they ended", "finish")
        self.grants = self._counter("grants", "Grants by outcome: full, clamped, refused", "outcome")
        self.slow_readers = self._counter("slow_readers", "Requests given up because nobody read their answers")
        self.reloads = self._counter("policy_reloads", "Policy reloads by outcome: loaded, refused", "outcome")
        for counter, values in (
            (self.answers, ("stop", "length", "cancelled", "error")),
            (self.grants, ("full", "clamped", "refused")),
            (self.reloads, ("loaded", "refused")),
        ):
            for value in values:  # so that what never happened is 0, not absent
                counter.labels(value)

    def watch(self, backend: Backend, policies: Policies) -> None:
        """Read the running batch and the policy whenever somebody asks."""
        self.registry.register(_Reader(lambda: _engine_metrics(backend)))
        self.registry.register(_Reader(lambda: _policy_metrics(policies)))

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"soupmix_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(f"soupmix_{name}", text, labels, buckets=_SECONDS, registry=self.registry)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _Reader(Collector):
    """A collector that computes its metrics when it is asked."""

    def __init__(self, read: Callable[[], Iterator[Metric]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        return self._read()


def _engine_metrics(backend: Backend) -> Iterator[Metric]:
    state = backend.state()
    yield GaugeMetricFamily("soupmix_engine_up", "Whether answers can be made", value=float(state.alive))
    yield InfoMetricFamily("soupmix_loop", "How answers are computed beside each other", value={"loop": state.loop})
    yield GaugeMetricFamily("soupmix_rows", "Answers that can be made at once", value=backend.limits.rows)
    for attribute, (name, text) in _GAUGES.items():
        yield GaugeMetricFamily(name, text, value=getattr(state, attribute))
    for attribute, (name, text) in _COUNTERS.items():
        yield CounterMetricFamily(name, text, value=getattr(state, attribute))


def _policy_metrics(policies: Policies) -> Iterator[Metric]:
    held = policies.held
    loaded, expires = held.loaded.timestamp(), held.expires.timestamp() if held.expires else float("inf")
    yield GaugeMetricFamily(
        "soupmix_policy_loaded_timestamp_seconds", "When the policy in force was read", value=loaded
    )
    yield GaugeMetricFamily(
        "soupmix_policy_expires_timestamp_seconds", "Until when its signed sets may be believed", value=expires
    )
