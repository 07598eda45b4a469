"""Random policies and requests by the thousand, from one seed; reading them is left to `policy.spec`."""

import random
from typing import Any

from soupmix.weights import decimal_text
from tests.support.shelf import NAMES, digest_of

SELECTORS: list[dict[str, Any]] = [
    *({"adapter": name} for name in NAMES),
    {"dimension": "style"},
    {"pole": "unfriendly"},
    {"dimension": "length", "pole": "concise"},
    {"tag": "technical"},
]
SCOPES: list[dict[str, Any]] = [{}, {}, {"audience": ["minor"]}, {"audience": ["adult", "minor"]}, {"tenant": ["acme"]}]
SOURCES = ["explicit", "stored", "inferred"]


class Draw:
    """A stream of policies and requests."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def _number(self, most: int) -> str:
        return decimal_text(
            self._random.choice([self._random.randrange(most), self._random.randrange(13) * 100_000 % most])
        )

    def _some(self, least: int = 1) -> list[str]:
        return self._random.sample(NAMES, self._random.randint(least, len(NAMES)))

    def _report(self) -> dict[str, Any]:
        return {
            "evidence": {
                "report": digest_of("report"),
                "until": self._random.choice(["2026-11-24", "2030-01-01", "2026-11-23"]),
            }
        }

    def _rule(self) -> dict[str, Any]:
        r = self._random
        made: list[dict[str, Any]] = [
            {"rule": "deny", **r.choice(SELECTORS)},
            {"rule": "bounds", **r.choice(SELECTORS), "at_most": self._number(1_200_000)},
            {"rule": "require", **r.choice(SELECTORS), "at_least": self._number(150_000)},
            {"rule": "group", "dimension": r.choice(["expertise", "style"]), "at_most": self._number(1_200_000)},
            {"rule": "group", "adapters": self._some(2), "at_most": self._number(1_500_000)},
            {"rule": "group", "adapters": self._some(2), "at_most": self._number(1_500_000)},
            {"rule": "budget", "at_most": self._number(2_000_000)},
            {"rule": "exclusive", "adapters": self._some(2)},
            {"rule": "exclusive", "dimension": r.choice(["length", "style"])},
            {"rule": "source", **r.choice([{}, *SELECTORS]), "allow": r.sample(SOURCES, r.randint(0, 3))},
            {"rule": "infer", "dimensions": r.sample(["style", "length", "expertise"], r.randint(0, 2))},
            {"rule": "evidence", **r.choice(SELECTORS)},
            {
                "rule": "approve",
                "adapters": [{"name": n, "digest": digest_of(n), **self._report()} for n in self._some(3)],
            },
            {"rule": "combinations", "allow": [self._together() for _ in range(r.randint(1, 4))]},
            {"rule": "fix", "weights": {}},
        ]
        return {**r.choice(made), "scope": r.choice(SCOPES)}

    def _together(self) -> dict[str, Any]:
        most = {"at_most": self._number(1_500_000)} if self._random.random() < 0.4 else {}
        return {"adapters": self._some(), **self._report(), **most}

    def document(self) -> dict[str, Any]:
        found = [self._rule() for _ in range(self._random.randint(0, 5))]
        approvals = [rule for rule in found if rule["rule"] == "approve"]
        kept = [rule for rule in found if rule not in approvals[1:]]
        return {
            "tier": "organisation",
            "issuer": "A",
            "version": "1",
            "scope": self._random.choice(SCOPES),
            "rules": kept,
        }

    def documents(self) -> list[dict[str, Any]]:
        return [self.document() for _ in range(self._random.randint(1, 2))]

    def request(self) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
        """Weights, attributes, sources."""
        r = self._random
        weights = {
            name: decimal_text(r.randint(-300_000, 1_500_000)) for name in r.sample(NAMES, r.randint(0, len(NAMES)))
        }
        said = {"audience": r.choice(["minor", "adult"]), "tenant": r.choice(["acme", "zeta"])}
        said = {key: value for key, value in said.items() if r.random() < 0.6}
        return weights, said, {name: r.choice(SOURCES) for name in NAMES if r.random() < 0.6}
