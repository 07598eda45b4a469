"""Where a result comes from, in a form that others read: an in-toto statement with SLSA provenance in a DSSE envelope.

Formats: in-toto Statement v1, SLSA provenance v1, DSSE v1. Nothing in it depends on the clock or on the machine, so
repeating the merge repeats it; only signatures need a key.

Digests of the base and of adapters are their identities in soupmix (SHA-256 over the digests of their parts, see
`soupmix.store.manifest.adapter_digest`), as everywhere else; those of subjects are of the bytes of the files.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from soupmix.errors import RecipeError
from soupmix.files import canonical_json, sha256_file, strict_json, told
from soupmix.findings import Finding
from soupmix.merge.result import Result
from soupmix.options import Options
from soupmix.policy.recorded import RecordedGrant
from soupmix.trust.dsse import MODEL_SIGNATURE, Envelope, signed_resources
from soupmix.version import __version__

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey

__all__ = [
    "PROVENANCE",
    "check_model_signature",
    "check_provenance",
    "check_signature",
    "provenance",
    "read_provenance",
]

PROVENANCE: Final = "soupmix_provenance.json"
_STATEMENT: Final = "https://in-toto.io/Statement/v1"
_PREDICATE: Final = "https://slsa.dev/provenance/v1"
_BUILD: Final = "urn:soupmix:merge:v1"


def provenance(result: Result, outputs: Mapping[str, str]) -> Envelope:
    """The unsigned envelope of a result.

    Args:
        outputs: file -> "sha256:<hex>" of every other file of the folder.
    """
    export = result.export
    dependencies = {name: digest for name, digest in result.inputs.items() if name != "policy"}
    definition = {
        "buildType": _BUILD,
        "externalParameters": {
            "dtype": export.dtype or "base",
            "kind": export.kind,
            "method": result.method,
            **({"options": _texts(result.options)} if result.options else {}),
            "rank": export.rank,
            **({"dequantise": True} if export.dequantise else {}),
            **_request(result.grant),
        },
        "internalParameters": {"identity": result.identity},
        "resolvedDependencies": [
            {"digest": _digest(digest), "name": name, "uri": f"urn:soupmix:{name.replace(' ', ':')}"}
            for name, digest in sorted(dependencies.items())
        ],
    }
    content = {
        "_type": _STATEMENT,
        "predicate": {
            "buildDefinition": definition,
            "runDetails": {"builder": {"id": f"pkg:pypi/soupmix@{__version__}"}},
        },
        "predicateType": _PREDICATE,
        "subject": [{"digest": _digest(digest), "name": name} for name, digest in sorted(outputs.items())],
    }
    return Envelope(canonical_json(content))


def read_provenance(folder: Path) -> Envelope | None:
    """The envelope in a folder; None if there is none.

    Raises:
        RecipeError: it is damaged ("bad-record").
    """
    path = folder / PROVENANCE
    try:
        return Envelope.from_bytes(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror}", reason="bad-record") from error
    except ValueError as error:
        raise RecipeError(f"{path} is damaged: {told(error)}", reason="bad-record") from error


def check_provenance(
    envelope: Envelope | None, outputs: Mapping[str, str], grant: RecordedGrant | None
) -> Iterator[Finding]:
    """Whether an envelope speaks of these files (name -> "sha256:<hex>") and of this grant, signed or not.

    Raises:
        RecipeError: its payload is no such statement ("bad-record").
    """
    if envelope is None:
        yield Finding("output-missing", PROVENANCE, f"{PROVENANCE} was written and is no longer there")
        return
    subjects, parameters = _statement(envelope)
    for name in sorted(subjects.keys() | outputs.keys()):
        if subjects.get(name) != outputs.get(name):
            yield Finding("provenance-differs", name, f"{name} is not the file that {PROVENANCE} speaks of")
    if grant is not None and any(parameters.get(key) != value for key, value in _request(grant).items()):
        message = f"{PROVENANCE} tells of other weights, attributes or another policy than the recorded grant"
        yield Finding("provenance-differs", PROVENANCE, message)


def check_signature(envelope: Envelope | None, key: "SSlibKey") -> Iterator[Finding]:
    """Whether this key signed the envelope."""
    from soupmix.trust import verify_envelope

    if envelope is None or not envelope.signatures:
        yield Finding("signature-missing", PROVENANCE, f"{PROVENANCE} is not signed by anybody")
    elif not verify_envelope(envelope, key):
        message = f"{PROVENANCE} is not signed by the key that was given, or was changed after it was signed"
        yield Finding("signature-wrong", PROVENANCE, message)


def check_model_signature(folder: Path) -> Iterator[Finding]:
    """Whether `model.sig`, if there is one, speaks of the files as they are. Who signed it is for OpenSSF's verifier to say."""
    path = folder / MODEL_SIGNATURE
    if not path.exists():
        return
    try:
        resources = signed_resources(path.read_bytes())
    except (OSError, ValueError) as error:
        yield Finding("signature-differs", MODEL_SIGNATURE, f"{MODEL_SIGNATURE} cannot be read: {error}")
        return
    present = {each.name: sha256_file(each) for each in folder.iterdir() if each.is_file() and each != path}
    for name in sorted(resources.keys() | present.keys()):
        if resources.get(name) != present.get(name):
            yield Finding("signature-differs", name, f"{name} is not the file that {MODEL_SIGNATURE} speaks of")


def _request(grant: RecordedGrant) -> dict[str, Any]:
    return {
        "attributes": grant.attributes,
        "policy": _digest(grant.policy_digest),
        "sources": dict(grant.sources),
        "weights_micro": {"granted": dict(grant.granted), "requested": dict(grant.requested)},
    }


def _texts(options: Options) -> dict[str, str]:
    """Values as JSON text: what is signed holds no number that two programs may write in two ways."""
    return {name: json.dumps(value, sort_keys=True) for name, value in options.items()}


def _digest(text: str) -> dict[str, str]:
    kind, _, value = text.partition(":")
    return {kind: value}


def _statement(envelope: Envelope) -> tuple[dict[str, str], dict[str, Any]]:
    try:
        content = strict_json(envelope.payload)
        if (content["_type"], content["predicateType"]) != (_STATEMENT, _PREDICATE):
            raise ValueError("it is no statement of provenance")
        subjects = {each["name"]: f"sha256:{each['digest']['sha256']}" for each in content["subject"]}
        parameters = content["predicate"]["buildDefinition"]["externalParameters"]
        if not isinstance(parameters, dict) or len(subjects) != len(content["subject"]):
            raise ValueError("it contradicts itself")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise RecipeError(f"{PROVENANCE} is damaged: {told(error)}", reason="bad-record") from error
    return subjects, parameters
