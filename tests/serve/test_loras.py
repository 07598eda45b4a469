"""`lora` is another spelling of weights."""

from typing import Any

import pytest
from pydantic import ValidationError

from soupmix.openai.wire import ChatAsk, CompletionAsk

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
PLAIN = {"model": "m", "prompt": "hi"}


@pytest.mark.parametrize(("kind", "body"), [(ChatAsk, CHAT), (CompletionAsk, PLAIN)])
def test_a_lora_is_a_weight(kind: type[Any], body: dict[str, Any]) -> None:
    said = [{"id": "calm", "scale": 0.5}, {"id": "loud", "scale": "0.25"}]
    weights = {"calm": 0.5, "loud": "0.25"}
    assert kind.model_validate({**body, "lora": said}) == kind.model_validate({**body, "soup": {"weights": weights}})
    both = kind.model_validate({**body, "lora": said, "soup": {"attributes": {"audience": "adult"}}})
    assert (both.soup.weights, both.soup.attributes) == (weights, {"audience": "adult"})
    for nothing in ([], None):
        assert kind.model_validate({**body, "lora": nothing}) == kind.model_validate(body)


@pytest.mark.parametrize(
    "said",
    [
        {"calm": 0.5},
        "calm",
        [["calm", 0.5]],
        [{"id": "calm"}],
        [{"id": 0, "scale": 0.5}],
        [{"id": "calm", "scale": 0.5, "more": 1}],
        [{"id": "calm", "scale": 0.5}] * 2,
        [{"id": "calm", "scale": None}],
        [{"id": "calm", "scale": True}],
        [{"id": "calm", "scale": float("nan")}],
        [{"id": f"a{n}", "scale": 0} for n in range(1001)],
    ],
)
def test_what_is_no_list_of_them_is_refused(said: Any) -> None:
    with pytest.raises(ValidationError):
        ChatAsk.model_validate({**CHAT, "lora": said})


def test_weights_are_said_once() -> None:
    lora = [{"id": "calm", "scale": 0.5}]
    for soup in ({"weights": {"calm": 0.5}}, [1], "calm"):
        with pytest.raises(ValidationError):
            ChatAsk.model_validate({**CHAT, "lora": lora, "soup": soup})
