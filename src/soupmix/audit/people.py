"""Who is who: a random key per person, in one file beside the log, so that a person can be forgotten.

The log knows a person as HMAC-SHA256(key of the person, user id). Whoever has the key file and a user id can find that
person's records; once the key is destroyed nobody can, and the log, which never held it, verifies as before.

The file is a sequence of slots of 64 bytes. The first holds a mark and a secret; every other one
HMAC-SHA256(secret, user id) and the person's key. A slot of zeros is a person who was erased.
"""

import hmac
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from soupmix.audit.appender import Appender, open_plain
from soupmix.errors import AuditError, OutputError

__all__ = ["FILE", "People", "pseudonym"]

FILE: Final = "people.keys"
_SLOT: Final = 64
_MARK: Final = b"soupmix audit people v1".ljust(32, b"\0")


class People:
    """The key file, open for writing. Not for several threads at once."""

    __slots__ = ("_file", "_keys", "_places", "_secret")

    def __init__(self, folder: Path) -> None:
        """Open the key file of a log, or make one; a slot that a crash cut short is dropped.

        Raises:
            AuditError: this is no key file (reason "bad-keys"). OutputError: the disk refuses.
        """
        self._file = Appender(folder / FILE, mode=0o600)
        try:
            if self._file.size % _SLOT:
                self._file.cut(self._file.size - self._file.size % _SLOT)
            if not self._file.size:
                self._file.append(_MARK + secrets.token_bytes(32))
            self._secret, found = _read(self._file.path)
        except BaseException:
            self._file.close()
            raise
        self._places = {index: place for index, (place, _) in found.items()}
        self._keys = {index: key for index, (_, key) in found.items()}

    def names(self, people: Iterable[str | None]) -> list[str | None]:
        """The name of each person in the log; whoever is new gets a key, which is on the disk before this returns."""
        wanted = [None if person is None else (_index(self._secret, person), person) for person in people]
        new = {each[0]: secrets.token_bytes(32) for each in wanted if each and each[0] not in self._keys}
        if new:
            start = self._file.size
            self._file.append(b"".join(index + key for index, key in new.items()))
            self._keys |= new
            self._places |= {index: start + _SLOT * place for place, index in enumerate(new)}
        return [each and _name(self._keys[each[0]], each[1]) for each in wanted]

    def known(self, person: str) -> bool:
        """Whether this person has a key."""
        return _index(self._secret, person) in self._keys

    def erase(self, person: str) -> None:
        """Overwrite a person's slot with zeros, and wait until the disk has them. Raises `OutputError`."""
        index = _index(self._secret, person)
        self._file.overwrite(self._places[index], bytes(_SLOT))
        del self._keys[index], self._places[index]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def pseudonym(folder: Path, person: str) -> str | None:
    """The name that a person has in a log, or None if there is no key for that person. Reads only.

    Raises:
        AuditError: the key file is damaged (reason "bad-keys"). OutputError: it cannot be read.
    """
    secret, found = _read(folder / FILE)
    place = found.get(_index(secret, person))
    return place and _name(place[1], person)


def _read(path: Path) -> tuple[bytes, dict[bytes, tuple[int, bytes]]]:
    """The secret, and index -> (offset, key)."""
    try:
        with os.fdopen(open_plain(path, os.O_RDONLY), "rb") as file:
            data = file.read()
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror or error}", reason="read-failed") from None
    if data[:32] != _MARK or len(data) < _SLOT:
        raise AuditError(f"{path} is no key file of an audit log", reason="bad-keys")
    found = {}
    for place in range(_SLOT, len(data) - _SLOT + 1, _SLOT):
        slot = data[place : place + _SLOT]
        if any(slot):
            found[slot[:32]] = (place, slot[32:])
    return data[32:_SLOT], found


def _index(secret: bytes, person: str) -> bytes:
    return hmac.digest(secret, _bytes(person), "sha256")


def _name(key: bytes, person: str) -> str:
    return hmac.digest(key, _bytes(person), "sha256").hex()


def _bytes(person: str) -> bytes:
    return person.encode("utf-8", "surrogatepass")
