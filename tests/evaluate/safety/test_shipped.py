"""The example policy rests on a report that is there, is whole, is of the shipped adapters, and went wherever it lets go."""

from hashlib import sha256
from pathlib import Path

import yaml

from soupmix.evaluate.evidence import digest_of_evidence
from soupmix.evaluate.promptset import read_prompts
from soupmix.evaluate.record import prompt_fields
from soupmix.evaluate.report import read_report
from soupmix.evaluate.safety.audit import SafetyPlan, points
from soupmix.files import canonical_json
from soupmix.policy import Policy
from soupmix.store import Store

ROOT = Path(__file__).parents[3]
REPORT = ROOT / "examples" / "evidence" / "safety.json"
PROMPTS = ROOT / "examples" / "evidence" / "prompts.jsonl"
DOCUMENTS = [
    ROOT / "examples" / "policies" / f"{name}.example.yaml" for name in ("law", "organisation", "combinations")
]


def test_the_example_cites_the_report_of_its_own_feasible_set() -> None:
    report, store = read_report(REPORT), Store.shipped()
    (rule,) = [
        each for each in yaml.safe_load(DOCUMENTS[2].read_text("utf-8"))["rules"] if each["rule"] == "combinations"
    ]
    assert {each["evidence"]["report"] for each in rule["allow"]} == {report["digest"]}
    assert {name: facts["digest"] for name, facts in report["adapters"].items()} == {e.name: e.digest for e in store}
    plan = SafetyPlan(Policy.load(*DOCUMENTS, adapters=store).feasible(), people=4)
    found = {name: about["weights"] for name, about in report["safety"]["points"].items()}
    assert found == {each.arm.name: each.arm.weights.decimals() for each in points(plan, report["limits"]["seed"])}
    assert set(report["safety"]["sweeps"]) == {name for name in store.names if plan.feasible.most(name) > 0}
    texts = [each.model_dump(mode="json") for each in map(prompt_fields, read_prompts(PROMPTS))]
    assert report["prompts"]["count"] == len(texts)
    assert report["prompts"]["digest"] == f"sha256:{sha256(canonical_json(texts)).hexdigest()}"


def test_the_report_is_evidence_for_what_the_example_approves() -> None:
    """As `soupmix approve --evidence` sees it: the base, the adapters, and soups of just these with such weights."""
    rules = yaml.safe_load(DOCUMENTS[2].read_text("utf-8"))["rules"]
    (rule,) = [each for each in rules if each["rule"] == "combinations"]
    for each in rule["allow"]:
        total = str(each["at_most"])
        found = digest_of_evidence(REPORT, Store.shipped().manifest, [each["adapters"]], total)
        assert found == each["evidence"]["report"]
