"""What four clients do with a server, each in its usual way; run in an environment that has them, and none of ours.

    python tests/serve/clients.py URL KEY MODEL TOOLS_URL TOOLS_KEY

prints a JSON object: client and version -> what was tried -> "" or what went wrong. Behind the second address a call of a tool
that is said is a call of that tool.
"""

import functools
import json
import operator
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

URL, KEY, MODEL, TOOLS_URL, TOOLS_KEY = sys.argv[1:6]
SAID = [{"role": "user", "content": "Why is the sky blue?"}]
SCHEMA = {
    "type": "object",
    "properties": {"why": {"enum": ["air", "sea"]}},
    "required": ["why"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "reason", "schema": SCHEMA}}
WEATHER = {
    "name": "weather",
    "description": "The weather in a town",
    "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
}
TOOLS: Any = [{"type": "function", "function": WEATHER}]
TOWNS = {"type": "object", "properties": {"town": {"enum": ["Oslo", "Rome"]}}, "required": ["town"]}
FORCED: Any = [{"type": "function", "function": {**WEATHER, "parameters": {**TOWNS, "additionalProperties": False}}}]
CALL = '<tool_call>{"name": "weather", "arguments": {"town": "Oslo"}}</tool_call>'
CALLED: Any = [{"role": "user", "content": CALL}]
SOUP = {"soup": {"weights": {"calm": 0.5}}}


def held(text: str) -> None:
    assert json.loads(text)["why"] in ("air", "sea")


def of_oslo(name: str, arguments: object) -> None:
    """A call as it was asked for, whose arguments are text or already read."""
    read = json.loads(arguments) if isinstance(arguments, str) else arguments
    assert (name, read) == ("weather", {"town": "Oslo"})


def in_a_town(name: str, arguments: object) -> None:
    """A forced call, whose town is one that its schema allows."""
    read = json.loads(arguments) if isinstance(arguments, str) else arguments
    assert name == "weather"
    assert read in ({"town": "Oslo"}, {"town": "Rome"})


def openai_client() -> dict[str, Callable[[], object]]:
    from openai import OpenAI
    from openai.types import Completion
    from openai.types.chat import ChatCompletion, ChatCompletionChunk
    from openai.types.responses import Response

    client = OpenAI(base_url=URL, api_key=KEY, max_retries=0)
    asked: Any = {"model": MODEL, "messages": SAID, "max_tokens": 12}

    def whole() -> None:
        answer = client.chat.completions.with_raw_response.create(**asked, extra_body=SOUP)
        ChatCompletion.model_validate_json(answer.text, strict=True)

    def stream() -> None:
        chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
        for each in chunks:
            ChatCompletionChunk.model_validate_json(each.model_dump_json(), strict=True)
        assert chunks[-1].usage is not None

    def several_turns() -> None:
        first = client.chat.completions.create(**asked)
        talk = [*SAID, first.choices[0].message.model_dump(), {"role": "user", "content": "And at night?"}]
        assert client.chat.completions.create(**{**asked, "messages": talk}).choices

    def logprobs() -> None:
        answer = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
        assert answer.choices[0].logprobs is not None

    def plain() -> None:
        answer = client.completions.with_raw_response.create(model=MODEL, prompt="The sky is", max_tokens=4)
        Completion.model_validate_json(answer.text, strict=True)

    def responses() -> None:
        answer = client.responses.with_raw_response.create(model=MODEL, input="Why?", max_output_tokens=8)
        Response.model_validate_json(answer.text, strict=True)
        assert [
            each.type for each in client.responses.create(model=MODEL, input="Why?", stream=True, max_output_tokens=4)
        ]

    def structured() -> None:
        held(
            client.chat.completions.create(**{**asked, "max_tokens": 60}, response_format=FORMAT)
            .choices[0]
            .message.content
        )

    there = OpenAI(base_url=TOOLS_URL, api_key=TOOLS_KEY, max_retries=0)

    def tools() -> None:
        asked: Any = {"model": MODEL, "tools": TOOLS}
        answer = there.chat.completions.with_raw_response.create(**asked, messages=CALLED)
        ChatCompletion.model_validate_json(answer.text, strict=True)
        message = answer.parse().choices[0].message
        (call,) = message.tool_calls
        of_oslo(call.function.name, call.function.arguments)
        gave = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
        last = there.chat.completions.create(**asked, messages=[*CALLED, message.model_dump(), gave])
        assert last.choices[0].message.content == "tool: rain\n"

    def tools_streamed() -> None:
        with there.chat.completions.stream(model=MODEL, tools=TOOLS, messages=CALLED) as events:
            (call,) = events.get_final_completion().choices[0].message.tool_calls
        of_oslo(call.function.name, call.function.arguments)

    def tools_of_responses() -> None:
        asked: Any = {"model": MODEL, "tools": [{"type": "function", **WEATHER}]}
        answer = there.responses.with_raw_response.create(**asked, input=CALLED)
        Response.model_validate_json(answer.text, strict=True)
        (call,) = [each for each in answer.parse().output if each.type == "function_call"]
        of_oslo(call.name, call.arguments)
        gave = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
        last = there.responses.create(**asked, input=[*CALLED, *answer.parse().output, gave])
        assert last.output_text == "tool: rain\n"
        with there.responses.stream(**asked, input=CALLED) as events:
            (call,) = [each for each in events.get_final_response().output if each.type == "function_call"]
        of_oslo(call.name, call.arguments)

    def forced() -> None:
        asked: Any = {"model": MODEL, "messages": SAID, "max_tokens": 120}
        for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
            answer = client.chat.completions.with_raw_response.create(**asked, tools=FORCED, tool_choice=choice)
            ChatCompletion.model_validate_json(answer.text, strict=True)
            (call,) = answer.parse().choices[0].message.tool_calls
            in_a_town(call.function.name, call.function.arguments)
        with client.chat.completions.stream(**asked, tools=FORCED, tool_choice="required") as events:
            (call,) = events.get_final_completion().choices[0].message.tool_calls
        in_a_town(call.function.name, call.function.arguments)

    def models() -> None:
        assert client.models.list().data[0].id == MODEL

    return {
        "chat": whole, "stream": stream, "several turns": several_turns, "log-probabilities": logprobs,
        "plain completion": plain, "responses": responses, "JSON schema": structured, "models": models,
        "tools": tools, "tools, streamed": tools_streamed, "tools in responses": tools_of_responses,
        "forced call": forced,
    }  # fmt: skip


