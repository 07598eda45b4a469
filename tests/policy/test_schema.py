"""The committed schema is the one that the models give, and the examples are valid by a validator that is not ours."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from soupmix.policy.documents import document_schema

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path for path in (ROOT / "examples" / "policies").glob("*.yaml") if "cases" not in path.name)


def test_the_committed_schema_is_current() -> None:
    assert json.loads((ROOT / "docs" / "policy.schema.json").read_text("utf-8")) == document_schema()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_valid(path: Path) -> None:
    jsonschema.Draft202012Validator(document_schema()).validate(yaml.load(path.read_text("utf-8"), yaml.BaseLoader))


@pytest.mark.parametrize(
    "wrong", [{"tier": "boss"}, {"rulez": []}, {"rules": [{"rule": "allow"}]}, {"rules": [{"rule": "budget"}]}]
)
def test_mistakes_are_not(wrong: dict[str, object]) -> None:
    right = {"tier": "law", "issuer": "x", "version": "1", "rules": []}
    validator = jsonschema.Draft202012Validator(document_schema())
    assert validator.is_valid(right)
    assert not validator.is_valid({**right, **wrong})
