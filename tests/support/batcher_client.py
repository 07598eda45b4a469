"""Ask a batcher from a test: submit everything, wait for everything."""

import queue
from collections.abc import Sequence
from dataclasses import dataclass

from soupmix.backends import Delta, Request, Ticket
from soupmix.batching import Batcher


@dataclass
class Pending:
    """A request on its way; `deltas` is filled by the batcher's thread."""

    ticket: Ticket
    deltas: "queue.Queue[Delta]"

    def wait(self) -> list[Delta]:
        found = [self.deltas.get(timeout=60)]
        while found[-1].finish is None:
            found.append(self.deltas.get(timeout=60))
        return found


def ask(batcher: Batcher, request: Request) -> Pending:
    deltas: queue.Queue[Delta] = queue.Queue()
    return Pending(batcher.submit(request, deltas.put), deltas)


def answer(batcher: Batcher, requests: Sequence[Request]) -> list[str]:
    """The texts of all answers, made together."""
    pending = [ask(batcher, request) for request in requests]
    return ["".join(delta.text for delta in each.wait()) for each in pending]
