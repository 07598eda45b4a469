"""A GGUF file without its folder: what it says of itself, and whether the merge that it records gives this very file.

Who made it is not shown: nobody signs a lone file. What it says is believed only as far as the merge repeats it, from adapters
and a base whose digests are checked.
"""

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn, cast

from soupmix.base import Base, base_of, resolve
from soupmix.errors import AdapterError, BaseModelError, OutputError, RecipeError, WeightError
from soupmix.files import sha256_file, strict_json, told
from soupmix.findings import Finding
from soupmix.merge.export import SigningKeys, produce, with_plain_base
from soupmix.merge.fold import Work
from soupmix.merge.gguf_lora import FILE
from soupmix.merge.gguf_model import MODEL_FILE
from soupmix.merge.gguf_record import PREFIX
from soupmix.merge.result import BASE_FILES, Export, Kind, Result
from soupmix.merge.sink import Sink
from soupmix.merge.soup import mix
from soupmix.methods import options_of
from soupmix.policy.recorded import RecordedGrant, read_record
from soupmix.store.store import Store

__all__ = ["check_lone"]

_FILES: Final = {"gguf-lora": FILE, "gguf": MODEL_FILE}
_SIZES: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY = 8, 9
_MOST_FIELDS, _MOST_BYTES, _MOST_ITEMS = 4096, 16 << 20, 1 << 22


def check_lone(
    path: Path, store: str | Path | None, base: str | Path | None
) -> tuple[RecordedGrant, tuple[Finding, ...]]:
    """The grant in a GGUF file of ours, and what is wrong with the file, by making it again; it is written nowhere.

    Args:
        store: where its adapters are; those that are shipped if not given. base: where the base is, if not where it was last
            seen.

    Returns:
        Findings of the kinds "adapter-changed", "base-changed", "rebuild-differs" and "output-changed".

    Raises:
        RecipeError: it holds no record of soupmix ("no-record"), or a damaged one ("bad-record").
    """
    said = _record(path)
    return said["grant"], tuple(_found(path, said, Store.shipped() if store is None else Store(store), base))


def _found(path: Path, said: Mapping[str, Any], store: Store, base: str | Path | None) -> Iterator[Finding]:
    changed = tuple(_changed(store, said["grant"]))
    yield from changed
    if changed:
        return
    try:
        yield from _again(path, said, store, base)
    except BaseModelError as error:
        yield Finding("base-changed", "base", str(error))
    except (RecipeError, OutputError) as error:
        yield Finding("rebuild-differs", path.name, f"the recorded merge cannot be repeated: {error}")


def _changed(store: Store, grant: RecordedGrant) -> Iterator[Finding]:
    for name, digest in sorted(grant.digests.items()):
        try:
            store.load(name, digest)
        except (AdapterError, WeightError) as error:
            yield Finding("adapter-changed", name, str(error))


def _again(path: Path, said: Mapping[str, Any], store: Store, where: str | Path | None) -> Iterator[Finding]:
    export, grant, inputs = said["export"], said["grant"], said["inputs"]
    base = _base(store, grant, inputs, where)
    for name, now in (("base", base.digest), (BASE_FILES, base.files_digest())):
        if inputs.get(name) != now:
            yield Finding("base-changed", base.name, f"{name} is {now}, the file was made with {inputs.get(name)}")
            return
    options = options_of(said["method"], said["options"])
    made, sink = mix(store, grant, said["method"], options), Sink(None)
    files = base.files_digest()
    result = Result(grant, said["method"], made.ingredients, export, base, files, made.warnings, options=options)
    produce(with_plain_base(result, fresh=True), made.modules, sink, SigningKeys(), Work())
    if result.identity != said["identity"]:
        yield Finding("rebuild-differs", path.name, f"its merge identity is {result.identity}, not {said['identity']}")
    elif sink.digests[_FILES[export.kind]] != f"sha256:{sha256_file(path)}":
        yield Finding("output-changed", path.name, f"{path.name} is not the file that the recorded merge gives")


def _base(store: Store, grant: RecordedGrant, inputs: Mapping[str, str], where: str | Path | None) -> Base:
    if where is not None:
        return resolve(where, fresh=True)
    labels = [store[name].base for name in grant.digests] or [each.base for each in store]
    return base_of(labels[0] if labels else "", inputs.get("base", ""))


def _record(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            found = dict(_strings(file))
        said = {name: strict_json(found[PREFIX + name]) for name in ("grant", "inputs", "options", "export")}
        export = said["export"]
        if export["as"] not in _FILES or not all(
            isinstance(item, str) for pair in said["inputs"].items() for item in pair
        ):
            _damaged("it says of no export, or of no inputs")
        kind = cast(Kind, export["as"])
        said["export"] = Export(kind, "", None, export["rank"], export["dtype"], dequantise=export["dequantise"])
        said["grant"] = read_record(said["grant"])
        return {**said, "method": found[f"{PREFIX}method"], "identity": found[f"{PREFIX}identity"]}
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror}", reason="no-record") from None
    except KeyError as error:
        raise RecipeError(f"{path} holds no record of soupmix ({error})", reason="no-record") from None
    except (ValueError, TypeError, AttributeError, RecursionError, struct.error) as error:
        raise RecipeError(f"{path} is damaged: {told(error)}", reason="bad-record") from None


def _strings(file: BinaryIO) -> Iterator[tuple[str, str]]:
    """The fields of a GGUF file that are ours; others are passed over."""
    magic, version, _, count = struct.unpack("<4sIQQ", file.read(24))
    if magic != b"GGUF" or version not in (2, 3) or count > _MOST_FIELDS:
        _damaged("it is no GGUF file")
    for _ in range(count):
        name = _text(file)
        kind = _number(file, "<I", 4)
        if name.startswith(PREFIX) and kind == _STRING:
            yield name, _text(file)
        else:
            _pass(file, kind)


def _pass(file: BinaryIO, kind: int, depth: int = 0) -> None:
    if kind == _STRING:
        file.seek(_length(file, _MOST_BYTES), 1)
    elif kind == _ARRAY and depth < 1:
        inner, count = _number(file, "<I", 4), _length(file, _MOST_ITEMS)
        if inner in _SIZES:
            file.seek(count * _SIZES[inner], 1)
            return
        for _ in range(count):
            _pass(file, inner, depth + 1)
    elif kind in _SIZES:
        file.seek(_SIZES[kind], 1)
    else:
        _damaged(f"it has a field of kind {kind}")


def _text(file: BinaryIO) -> str:
    length = _length(file, _MOST_BYTES)
    data = file.read(length)
    if len(data) < length:
        _damaged("it ends within a text")
    return data.decode()


def _length(file: BinaryIO, most: int) -> int:
    found = _number(file, "<Q", 8)
    return found if found <= most else _damaged(f"it has a field of {found} bytes or items")


def _number(file: BinaryIO, form: str, size: int) -> int:
    (found,) = struct.unpack(form, file.read(size))
    return int(found)


def _damaged(why: str) -> NoReturn:
    raise ValueError(why)
