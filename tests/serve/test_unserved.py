"""An adapter that no row can have, asked for over HTTP and in a batch: whoever asks is told, and nobody else is kept waiting."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest

from soupmix.backends import Limits
from soupmix.backends.local import LocalBackend
from soupmix.base import Base
from soupmix.engine import Engine
from soupmix.policy import Policy
from soupmix.store import Store
from tests.support.batch_shop import Shop, chat
from tests.support.random_adapter import save_random_adapter
from tests.support.serving import MODEL, Running

LAYERS = {"router": "model.layers.0.mlp.gate", "plain": "model.layers.0.self_attn.q_proj"}
SAID = (
    "adapter 'router' changes 'model.layers.0.mlp.gate', which is a MixtralTopKRouter and no linear layer, so it cannot be added "
    "for a row: merge it into a model (`soupmix merge --as model`), or ask without it"
)


@dataclass(frozen=True)
class Mixture:
    base: Base
    store: Store


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory, family_base: Callable[[str], Base]) -> Mixture:
    folder, base = tmp_path_factory.mktemp("mixture"), family_base("mixtral")
    store = Store(folder / "store", create=True)
    for name, path in LAYERS.items():
        saved = save_random_adapter(base, folder / name, layers=[path])
        store.add(saved, name=name, dimension=name, pole=name, base=base)
    return Mixture(base, store)


@pytest.fixture(scope="module")
def server(start: Callable[..., AbstractContextManager[Running]], mixture: Mixture) -> Iterator[Running]:
    limits = Limits(rows=4, length=128, waiting=8)
    backend = lambda: LocalBackend.open(mixture.base, mixture.store, dtype="fp32", limits=limits)  # noqa: E731
    with start(backend=backend, store=mixture.store, policies=tuple) as made:
        yield made


def test_a_server_says_which_adapters_no_request_can_have(server: Running) -> None:
    with server.http() as http:
        told = {each["name"]: each for each in http.get("/v1/adapters").json()["data"]}
    said = {name: [each[field] for field in ("servable", "reason", "why")] for name, each in told.items()}
    assert said == {"plain": [True, None, None], "router": [False, "not-linear", SAID]}


@pytest.mark.parametrize("stream", [False, True])
def test_a_server_says_who_cannot_be_asked_for_and_serves_the_others(server: Running, stream: bool) -> None:
    def ask(**weights: float) -> object:
        return server.openai().chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "why?"}],
            max_tokens=4,
            stream=stream,
            extra_body={"soup": {"weights": weights}},
        )

    with pytest.raises(openai.BadRequestError) as caught:
        ask(plain=0.5, router=0.1)
    assert (caught.value.code, caught.value.body["message"]) == ("not-linear", SAID)  # type: ignore[index]
    assert ask(plain=0.5, router=0)
    assert ask(plain=0.5)


def test_a_line_of_a_batch_says_so_too_and_the_others_are_answered(mixture: Mixture, tmp_path: Path) -> None:
    policy = Policy.open(mixture.store)
    shop = Shop(Engine.load(mixture.base, mixture.store, policy=policy, dtype="fp32"), policy)
    asked = [{"plain": 0.5}, {"router": 0.1, "plain": 0.5}, {}]
    lines = [chat(number, soup={"weights": weights}) for number, weights in enumerate(asked)]
    path, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert shop.work(path, out)
    results = [json.loads(line) for line in out.read_text().splitlines()]
    assert [each["response"]["status_code"] for each in results] == [200, 400, 200]
    assert results[1]["error"] == {"code": "not-linear", "message": SAID}
