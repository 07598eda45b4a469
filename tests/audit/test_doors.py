"""The same request leaves the same record at every door: commands, library, batch and server; time and number apart."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner

from soupmix.audit import AuditLog, Record, pseudonym, read_records
from soupmix.backends import Limits
from soupmix.backends.local import LocalBackend
from soupmix.base import Base
from soupmix.errors import SoupmixError
from soupmix.policy import Policy
from soupmix.serve.state import ServerConfig, Settings
from soupmix.store import Store
from soupmix.trust import RoleKeys, SignedSource, create, load_signed, publish
from soupmix.weights import Weights
from tests.support.serving import MODEL, running

Run = Callable[..., tuple[int, str, str]]

POLICY = """\
tier: organisation
issuer: Example
version: '1'
rules:
- {id: quiet, rule: bounds, adapter: loud, at_most: '0.25', scope: {audience: [minor]}}
- {id: never-plain, rule: deny, adapter: plain, mode: refuse}
- {id: calmly, rule: bounds, adapter: calm, at_most: '0.5', mode: refuse, scope: {audience: [minor]}}
"""
PERSON = "anna"
ATTRIBUTES = {"audience": "minor", "tenant": "acme"}  # a server knows the tenant from the key
REQUESTS = {
    "granted": {"loud": 0.5},
    "refused by a rule": {"plain": 0.5},
    "refused by two rules": {"plain": 0.5, "calm": 0.75, "loud": 0.5},
    "of an unknown adapter": {"nobody": 0.5},
}


@dataclass
class Doors:
    """One policy, signed or not, behind every door; a log for each."""

    run: Run
    home: Path
    base: Base
    store: Store
    policy: Path
    trust: tuple[Path, bytes] | None

    def log(self, door: str) -> Path:
        return self.home / f"{door}-log"

    def words(self, door: str, weights: dict[str, float]) -> list[object]:
        """What every command is told."""
        trusted = ["--trust", f"organisation={self.trust[0]},{self.home / 'root.json'}"] if self.trust else []
        said = trusted or ["--policy", self.policy]
        said += [word for name, value in weights.items() for word in ("-w", f"{name}={value}")]
        said += [word for name, value in ATTRIBUTES.items() for word in ("--attribute", f"{name}={value}")]
        return [*said, "--store", self.store.folder, "--audit", self.log(door), "--who", PERSON]

    def clamp(self, weights: dict[str, float]) -> None:
        self.run("clamp", *self.words("clamp", weights))

    def merge(self, weights: dict[str, float]) -> None:
        self.run("merge", *self.words("merge", weights), self.home / "out")

    def chat(self, weights: dict[str, float]) -> None:
        self.run("chat", "why", *self.words("chat", weights), "--base", self.base.folder, "--max-new-tokens", 1)

    def batch(self, weights: dict[str, float]) -> None:
        body = {"model": MODEL, "prompt": "x", "max_tokens": 1, "soup": {"weights": weights}}
        line = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": body}
        (self.home / "in.jsonl").write_text(json.dumps(line))
        asked = ("batch", self.home / "in.jsonl", self.home / "out.jsonl", *self.words("batch", {}))
        self.run(*asked, "--base", self.base.folder, "--model", MODEL)

    def library(self, weights: dict[str, float]) -> None:
        policy = self._policy()
        asked, signed = Weights(weights), self.trust is not None
        with AuditLog.open(self.log("library")) as log:
            try:
                grant = policy.clamp(asked, **ATTRIBUTES)
            except SoupmixError as error:
                log.append(
                    Record.of_refusal(
                        error,
                        person=PERSON,
                        requested=asked,
                        attributes=ATTRIBUTES,
                        policy=policy,
                        is_signed=signed,
                    )
                )
            else:
                log.append(Record.of_grant(grant, person=PERSON, is_signed=signed))

    def serve(self, weights: dict[str, float]) -> None:
        which: dict[str, Any] = {"policies": lambda: (self.policy,)}
        if self.trust is not None:
            which = {"policies": tuple, "trust": {"organisation": SignedSource(*self.trust)}}
        config = ServerConfig(
            settings=Settings(model=MODEL),
            backend=lambda: LocalBackend.open(self.base, self.store, limits=Limits(rows=2, length=64, waiting=2)),
            adapters=self.store,
            database=str(self.home / "serve.db"),
            audit=self.log("serve"),
            **which,
        )
        with running(config) as server, server.http() as http:
            body = {"model": MODEL, "prompt": "x", "max_tokens": 1, "user": PERSON}
            http.post("/v1/completions", json={**body, "soup": {"weights": weights, "attributes": ATTRIBUTES}})

    def _policy(self) -> Policy:
        if self.trust is None:
            return Policy.load(self.policy, adapters=self.store)
        return load_signed(organisation=SignedSource(*self.trust), adapters=self.store).policy

    def record(self, door: str) -> dict[str, Any]:
        """The one record of a door; whom it names is who asked."""
        person = f"acme/{PERSON}" if door == "serve" else PERSON
        ((_, record),) = read_records(self.log(door))
        assert record["who"] == pseudonym(self.log(door), person)
        entry: dict[str, Any] = record["entry"]
        return entry


DOORS = ("clamp", "merge", "chat", "batch", "library", "serve")


@pytest.fixture(params=["unsigned", "signed"])
def doors(
    request: pytest.FixtureRequest,
    run: Run,
    tmp_path: Path,
    tiny_base: Base,
    pico_store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Doors]:
    monkeypatch.setenv("SOUPMIX_STATE", str(tmp_path / "state"))
    policy = tmp_path / "acme.yaml"
    policy.write_text(POLICY)
    trust = None
    if request.param == "signed":
        root, keys = CryptoSigner.generate_ed25519(), RoleKeys(*(CryptoSigner.generate_ed25519() for _ in range(2)))
        data = create(tmp_path / "set", root_keys=[root.public_key], threshold=1, signers=[root], keys=keys)
        publish(tmp_path / "set", {"acme.yaml": POLICY.encode()}, keys=keys)
        (tmp_path / "root.json").write_bytes(data)
        trust = (tmp_path / "set", data)
    return Doors(run, tmp_path, tiny_base, pico_store, policy, trust)


@pytest.mark.parametrize("asked", REQUESTS)
def test_every_door_leaves_the_same_record(doors: Doors, asked: str) -> None:
    for door in DOORS:
        getattr(doors, door)(REQUESTS[asked])
    found = {door: doors.record(door) for door in DOORS}
    if asked == "granted":  # what is made of a grant is another thing at every door
        for record in found.values():
            record.pop("merge")
    assert {door: found[door] for door in DOORS if found[door] != found["library"]} == {}
    said = found["library"]
    assert said["event"] == ("grant" if asked == "granted" else "refusal")
    assert said["signed"] is (doors.trust is not None)
    assert said["requested"] == Weights(REQUESTS[asked])
    assert said["attributes"] == ATTRIBUTES
    if asked == "refused by a rule":
        assert (said["reason"], said["binding"]) == ("refused-by-rule", ["organisation/Example/never-plain"])
