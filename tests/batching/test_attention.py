"""What models hand to attention over slots: passed on, or refused with a sentence; and a token never sees behind itself."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.masking_utils import bidirectional_mask_function, causal_mask_function

from soupmix.base import Base
from soupmix.batching import Batcher
from soupmix.batching.attention import Sight, _attention, _sight, attending
from soupmix.batching.slots import Layout, Slots, Span
from soupmix.engine import Engine
from soupmix.errors import BaseModelError

TOKENS, SIZE = 5, 8


class Layer(nn.Module):
    """The attention of a model whose attention is named in this file."""

    def __init__(self) -> None:
        super().__init__()
        self.sinks = nn.Parameter(torch.zeros(2))


given: dict[str, Any] = {}


def eager_attention_forward(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, **more: Any
) -> tuple[Tensor, None]:
    """Where transformers' models have theirs."""
    given.clear()
    given.update(more)
    scores = query @ key.transpose(2, 3) * more["scaling"] + mask
    return (torch.softmax(scores, -1) @ value).transpose(1, 2), None


def attend(implementation: str, mask: object = None, **more: Any) -> Tensor:
    """Five tokens of one row in the second of two slots, which held others' keys before."""
    slots, draw = Slots(2, 12), torch.Generator().manual_seed(0)
    positions = torch.arange(TOKENS)
    layout = Layout(torch.ones(TOKENS, dtype=torch.int64), positions, (Span(0, 1, 1, TOKENS, TOKENS, None),))
    q, k, v = (torch.randn(1, 2, TOKENS, SIZE, generator=draw) for _ in range(3))
    config = SimpleNamespace(_attn_implementation=implementation)
    config.get_text_config = lambda: config
    with attending(SimpleNamespace(config=config), slots, layout):
        out, _ = _attention(Layer(), q, k, v, mask, **more)  # type: ignore[arg-type]
    assert config._attn_implementation == implementation
    return out


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_a_token_never_sees_behind_itself_whatever_the_model_says(implementation: str) -> None:
    plain = attend(implementation)
    everything = attend(implementation, Sight(bidirectional_mask_function, 0))
    torch.testing.assert_close(everything, plain)
    one = Sight(lambda batch, head, q, k: k == q, 0)
    assert not torch.allclose(attend(implementation, one), plain)


def test_both_attentions_are_one() -> None:
    torch.testing.assert_close(attend("sdpa", scaling=0.3), attend("eager", scaling=0.3))
    window = Sight(lambda batch, head, q, k: k > q - 2, 2)
    torch.testing.assert_close(attend("sdpa", window), attend("eager", window))


@pytest.mark.parametrize(
    ("mask", "more", "oddity"),
    [
        (None, {"position_bias": torch.zeros(1, 2, TOKENS, TOKENS)}, "hands its attention 'position_bias'"),
        (None, {"softcap": 30.0}, "hands its attention 'softcap'"),
        (None, {"anything": True}, "hands its attention 'anything'"),
        (None, {"is_causal": False}, "lets tokens see what comes after them"),
        (torch.zeros(1, 1, TOKENS, TOKENS), {}, "masks keys in a way of its own"),
    ],
)
def test_what_cannot_be_passed_on_is_refused(mask: object, more: dict[str, Any], oddity: str) -> None:
    with pytest.raises(BaseModelError, match=oddity) as caught:
        attend("sdpa", mask, **more)
    assert caught.value.reason == "unsupported-attention"


def test_the_models_own_attention_gets_numbers_and_weights_and_no_tensor_of_tokens() -> None:
    attend("eager", softcap=30.0, off=None, never=False, sliding_window=4)
    assert given == {"scaling": SIZE**-0.5, "dropout": 0.0, "softcap": 30.0}
    with pytest.raises(BaseModelError, match="hands its attention 'per_token'"):
        attend("eager", per_token=torch.zeros(TOKENS))


def test_plain_masks_stay_plain() -> None:
    assert _sight(mask_function=causal_mask_function) is None
    window = _sight(mask_function=bidirectional_mask_function, local_size=8, allow_is_causal_skip=True)
    assert window is not None
    assert window.reach == 8
    overlaid = _sight(mask_function=bidirectional_mask_function, local_size=8, allow_is_causal_skip=True, use_vmap=True)
    assert overlaid is not None
    assert overlaid.reach == 0


def test_a_model_without_such_attention_says_so(family_base: Callable[[str], Base]) -> None:
    engine = Engine.load(family_base("mamba"), None)
    with Batcher(engine) as batcher:
        said = batcher.state()
        assert said.loop == "padded"
        assert "does not attend through transformers' attention interface" in said.why
    with pytest.raises(BaseModelError, match=r"cannot serve this model: .*leave the choice") as caught:
        Batcher(engine, loop="running")
    assert caught.value.reason == "unsupported-attention"


def test_a_model_that_slots_get_wrong_is_found_out(
    tiny_base: Any, monkeypatch: pytest.MonkeyPatch, grant: Callable[..., Any]
) -> None:
    """Windows that are dropped, say: nothing fails, and every answer would be another."""
    engine = Engine.load(tiny_base, None)
    honest = Slots.hold

    def forgetful(self: Slots, attention: int, key: Tensor, value: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        keys, values = honest(self, attention, key, value, layout)
        values[:, :, 4] = 0
        return keys, values

    monkeypatch.setattr(Slots, "hold", forgetful)
    with Batcher(engine) as batcher:
        assert batcher.loop.name == "padded"
        assert "over slots its answers are" in batcher.loop.why
