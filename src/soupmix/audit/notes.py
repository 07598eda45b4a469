"""Checkpoints: where a log stood, as a signed note that an outsider can keep.

    soupmix.audit/<id of the log>          origin
    <number of records>
    <root of the RFC 6962 tree, base64>
    last <hash of the last record, base64>
    frontier <roots of the complete subtrees, base64> ...

    — <name of the key> <base64 of 4 bytes that tell keys apart, and the Ed25519 signature>

The form is that of C2SP's signed-note and tlog-checkpoint; the lines `last` and `frontier` let a log go on from here
without reading everything before. Signing and checking need the extra `audit` (cryptography), the rest does not.
"""

import binascii
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from soupmix.audit.merkle import Tree
from soupmix.audit.records import Chain
from soupmix.errors import AuditError

if TYPE_CHECKING:
    from soupmix.audit.keys import Signer

__all__ = ["Checkpoint"]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a log stood.

    Attributes:
        origin: which log. size: number of records. root: of their tree. last: leaf hash of the last record.
        frontier: roots of the complete subtrees, largest first.
        signatures: name of the key -> 4 bytes that tell keys apart, and the signature.
    """

    origin: str
    size: int
    root: bytes
    last: bytes
    frontier: tuple[bytes, ...]
    signatures: Mapping[str, bytes]

    @classmethod
    def of(cls, origin: str, chain: Chain) -> "Checkpoint":
        """Where a chain stands, not signed."""
        return cls(origin, chain.tree.size, chain.tree.root(), chain.last, tuple(chain.tree.frontier), {})

    def signed(self, signer: "Signer") -> "Checkpoint":
        """The same, signed."""
        return replace(self, signatures={**self.signatures, self.origin: signer.sign(self.origin, self.body())})

    def chain(self) -> Chain:
        """A chain that stands where this checkpoint does."""
        made = Chain(self.origin)
        made.tree, made.last = Tree(self.size, self.frontier), self.last
        return made

    def body(self) -> bytes:
        """What is signed: every line before the empty one."""
        frontier = " ".join(["frontier", *map(_text, self.frontier)])
        return "\n".join(
            [self.origin, str(self.size), _text(self.root), f"last {_text(self.last)}", frontier, ""]
        ).encode()

    def text(self) -> str:
        """The whole note."""
        return (
            self.body().decode() + "\n" + "".join(f"— {name} {_text(raw)}\n" for name, raw in self.signatures.items())
        )

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """The checkpoint of a note.

        Raises:
            AuditError: this is none, or it contradicts itself (reason "bad-checkpoint").
        """
        try:
            body, signatures = text.split("\n\n", 1)
            origin, size, root, last, frontier = body.split("\n")
            made = cls(
                origin,
                int(size),
                _bytes(root),
                _bytes(last.removeprefix("last ")),
                tuple(map(_bytes, frontier.split(" ")[1:])),
                dict(_signature(line) for line in signatures.splitlines()),
            )
            if made.chain().tree.root() != made.root or made.text() != text:
                raise ValueError("it contradicts itself")
        except (ValueError, binascii.Error) as error:
            raise AuditError(f"this is no checkpoint of an audit log: {error}", reason="bad-checkpoint") from None
        return made


def _signature(line: str) -> tuple[str, bytes]:
    dash, name, raw = line.split(" ")
    if dash != "—":
        raise ValueError("a signature starts with a dash")
    return name, _bytes(raw)


def _text(raw: bytes) -> str:
    return b64encode(raw).decode("ascii")


def _bytes(text: str) -> bytes:
    return b64decode(text, validate=True)
