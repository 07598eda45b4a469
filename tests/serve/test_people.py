"""Many people at once: every answer is that person's answer alone."""

import asyncio
import random
from collections.abc import Callable
from contextlib import AbstractContextManager

import openai

from soupmix.backends import Limits
from soupmix.engine import Sampling
from tests.support.serving import MODEL, Running


def person(number: int) -> tuple[dict[str, float], str, int]:
    """Weights, what they say, and how long an answer they want: all different."""
    draw = random.Random(number)
    weights = {name: round(draw.random(), 3) for name in draw.sample(["calm", "loud"], draw.randint(0, 2))}
    return weights, f"{'so ' * (number % 7)}what is {number}?", 4 + number % 13


async def everybody(server: Running, count: int, *, stream: bool) -> list[str]:
    client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=server.keys["acme"], max_retries=0)

    async def one(number: int) -> str:
        weights, text, most = person(number)
        ask = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": text}],
            max_tokens=most,
            temperature=0,
            stream=stream,
            extra_body={"soup": {"weights": weights, "attributes": {"audience": "adult"}}},
        )
        if not stream:
            return str((await ask).choices[0].message.content)
        return "".join([each.choices[0].delta.content or "" async for each in await ask if each.choices])

    try:
        return await asyncio.gather(*map(one, range(count)))
    finally:
        await client.close()


def test_64_people_at_once_each_get_their_answer_alone(
    start: Callable[..., AbstractContextManager[Running]],
) -> None:
    with start(limits=Limits(rows=64, length=128, waiting=256)) as server:
        engine, policy = server.engine, server.state.policies.held.policy
        alone = []
        for number in range(64):
            weights, text, most = person(number)
            grant = policy.clamp(weights, audience="adult", tenant="acme")
            sampling = Sampling(max_new_tokens=most)
            alone.append(engine.complete([text], [grant], sampling=sampling)[0].text)
        together = asyncio.run(everybody(server, 64, stream=False))
        streamed = asyncio.run(everybody(server, 64, stream=True))
        assert server.state.backend.state().running == 0
    assert together == alone
    assert streamed == together
    assert len(set(alone)) > 32  # people with nothing in common say nothing in common
