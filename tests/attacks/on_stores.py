"""Attacks on a store: its manifest, and the blobs that it names."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from soupmix.errors import AdapterError, PolicyError
from soupmix.files import canonical_json, sha256_file
from soupmix.policy.inventory import check_inventory, inventory
from soupmix.store import Manifest, ManifestEntry, Store, write_manifest
from soupmix.store.beside import named_base
from soupmix.store.manifest import MANIFEST, Gram
from soupmix.store.places import BLOBS, blob_path
from tests.attacks.attack import Attack
from tests.support.adapter_folder import CONFIG, TENSORS, adapter, encode, item, sound

__all__ = ["ATTACKS", "store"]

_BASE = "sha256:" + "0" * 64


def store(where: Path) -> Path:
    """A sound store of two adapters, "expert" and "friendly"."""
    entries = {}
    for name, value in (("expert", 0.01), ("friendly", 0.02)):
        folder = adapter(
            where / name, tensors=encode({key: item(shape, value) for key, (_, shape, _) in sound().items()})
        )
        entries[name] = ManifestEntry(
            name=name, dimension="style", pole=name, rank=2, alpha=4.0, scaling="lora", target_modules=("q_proj",),
            config_sha256=sha256_file(folder / CONFIG), tensors_sha256=sha256_file(folder / TENSORS),
            base="tiny", base_digest=_BASE, licence="apache-2.0", delta_norm=1.0,
        )  # fmt: skip
        (where / "store" / BLOBS).mkdir(parents=True, exist_ok=True)
        folder.rename(blob_path(where / "store", entries[name].digest))
    write_manifest(where / "store", Manifest(adapters=entries, gram=Gram(total=(1.0, 0.0, 1.0))))
    return where / "store"


def _manifest(name: str, tries: str, reason: str, spoil: Callable[[Path], object]) -> Attack:
    """Spoil the manifest file, then open the store."""

    def run(where: Path) -> None:
        folder = store(where)
        spoil(folder / MANIFEST)
        Store(folder)

    return Attack(name, tries, run, AdapterError, reason)


def _edit(name: str, tries: str, edit: Callable[[dict[str, Any]], object]) -> Attack:
    def spoil(path: Path) -> None:
        content = json.loads(path.read_bytes())
        edit(content)
        path.write_text(json.dumps(content))

    return _manifest(name, tries, "bad-manifest", spoil)


def _expert(name: str, tries: str, /, **fields: Any) -> Attack:
    return _edit(name, tries, lambda content: content["adapters"]["expert"].update(fields))


def _blob(name: str, tries: str, reason: str, spoil: Callable[[Store], object]) -> Attack:
    """Spoil a blob behind the back of an open store, then load it as approved."""

    def run(where: Path) -> None:
        opened = Store(store(where))
        approved = opened["expert"].digest
        spoil(opened)
        Store(opened.folder).load("expert", approved)

    return Attack(name, tries, run, AdapterError, reason)


def _twice(path: Path) -> None:
    path.write_text(path.read_text().replace('"adapters": {', '"adapters": {"expert": {}, ', 1))


def _instead(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        path.unlink()
        make(path)

    return spoil


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)


def _exchange_files(opened: Store) -> None:
    one, other = opened.path("expert"), opened.path("friendly")
    one.rename(opened.folder / "x")
    other.rename(one)
    (opened.folder / "x").rename(other)


def _exchange_digests(opened: Store) -> None:
    path = opened.folder / MANIFEST
    content = json.loads(path.read_bytes())
    one, other = content["adapters"]["expert"], content["adapters"]["friendly"]
    one["tensors_sha256"], other["tensors_sha256"] = other["tensors_sha256"], one["tensors_sha256"]
    path.write_text(json.dumps(content))


def _signed(name: str, tries: str, edit: Callable[[dict[str, Any]], object]) -> Attack:
    """Edit the manifest behind a signature over what it said, then hold the store to that."""

    def run(where: Path) -> None:
        opened = Store(store(where))
        signed, path = canonical_json(inventory(opened)), opened.folder / MANIFEST
        content = json.loads(path.read_bytes())
        edit(content)
        path.write_text(json.dumps(content))
        check_inventory(signed, "the signed set", Store(opened.folder))

    return Attack(name, tries, run, PolicyError, "store-changed")


def _move_blob(opened: Store) -> None:
    opened.path("expert").rename(opened.folder.parent / "elsewhere")
    opened.path("expert").symlink_to(opened.folder.parent / "elsewhere")


def _linked_blobs(where: Path) -> None:
    folder = store(where)
    (folder / BLOBS).rename(where / "elsewhere")
    (folder / BLOBS).symlink_to(where / "elsewhere")
    Store(folder).set_total_budget(1)


def _named(name: str, tries: str, reason: str, said: object) -> Attack:
    """An adapter whose own config says which base is looked up, where nobody gave one."""

    def run(where: Path) -> None:
        (where / "adapter").mkdir()
        config = {"peft_type": "LORA", "base_model_name_or_path": said}
        (where / "adapter" / CONFIG).write_text(json.dumps(config))
        named_base(where / "adapter")

    return Attack(name, tries, run, AdapterError, reason)


ATTACKS = (
    _named("base-named-nowhere", "look up what is not there", "no-base", "/proc/self/no-such/model"),
    _named("base-named-null-byte", "end a path early", "no-base", "model\0/../../etc"),
    _named("base-named-address", "fetch from anywhere", "no-base", "https://evil.example/model"),
    _named("base-named-options", "pass for an option", "no-base", "--base=/etc"),
    _named("base-named-list", "several bases for one adapter", "no-base", ["org/one", "org/other"]),
    _named("base-named-megabyte", "fill every message", "no-base", "x" * (1 << 20)),
    _manifest("no-manifest", "guess what a folder holds", "no-manifest", Path.unlink),
    _manifest("manifest-fifo", "wait for a writer for ever", "not-a-file", _instead(os.mkfifo)),
    _manifest(
        "manifest-link",
        "read another store's manifest",
        "symlink",
        _instead(lambda path: path.symlink_to("/etc/passwd")),
    ),
    _manifest("manifest-of-17-megabytes", "parse without end", "too-large", lambda path: os.truncate(path, 17 << 20)),
    _manifest("manifest-empty", "index behind the end", "bad-manifest", lambda path: path.write_bytes(b"")),
    _manifest("manifest-as-list", "an attribute of a list", "bad-manifest", lambda path: path.write_bytes(b"[]")),
    _manifest("manifest-deep", "overflow the stack", "bad-manifest", lambda path: path.write_bytes(b"[" * 1_000_000)),
    _manifest(
        "manifest-of-lists",
        "2 MB that become 100",
        "bad-manifest",
        lambda path: path.write_bytes(b"[" + b"[]," * 700_000 + b"[]]"),
    ),
    _manifest(
        "manifest-in-utf-16",
        "another reading than other tools'",
        "bad-manifest",
        lambda path: path.write_bytes(path.read_text().encode("utf-16")),
    ),
    _manifest("manifest-duplicate-name", "one name, two adapters", "bad-manifest", _twice),
    _edit("manifest-of-tomorrow", "a schema that is guessed at", lambda content: content.update(schema_version=2)),
    _edit("manifest-unknown-field", "a field that is ignored", lambda content: content.update(trusted=True)),
    _edit(
        "manifest-path-as-name",
        "leave the folder",
        lambda content: content["adapters"].update({"../x": content["adapters"]["expert"] | {"name": "../x"}}),
    ),
    _edit(
        "manifest-name-twin",
        "look like a name it is not",
        lambda content: content["adapters"].update(
            {"exp\u0435rt": content["adapters"]["expert"] | {"name": "exp\u0435rt"}}
        ),
    ),
    _edit(
        "manifest-digest-twin",
        "one adapter, two names: 1 + 0.3 where 0.3 is the most",
        lambda content: (
            content["adapters"].update(twin=content["adapters"]["expert"] | {"name": "twin"}),
            content["gram"].update(total="1 0 1 1 0 1"),
        ),
    ),
    _edit("manifest-gram-short", "index behind the end", lambda content: content["gram"].update(total="1 0")),
    _edit("manifest-gram-nan", "a norm that bounds nothing", lambda content: content["gram"].update(total="1 nan 1")),
    _edit(
        "manifest-gram-infinite",
        "a norm that bounds nothing",
        lambda content: content["gram"].update(total="1 1e999 1"),
    ),
    _edit(
        "manifest-gram-underscore", "a number float() takes", lambda content: content["gram"].update(total="1 1_0 1")
    ),
    _edit(
        "manifest-gram-full-width", "a digit float() takes", lambda content: content["gram"].update(total="1 \uff11 1")
    ),
    _edit(
        "manifest-gram-of-a-module", "index behind the end", lambda content: content["gram"]["modules"].update(x="1")
    ),
    _edit("manifest-budget-below-zero", "a sum that is never reached", lambda content: content.update(total_budget=-1)),
    _edit("manifest-budget-fraction", "past whole millionths", lambda content: content.update(total_budget=1.5)),
    _signed(
        "manifest-dimension-edited",
        "a dimension that no rule bounds, under a signed policy",
        lambda content: content["adapters"]["expert"].update(dimension="other"),
    ),
    _signed(
        "manifest-pole-edited",
        "a pole that no rule denies, under a signed policy",
        lambda content: content["adapters"]["expert"].update(pole="other"),
    ),
    _signed(
        "manifest-tags-edited",
        "a tag that no rule denies, under a signed policy",
        lambda content: content["adapters"]["expert"].update(tags=["mild"]),
    ),
    _signed(
        "manifest-gram-shrunk",
        "a bound on the norm that is never reached, under a signed policy",
        lambda content: content["gram"].update(total="0.000001 0 0.000001"),
    ),
    _signed(
        "manifest-base-norm-raised",
        "a bound on the norm that is never reached, under a signed policy",
        lambda content: content.update(base_norm=1e9),
    ),
    _signed(
        "manifest-budget-lifted",
        "a sum without a bound, under a signed policy",
        lambda content: content.update(total_budget=10**9),
    ),
    _expert("entry-other-name", "one adapter under another's name", name="friendly"),
    _expert("entry-mixed-bases", "merge what does not fit", base_digest="sha256:" + "1" * 64),
    _expert("entry-rank-true", "true is 1", rank=True),
    _expert("entry-digest-as-path", "leave the folder through a digest", tensors_sha256="../../../../etc/passwd"),
    _expert("entry-digest-upper-case", "one digest in two spellings", tensors_sha256="A" * 64),
    _expert("entry-digest-newline", "a pattern that ends at a line", tensors_sha256="a" * 64 + "\n"),
    _expert("entry-licence-lines", "forge a section of a card", licence="mit\n# Approved"),
    _expert("entry-licence-table", "forge a cell of a card", licence="mit | 1.0"),
    _expert("entry-licence-megabyte", "fill every card", licence="x" * (1 << 20)),
    _expert("entry-base-terminal", "write to the terminal", base="\x1b[2J"),
    _expert("entry-norm-nan", "a norm that bounds nothing", delta_norm=float("nan")),
    _blob(
        "blob-missing",
        "crash a server later",
        "missing",
        lambda opened: opened.path("expert").rename(opened.folder / "x"),
    ),
    _blob(
        "blob-bit-flipped",
        "change one weight",
        "digest-mismatch",
        lambda opened: _flip(opened.path("expert") / TENSORS),
    ),
    _blob(
        "blob-config-flipped",
        "change the scaling",
        "digest-mismatch",
        lambda opened: _flip(opened.path("expert") / CONFIG),
    ),
    _blob(
        "blob-cut-off",
        "read behind the end",
        "digest-mismatch",
        lambda opened: os.truncate(opened.path("expert") / TENSORS, 100),
    ),
    _blob("blobs-exchanged", "another sound adapter in its place", "digest-mismatch", _exchange_files),
    _blob("digests-exchanged", "the approved name, another adapter", "digest-mismatch", _exchange_digests),
    _blob("blob-link", "swap the blob by moving a link", "symlink", _move_blob),
    _blob(
        "blob-with-pickle",
        "code that another loader would run",
        "pickle",
        lambda opened: (opened.path("expert") / "x.bin").touch(),
    ),
    Attack("linked-blobs", "let a writer sweep another folder", _linked_blobs, AdapterError, "symlink"),
)
