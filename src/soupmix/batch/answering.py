"""From answers to OpenAI's output lines. Nothing in them depends on when or how often a batch was started."""

from hashlib import sha256
from typing import Any, Final

from soupmix.batch.desk import Defaults
from soupmix.batch.result import Answered, Result
from soupmix.errors import SoupmixError
from soupmix.openai.answers import SoupAnswer
from soupmix.openai.errors import error_body, status_of
from soupmix.openai.forms import ChatForm, CompletionForm, Form, usage
from soupmix.openai.wire import ChatAsk

__all__ = ["CREATED", "record"]

CREATED: Final = 0
"""The time of every answer, 1970: the same batch gives the same bytes whenever it runs."""


def record(result: Result, batch: str, defaults: Defaults, *, signed: bool) -> dict[str, Any]:
    """The output line of a result.

    Args:
        batch: digest of input and settings; with the line's number it makes the ids.
        signed: whether the policy came with good signatures.
    """
    name = sha256(f"{batch} {result.line.number}".encode()).hexdigest()[:24]
    error = result.outcome if isinstance(result.outcome, SoupmixError) else None
    if isinstance(result.outcome, Answered):
        status, body = 200, _body(result.outcome, name, defaults, signed=signed)
    else:
        status = status_of(result.outcome)
        body = error_body(str(result.outcome), status, result.outcome.reason)
    return {
        "id": f"batch_req_{name}",
        "custom_id": result.line.custom_id,
        "response": {"status_code": status, "request_id": f"req_{name}", "body": body},
        "error": None if error is None else {"code": error.reason, "message": str(error)},
    }


def _body(answered: Answered, name: str, defaults: Defaults, *, signed: bool) -> dict[str, Any]:
    """The answer as the server would give it, but for the count of cached tokens: what was cached depends on the run."""
    begun, made = answered.begun, answered.made
    form: Form = ChatForm() if isinstance(begun.ask, ChatAsk) else CompletionForm()
    soup = SoupAnswer.of(begun.grant, profile=None, signed=signed, method=defaults.method, merge=begun.merge)
    return {
        "id": f"{form.prefix}-{name}",
        "object": form.whole,
        "created": CREATED,
        "model": defaults.model,
        "choices": [form.choice(number, each) for number, each in enumerate(made)],
        "usage": usage(made).model_dump(mode="json", exclude={"prompt_tokens_details"}),
        "soup": soup.model_dump(mode="json"),
    }
