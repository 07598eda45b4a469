"""No answer goes beyond the positions that a model has."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from soupmix.backends import Limits, Request
from soupmix.backends.local import LocalBackend
from soupmix.engine import Engine, Sampling
from soupmix.engine.positions import positions
from soupmix.errors import RecipeError
from soupmix.policy import Grant

Granter = Callable[..., Grant]
LONG = {"rope_type": "longrope", "original_max_position_embeddings": 4096}


def config(**fields: Any) -> Any:
    found = SimpleNamespace(**fields)
    found.get_text_config = lambda: found
    return found


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"max_position_embeddings": 64}, 64),
        ({"n_positions": 1024}, 1024),
        ({"max_seq_len": 2048}, 2048),
        ({}, None),
        ({"max_position_embeddings": None, "rope_parameters": None}, None),
        ({"max_position_embeddings": 32768, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, 32768),
        ({"max_position_embeddings": 131072, "rope_parameters": LONG}, 4096),
        ({"max_position_embeddings": 131072, "rope_parameters": {"full_attention": LONG}}, 4096),
        ({"max_position_embeddings": 512, "rope_parameters": {"rope_type": "dynamic", "factor": 4.0}}, 512),
        (
            {
                "max_position_embeddings": 32768,
                "rope_parameters": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
            },
            131072,
        ),
        *(
            (
                {
                    "max_position_embeddings": 64,
                    "rope_parameters": {"rope_type": kind, "factor": odd, "original_max_position_embeddings": 32},
                },
                64,
            )
            for kind, odd in (
                ("yarn", float("inf")),
                ("yarn", float("nan")),
                ("yarn", "8"),
                ("yarn", [1]),
                (["x"], 1.0),
            )
        ),
    ],
)
def test_what_a_config_says(fields: dict[str, Any], expected: int | None) -> None:
    assert positions(config(**fields)) == expected


def test_what_does_not_fit_is_refused_at_every_door(engine: Engine, grant: Granter) -> None:
    assert engine.positions == 512
    prompt = engine.chat_tokens("x" * 300)
    fits = 512 - len(prompt)
    with pytest.raises(RecipeError, match=r"of prompt and \d+ of answer are 513, and at most 512 fit") as caught:
        engine.complete(["hi", "x" * 300], [grant(), grant()], sampling=Sampling(max_new_tokens=fits + 1))
    assert caught.value.reason == "too-long"
    assert engine.complete(["x" * 300], [grant()], sampling=Sampling(max_new_tokens=fits))
    with LocalBackend(engine, Limits(rows=2, length=2048)) as backend:
        assert backend.limits == Limits(rows=2, length=512)
        with pytest.raises(RecipeError, match="at most 512 fit") as caught:
            backend.submit(Request(prompt, grant(), Sampling(max_new_tokens=fits + 1)), lambda _: None)
    assert caught.value.reason == "too-long"
    with LocalBackend(engine, Limits(rows=2, length=64)) as backend:
        assert backend.limits.length == 64
