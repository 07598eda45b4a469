"""Is a result what its own record says it is? Digests of every file, then the merge again, compared byte for byte.

What this does not show without a key: who made the folder. Whoever can rewrite all of it can rewrite its digests and an
unsigned provenance; and repeating the merge trusts the store and the base that it is given, whose digests are checked
against the record.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from soupmix.base import Base, resolve
from soupmix.base.companions import CONFIG
from soupmix.errors import AdapterError, BaseModelError, FileError, OutputError, RecipeError, WeightError
from soupmix.files import sha256_file, strict_json, told
from soupmix.findings import Finding, Verdict
from soupmix.merge.export import SigningKeys, produce, with_plain_base
from soupmix.merge.fold import Work
from soupmix.merge.provenance import (
    PROVENANCE,
    check_model_signature,
    check_provenance,
    check_signature,
    read_provenance,
)
from soupmix.merge.recipe import Recipe, read_recipe
from soupmix.merge.record import DIGESTS, GRANT, RECIPE, REPORT
from soupmix.merge.result import BASE_FILES, Result
from soupmix.merge.sink import Sink
from soupmix.merge.soup import mix
from soupmix.methods import options_of
from soupmix.policy.recorded import DocumentRef, RecordedGrant, read_record
from soupmix.public import public
from soupmix.sealed import read_sealed
from soupmix.store.store import Store
from soupmix.trust.dsse import MODEL_SIGNATURE, Envelope
from soupmix.version import __version__

__all__ = ["ResultVerdict", "verify"]

_MAX_RECORD = 4 << 20
_PROSE = {"README.md", RECIPE, REPORT, DIGESTS, PROVENANCE}
"""Files whose wording belongs to a version of soupmix; another version compares the others."""


@public
@dataclass(frozen=True, slots=True, repr=False)
class ResultVerdict(Verdict):
    """What was found out about a folder; with no findings it is as recorded.

    Attributes:
        folder: which folder.
        files: how many files were checked.
        rebuilt: whether the merge was repeated.
        signed: whether the provenance is signed by the key that was given; None if none was given.
        policies: the policy documents that it says it was granted under, none of an open policy; None where the record does
            not say, or was changed.
        notes: what the record cannot vouch for.
    """

    folder: Path
    files: int
    rebuilt: bool
    signed: bool | None
    policies: tuple[DocumentRef, ...] | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        findings = [{"kind": each.kind, "subject": each.subject, "message": each.message} for each in self.findings]
        return {
            "ok": self.ok,
            "files": self.files,
            "rebuilt": self.rebuilt,
            "signed": self.signed,
            "policies": None if self.policies is None else [asdict(each) for each in self.policies],
            "findings": findings,
            "notes": list(self.notes),
        }


def verify(
    folder: str | Path,
    *,
    rebuild: bool = True,
    store: str | Path | None = None,
    base: str | Path | None = None,
    key: str | Path | None = None,
) -> ResultVerdict:
    """Check a folder that `save_adapter`, `save_model`, `save_gguf_lora` or `save_gguf` wrote.

    Args:
        folder: the result; or a GGUF file of one alone, which is only made again and compared.
        rebuild: also repeat the merge from the recorded recipe and grant, writing nothing, and compare every digest.
            Bytes repeat on one build of torch and one kind of processor; elsewhere the last bits may differ.
        store: where the adapters are now, if not where the recipe says.
        base: where the base is now, if not where the recipe says.
        key: a public key file; the provenance must be signed by it.

    Returns:
        Findings of the kinds "output-changed", "output-missing", "output-unknown", "provenance-differs",
        "signature-missing", "signature-wrong", "signature-differs", "adapter-changed", "base-changed" and
        "rebuild-differs"; each subject is a file, an adapter or the base.

    Raises:
        RecipeError: the folder holds no record of soupmix, or a damaged one; or `key` is no key.
    """
    folder = Path(folder)
    if folder.suffix.lower() == ".gguf" and not folder.is_dir():
        return _lone(folder, rebuild=rebuild, store=store, base=base, key=key)
    recorded, envelope = _recorded(folder), read_provenance(folder)
    findings = list(_changed_files(folder, recorded["outputs"]))
    intact = not any(finding.subject in (RECIPE, GRANT) for finding in findings)
    grant = _grant(folder / GRANT) if intact else None
    findings += check_provenance(envelope, _written(folder, recorded), grant)
    findings += check_model_signature(folder)
    signed = None if key is None else _check_key(envelope, key, findings)
    if rebuild and grant is not None:
        findings += _rebuild(folder, recorded, envelope, grant, (store, base))
    return ResultVerdict(
        folder,
        len(recorded["outputs"]),
        rebuild,
        signed,
        policies=None if grant is None else grant.policies,
        notes=tuple(_notes(folder, recorded)),
        findings=tuple(findings),
    )


def _lone(
    path: Path, *, rebuild: bool, store: str | Path | None, base: str | Path | None, key: str | Path | None
) -> ResultVerdict:
    from soupmix.merge.lone import check_lone

    if not rebuild or key is not None:
        raise RecipeError(
            f"{path} is one file of a result, which has no digests and no signature beside it: verify the folder, or the file "
            "alone by repeating its merge",
            reason="lone-file",
        )
    said = "who made this file is not shown: nobody signs a GGUF file without its folder"
    grant, findings = check_lone(path, store, base)
    return ResultVerdict(path, 1, True, None, grant.policies, (said,), findings=findings)


def _notes(folder: Path, recorded: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    if (folder / CONFIG).exists() and BASE_FILES not in recorded["inputs"]:
        yield (
            "this result was made before soupmix recorded the files of a base beside its weights: that they are still "
            "those it was made with shows only as far as they were copied into it"
        )


def _check_key(envelope: Envelope | None, key: str | Path, findings: list[Finding]) -> bool:
    from soupmix.trust import read_public

    found = list(check_signature(envelope, read_public(key)))
    findings += found
    return not found


def _recorded(folder: Path) -> Mapping[str, Mapping[str, str]]:
    path = folder / DIGESTS
    try:
        recorded = strict_json(read_sealed(path, cap=_MAX_RECORD)[0])
        tables = [recorded["inputs"], recorded["outputs"]]
        if not all(isinstance(item, str) for table in tables for pair in table.items() for item in pair):
            raise TypeError("digests must be text")
        if any(Path(name).name != name for name in recorded["outputs"]):
            raise ValueError("a file name leaves the folder")
    except FileError as error:
        raise RecipeError(f"{folder} is no result of soupmix: {error}", reason="no-record") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RecipeError(f"{path} is damaged: {told(error)}", reason="bad-record") from None
    return {"inputs": recorded["inputs"], "outputs": recorded["outputs"]}


def _changed_files(folder: Path, outputs: Mapping[str, str]) -> Iterator[Finding]:
    for name, digest in sorted(outputs.items()):
        path = folder / name
        if path.is_symlink() or not path.is_file():
            yield Finding("output-missing", name, f"{name} was written and is no longer there as a file")
        elif f"sha256:{sha256_file(path)}" != digest:
            yield Finding("output-changed", name, f"{name} is not the file that was written")
    present = {path.name for path in folder.iterdir()} - {DIGESTS, PROVENANCE, MODEL_SIGNATURE}
    for name in sorted(present - set(outputs)):
        yield Finding("output-unknown", name, f"{name} was not written by soupmix")


def _written(folder: Path, recorded: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    return {**recorded["outputs"], DIGESTS: f"sha256:{sha256_file(folder / DIGESTS)}"}


def _rebuild(
    folder: Path,
    recorded: Mapping[str, Mapping[str, str]],
    envelope: Envelope | None,
    grant: RecordedGrant,
    places: tuple[str | Path | None, str | Path | None],
) -> Iterator[Finding]:
    recipe, (store, base) = read_recipe(folder / RECIPE), places
    try:
        opened = _open_store(recipe, store)
        yield from (changed := list(_changed_adapters(opened, grant)))
        found = _resolve(recipe, base)
    except AdapterError as error:
        yield Finding("adapter-changed", "store", str(error))
        return
    except BaseModelError as error:
        yield Finding("base-changed", "base", str(error))
        return
    if found is not None and found.digest != recorded["inputs"].get("base"):
        message = f"base {found.name} is {found.digest}, the result was made with {recorded['inputs'].get('base')}"
        yield Finding("base-changed", found.name, message)
        return
    files = recorded["inputs"].get(BASE_FILES)
    if found is not None and files not in (None, now := found.files_digest()):
        message = f"config, tokenizer or template of base {found.name} are {now}, the result was made with {files}"
        yield Finding("base-changed", found.name, message)
        return
    if not changed:
        written = _written(folder, recorded)
        if envelope is not None:  # signatures need a key, so what is compared is what they are over
            written[PROVENANCE] = f"sha256:{sha256(envelope.unsigned().to_bytes()).hexdigest()}"
        yield from _compare(written, recipe, _repeated(folder, recipe, opened, grant, found, files))


def _grant(path: Path) -> RecordedGrant:
    try:
        return read_record(strict_json(read_sealed(path, cap=_MAX_RECORD)[0]))
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror}", reason="bad-record") from None
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{path} is damaged: {told(error)}", reason="bad-record") from None


def _open_store(recipe: Recipe, store: str | Path | None) -> Store:
    if store is None and recipe.store == "shipped":
        return Store.shipped()
    return Store(recipe.store if store is None else store)


def _resolve(recipe: Recipe, base: str | Path | None) -> Base | None:
    if recipe.kind == "adapter":
        return None
    return resolve(base if base is not None else recipe.base or "", fresh=True)


def _changed_adapters(store: Store, grant: RecordedGrant) -> Iterator[Finding]:
    for name, digest in sorted(grant.digests.items()):
        try:
            store.load(name, digest)
        except (AdapterError, WeightError) as error:
            yield Finding("adapter-changed", name, str(error))


def _repeated(
    folder: Path, recipe: Recipe, store: Store, grant: RecordedGrant, base: Base | None, files: str | None
) -> Sink | str:
    """The digests of the merge made again from its record, written nowhere; or why it cannot be."""
    text = yaml.safe_load((folder / RECIPE).read_bytes())  # with references as they were written, which are compared
    export = replace(recipe.export(), store=text["store"], base=text["base"] if base else None)
    options, sink = options_of(recipe.method, recipe.options), Sink(None)
    made = mix(store, grant, recipe.method, options)
    result = Result(grant, recipe.method, made.ingredients, export, base, files, made.warnings, options=options)
    try:
        produce(with_plain_base(result, fresh=True), made.modules, sink, SigningKeys(), Work())
    except (BaseModelError, RecipeError, OutputError) as error:
        return str(error)
    return sink


def _compare(written: Mapping[str, str], recipe: Recipe, again: Sink | str) -> Iterator[Finding]:
    if isinstance(again, str):
        yield Finding("rebuild-differs", RECIPE, f"the recorded merge cannot be repeated: {again}")
        return
    made_here = recipe.record is not None and recipe.record.soupmix == __version__
    missing = {PROVENANCE} - written.keys()  # which is told elsewhere
    for name in sorted((again.digests.keys() | written.keys()) - missing):
        if again.digests.get(name) != written.get(name) and (made_here or name not in _PROSE):
            yield Finding("rebuild-differs", name, f"{name} is not what the recorded recipe and grant give")