def llm_client() -> dict[str, Callable[[], object]]:
    home = Path(tempfile.mkdtemp())
    (home / "extra-openai-models.yaml").write_text(
        f"- {{model_id: soup, model_name: {MODEL}, api_base: {URL!r}, api_key_name: soup, supports_schema: true}}\n"
        f"- {{model_id: tools, model_name: {MODEL}, api_base: {TOOLS_URL!r}, api_key_name: tools, supports_tools: true}}\n"
    )
    (home / "keys.json").write_text(json.dumps({"soup": KEY, "tools": TOOLS_KEY}))
    (home / "weather.py").write_text(
        'def weather(town: str) -> str:\n    "The weather in a town"\n    return "rain in " + town\n'
    )
    environment = {**os.environ, "LLM_USER_PATH": str(home)}

    def command(*words: str) -> str:
        done = subprocess.run(
            [str(Path(sys.executable).with_name("llm")), *words],
            env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-300:]
        return done.stdout

    def tools(*more: str) -> None:
        assert "tool: rain in Oslo" in command("-m", "tools", "--functions", str(home / "weather.py"), *more, CALL)

    return {
        "chat": lambda: command("-m", "soup", "-o", "max_tokens", "12", "--no-stream", "Why?"),
        "stream": lambda: command("-m", "soup", "-o", "max_tokens", "12", "Why?"),
        "several turns": lambda: command("-c", "-m", "soup", "-o", "max_tokens", "12", "And then?"),
        "JSON schema": lambda: held(
            command("-m", "soup", "-o", "max_tokens", "60", "--schema", json.dumps(SCHEMA), "Why?")
        ),
        "tools": lambda: tools("--no-stream"),
        "tools, streamed": tools,
    }


