"""The peers of benchmarks/serve.py: transformers' padded and continuous batching, and PEFT's mixed batch."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Work:
    """One request: prompt token ids, tokens of answer, number of its person."""

    prompt: tuple[int, ...]
    tokens: int
    person: int


@dataclass
class Told:
    """When a request was sent and when its tokens came, in seconds; and the tokens, or what they say."""

    sent: float
    came: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    text: str = ""


Server = Callable[[Sequence[Sequence[Work]]], list[Told]]
"""Takes a list of requests for every client, each sent when the one before is answered."""


def padded(model: Any, extra: Callable[[Sequence[Work]], dict[str, Any]] = lambda _: {}) -> Server:
    """`generate` of transformers on waves of one request per client: everybody waits for the longest answer."""

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # PEFT's own forward is not called

    def serve(clients: Sequence[Sequence[Work]]) -> list[Told]:
        told = []
        for wave in zip(*clients, strict=True):
            width, longest = max(len(each.prompt) for each in wave), max(each.tokens for each in wave)
            ids = torch.full((len(wave), width), 2)
            mask = torch.zeros_like(ids)
            for row, each in enumerate(wave):
                ids[row, width - len(each.prompt) :] = torch.tensor(each.prompt)
                mask[row, width - len(each.prompt) :] = 1
            sent, stamps = time.perf_counter(), []
            hook = inner.register_forward_hook(lambda *_, stamps=stamps: stamps.append(time.perf_counter()))
            out = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=longest,
                min_new_tokens=longest,
                do_sample=False,
                pad_token_id=2,
                **extra(wave),
            )
            hook.remove()
            told += [
                Told(sent, stamps[-longest:][: each.tokens], out[row, width : width + each.tokens].tolist())
                for row, each in enumerate(wave)
            ]
        return told

    return serve


def continuous(model: Any, rows: int) -> Server:
    """transformers' own continuous batching, of the bare base."""
    from transformers import ContinuousBatchingConfig, GenerationConfig

    paging = ContinuousBatchingConfig(
        page_size=32,
        num_blocks=8 * rows,
        max_batch_tokens=512,
        allow_block_sharing=False,
        use_cuda_graph=False,
        use_async_batching=False,
    )
    greedy = GenerationConfig(max_new_tokens=64, do_sample=False, eos_token_id=-1, pad_token_id=2)

    def serve(clients: Sequence[Sequence[Work]]) -> list[Told]:
        queues = [list(each) for each in clients]
        told: dict[str, Told] = {}
        before = model.config._attn_implementation
        with model.continuous_batching_context_manager(
            generation_config=greedy, continuous_batching_config=paging, warmup=False
        ) as manager:

            def send(client: int) -> None:
                work, name = queues[client].pop(0), f"{client} {len(queues[client])}"
                told[name] = Told(time.perf_counter())
                manager.add_request(
                    list(work.prompt), request_id=name, max_new_tokens=work.tokens, eos_token_id=-1, streaming=True
                )

            for client in range(len(queues)):
                send(client)
            left = sum(len(each) for each in clients)
            while left:
                result = manager.get_result(timeout=60)
                mine, now = told[result.request_id], time.perf_counter()
                mine.came += [now] * (len(result.generated_tokens) - len(mine.tokens))
                mine.tokens = list(result.generated_tokens)
                if result.is_finished():
                    left -= 1
                    client = int(result.request_id.split()[0])
                    if queues[client]:
                        send(client)
        model.set_attn_implementation(before)
        return list(told.values())

    return serve


def mixed(folder: str, dtype: torch.dtype, adapters: dict[str, str], people: Sequence[dict[str, float]]) -> Server:
    """PEFT's mixed batch: one adapter per person, merged in advance, named row by row."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    bare = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, trust_remote_code=False).eval()
    first, *rest = adapters
    model = PeftModel.from_pretrained(bare, adapters[first], adapter_name=first, autocast_adapter_dtype=False)
    for name in rest:
        model.load_adapter(adapters[name], adapter_name=name, autocast_adapter_dtype=False)
    for number, weights in enumerate(people):
        model.add_weighted_adapter(list(weights), list(weights.values()), f"person-{number}", combination_type="cat")
    for name in adapters:
        model.delete_adapter(name)
    return padded(model.eval(), lambda wave: {"adapter_names": [f"person-{each.person}" for each in wave]})
