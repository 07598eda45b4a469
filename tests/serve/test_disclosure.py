"""What a tenant hears of a policy: what can concern it, and of other tenants nothing, wherever the server speaks of rules."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from tests.support.serving import MODEL, Running

Start = Callable[..., AbstractContextManager[Running]]
OTHERS = "".join(f", tenant-{number}" for number in range(60))
POLICY = f"""\
tier: organisation
issuer: Example
version: '1'
rules:
- {{id: for-all, rule: bounds, adapter: calm, at_most: '0.9', public_reason: of all}}
- {{id: beta-merger, rule: bounds, adapter: calm, at_most: '0.5', scope: {{tenant: [beta]}}, public_reason: beta is in trouble}}
- {{id: some, rule: bounds, adapter: loud, at_most: '0.4', scope: {{tenant: [beta, acme{OTHERS}]}}, public_reason: some}}
- {{id: never, rule: deny, adapter: plain, mode: refuse, scope: {{tenant: [acme, beta{OTHERS}], audience: [minor, adult]}}}}
- {{id: grown, rule: bounds, adapter: calm, at_most: '0.8', scope: {{audience: [adult]}}}}
- {{id: young, rule: bounds, adapter: calm, at_most: '0.7', scope: {{audience: [minor]}}}}
"""
SECRETS = ("beta", "trouble", "tenant-")


@pytest.fixture(scope="module")
def strict(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    path = tmp_path_factory.mktemp("policy") / "acme.yaml"
    path.write_text(POLICY)
    with start(policies=lambda: (path,)) as server:
        yield server


def clean(answer: httpx.Response) -> httpx.Response:
    assert not [each for each in SECRETS if each in answer.text], answer.text
    return answer


def test_a_tenant_hears_of_the_rules_that_can_apply_to_it(strict: Running) -> None:
    with strict.http() as acme, strict.http("beta") as beta, strict.http("school") as school:
        found = clean(acme.get("/v1/policy")).json()
        assert [each["rule"] for each in found["rules"]] == ["for-all", "some", "never", "grown", "young"]
        assert found["attributes"] == {"audience": ["adult", "minor"], "tenant": ["acme"]}
        assert [each["scope"] for each in found["rules"]][1:3] == [
            " for tenant acme",
            " for audience minor or adult, tenant acme",
        ]
        assert "beta-merger" in beta.get("/v1/policy").text
        found = clean(school.get("/v1/policy")).json()
        assert [each["rule"] for each in found["rules"]] == ["for-all", "young"]
        assert found["attributes"] == {"audience": ["minor"]}


def test_what_is_said_of_a_rule_that_binds_names_nobody_else(strict: Running) -> None:
    soup = {"weights": {"loud": 0.9}}
    with strict.http() as http:
        told = clean(http.post("/v1/clamp", json=soup)).json()
        assert "loud 0.9 -> 0.4" in told["explanation"]
        assert told["binding"][0]["limit"].endswith(" for tenant acme")
        assert told["binding"][0]["limit"] in told["explanation"]
        body = {"model": MODEL, "prompt": "x", "max_tokens": 1, "soup": soup}
        clean(http.post("/v1/completions", json=body))
        made = clean(http.post("/v1/soups", json=soup)).json()
        clean(http.get(f"/v1/soups/{made['id']}/grant"))


def test_a_refusal_names_nobody_else(strict: Running) -> None:
    """Its message is cut in the middle where it is long, so it cannot be cleaned behind that."""
    soup = {"weights": {"plain": 0.9}}
    with strict.http() as http:
        for path, body in (("/v1/clamp", soup), ("/v1/soups", soup)):
            answer = clean(http.post(path, json=body))
            assert answer.status_code == 403
            assert "for audience minor or adult, tenant acme" in answer.json()["error"]["message"]


def test_whoever_needs_no_key_hears_all(start: Start, tmp_path: Path) -> None:
    (tmp_path / "acme.yaml").write_text(POLICY)
    with start(policies=lambda: (tmp_path / "acme.yaml",), no_auth=True) as server:
        found = httpx.get(f"{server.url}/v1/policy", trust_env=False).json()
    assert len(found["rules"]) == 6
