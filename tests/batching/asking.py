"""Ask a batcher from a test: submit everything, wait for everything."""

import queue
from collections.abc import Sequence
from dataclasses import dataclass

from soupmix.batching import Batcher, Piece, Request, Ticket


@dataclass
class Pending:
    """A request on its way; `pieces` is filled by the batcher's thread."""

    ticket: Ticket
    pieces: "queue.Queue[Piece]"

    def wait(self) -> list[Piece]:
        found = [self.pieces.get(timeout=60)]
        while found[-1].finish is None:
            found.append(self.pieces.get(timeout=60))
        return found


def ask(batcher: Batcher, request: Request) -> Pending:
    pieces: queue.Queue[Piece] = queue.Queue()
    return Pending(batcher.submit(request, pieces.put), pieces)


def answer(batcher: Batcher, requests: Sequence[Request]) -> list[str]:
    """The texts of all answers, made together."""
    pending = [ask(batcher, request) for request in requests]
    return ["".join(piece.text for piece in each.wait()) for each in pending]