def langchain_client() -> dict[str, Callable[[], object]]:
    from langchain_core.messages import AIMessage, ToolMessage
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(base_url=URL, api_key=KEY, model=MODEL, max_tokens=60, max_retries=0)
    bigger = ChatOpenAI(base_url=URL, api_key=KEY, model=MODEL, max_tokens=120, max_retries=0)

    def several_turns() -> None:
        first = model.invoke([("user", "Why?")])
        assert isinstance(first, AIMessage)
        assert model.invoke([("user", "Why?"), first, ("user", "And then?")]).response_metadata["finish_reason"]

    def structured() -> None:
        found = model.with_structured_output({"title": "reason", **SCHEMA}, method="json_schema").invoke("Why?")
        assert found["why"] in ("air", "sea")

    def tools(*, streamed: bool = False, **more: Any) -> None:
        there = ChatOpenAI(base_url=TOOLS_URL, api_key=TOOLS_KEY, model=MODEL, max_retries=0, **more).bind_tools(TOOLS)
        first = sum_of(there.stream(CALL)) if streamed else there.invoke(CALL)
        (call,) = first.tool_calls
        of_oslo(call["name"], call["args"])
        last = there.invoke([("user", CALL), first, ToolMessage("rain", tool_call_id=call["id"])])
        assert last.text == "tool: rain\n"

    def forced() -> None:
        for choice in ("any", "weather"):
            (call,) = bigger.bind_tools(FORCED, tool_choice=choice).invoke("Why?").tool_calls
            in_a_town(call["name"], call["args"])
        found = bigger.with_structured_output({"title": "reason", **SCHEMA}, method="function_calling").invoke("Why?")
        assert found["why"] in ("air", "sea")

    return {
        "chat": lambda: model.invoke([("system", "Be brief."), ("user", "Why?")]),
        "stream": lambda: list(model.stream("Why?")),
        "several turns": several_turns,
        "JSON schema": structured,
        "tools": tools,
        "tools, streamed": lambda: tools(streamed=True),
        "tools in responses": lambda: tools(use_responses_api=True),
        "forced call": forced,
    }


def sum_of(parts: Iterable[Any]) -> Any:
    """The message that the parts of a stream make together."""
    return functools.reduce(operator.add, parts)


def litellm_client() -> dict[str, Callable[[], object]]:
    import litellm

    asked: Any = {"model": f"openai/{MODEL}", "api_base": URL, "api_key": KEY, "messages": SAID, "max_tokens": 60}

    def several_turns() -> None:
        first = litellm.completion(**asked).choices[0].message
        talk = [*SAID, first.model_dump(), {"role": "user", "content": "And then?"}]
        assert litellm.completion(**{**asked, "messages": talk}).choices

    there: Any = {"model": f"openai/{MODEL}", "api_base": TOOLS_URL, "api_key": TOOLS_KEY}

    def tools() -> None:
        message = litellm.completion(**there, messages=CALLED, tools=TOOLS).choices[0].message
        (call,) = message.tool_calls
        of_oslo(call.function.name, call.function.arguments)
        gave = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
        last = litellm.completion(**there, messages=[*CALLED, message.model_dump(), gave], tools=TOOLS)
        assert last.choices[0].message.content == "tool: rain\n"

    def tools_streamed() -> None:
        parts = list(litellm.completion(**there, messages=CALLED, tools=TOOLS, stream=True))
        (call,) = litellm.stream_chunk_builder(parts).choices[0].message.tool_calls
        of_oslo(call.function.name, call.function.arguments)

    def tools_of_responses() -> None:
        answer = litellm.responses(**there, input=CALL, tools=[{"type": "function", **WEATHER}])
        (call,) = [each for each in answer.output if each.type == "function_call"]
        of_oslo(call.name, call.arguments)

    def forced() -> None:
        more: Any = {**asked, "max_tokens": 120, "tools": FORCED}
        for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
            (call,) = litellm.completion(**more, tool_choice=choice).choices[0].message.tool_calls
            in_a_town(call.function.name, call.function.arguments)

    return {
        "chat": lambda: litellm.completion(**asked, extra_body=SOUP),
        "stream": lambda: list(litellm.completion(**asked, stream=True)),
        "several turns": several_turns,
        "JSON schema": lambda: held(litellm.completion(**asked, response_format=FORMAT).choices[0].message.content),
        "tools": tools,
        "tools, streamed": tools_streamed,
        "tools in responses": tools_of_responses,
        "forced call": forced,
    }


CLIENTS = {"openai": openai_client, "llm": llm_client, "langchain-openai": langchain_client, "litellm": litellm_client}


def outcome(work: Callable[[], object]) -> str:
    try:
        work()
    except Exception as error:  # noqa: BLE001  # whatever a client raises
        return f"{type(error).__name__}: {error}"[:300]
    return ""


if __name__ == "__main__":
    print(
        json.dumps(
            {
                f"{name} {version(name)}": {what: outcome(work) for what, work in make().items()}
                for name, make in CLIENTS.items()
            }
        )
    )
