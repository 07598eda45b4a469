"""What is measured, and the dashboard that shows it."""

import json
import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.support.serving import MODEL, Running

DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana.json"
PLAIN = {"route", "method", "status", "finish", "outcome", "le", "loop"}


def samples(text: str) -> dict[str, float]:
    """Sum of each sample over its labels."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0) + sample.value
    return found


def test_the_dashboard_shows_every_metric_and_no_other(server: Running) -> None:
    with server.http() as http:
        http.post("/v1/completions", json={"model": MODEL, "prompt": "x", "max_tokens": 3})
        measured = set(samples(http.get("/metrics").text))
    shown = set(re.findall(r"soupmix_[a-z_]+", " ".join(_expressions())))
    assert shown <= measured
    stems = {re.sub(r"_(bucket|sum|count|created|total)$", "", each) for each in measured if "soupmix" in each}
    assert {re.sub(r"_(bucket|total)$", "", each) for each in shown} == stems


def _expressions() -> list[str]:
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_counters_count(server: Running) -> None:
    ask = {"model": MODEL, "prompt": "count me", "max_tokens": 5, "temperature": 0, "soup": {"weights": {"loud": 0.9}}}
    with server.http() as http:
        before = samples(http.get("/metrics").text)
        (usage,) = [http.post("/v1/completions", json=ask).json()["usage"]]
        after = samples(http.get("/metrics").text)
    grown = {name: after[name] - before.get(name, 0) for name in after}
    assert grown["soupmix_grants_total"] == grown["soupmix_answers_total"] == 1
    assert grown["soupmix_generated_tokens_total"] == usage["completion_tokens"]
    computed = grown["soupmix_prompt_tokens_total"] + grown["soupmix_cached_prompt_tokens_total"]
    assert computed == usage["prompt_tokens"]
    assert grown["soupmix_http_requests_total"] == 2  # the completion, and the first look at the metrics


def test_no_label_says_who(server: Running) -> None:
    with server.http() as http:
        made = http.post("/v1/soups", json={"weights": {"calm": 1}, "name": "Ann Other"}).json()
        http.post("/v1/completions", json={"model": made["model"], "prompt": "x", "max_tokens": 1, "user": "ann"})
        http.get("/whatever/ann")
        http.request("ANN", "/v1/models")
        text = http.get("/metrics").text
    for secret in (made["id"], "ann", "Ann", "acme"):
        assert secret not in text
    names = {
        label for family in text_string_to_metric_families(text) for each in family.samples for label in each.labels
    }
    assert names <= PLAIN


def test_routes_are_counted_by_their_pattern(server: Running) -> None:
    with server.http() as http:
        http.get("/v1/soups/nothing")
        text = http.get("/metrics").text
    assert 'soupmix_http_requests_total{method="GET",route="/v1/soups/{id}",status="404"}' in text
