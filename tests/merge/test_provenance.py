"""Provenance: what it says, who signed it, and that no file of a result can change without it."""

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import soupmix
from soupmix.errors import RecipeError
from soupmix.files import canonical_json, sha256_file
from soupmix.merge import Soup, merge, verify
from soupmix.policy import Grant, Policy
from soupmix.store.store import Store
from soupmix.trust import generate_key, sign_folder

FILE = "soupmix_provenance.json"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    generate_key(tmp_path / "key.pem")
    return tmp_path / "key.pem"


@pytest.fixture
def public(key: Path) -> Path:
    return key.with_suffix(".pub.pem")


def kinds(folder: Path, **options: object) -> set[tuple[str, str]]:
    return {(finding.kind, finding.subject) for finding in verify(folder, **options).findings}


def statement(folder: Path) -> dict:
    return json.loads(base64.b64decode(json.loads((folder / FILE).read_bytes())["payload"]))


def rewrite(folder: Path, change: Callable[[dict], None]) -> None:
    """What somebody without the key can do: change the statement, keep the signature."""
    envelope = json.loads((folder / FILE).read_bytes())
    content = json.loads(base64.b64decode(envelope["payload"]))
    change(content)
    envelope["payload"] = base64.b64encode(canonical_json(content)).decode()
    (folder / FILE).write_bytes(canonical_json(envelope))


def test_the_statement_says_what_was_asked_granted_used_and_made(three: Store, tmp_path: Path) -> None:
    soup = merge(three, Policy.open(three).clamp({"friendly": 1.5, "concise": 0.25}, audience="minor"))
    saved = soup.save_adapter(tmp_path / "out", rank=3, dtype="bf16")
    said = statement(tmp_path / "out")
    assert said["_type"] == "https://in-toto.io/Statement/v1"
    assert said["predicateType"] == "https://slsa.dev/provenance/v1"
    made = {path.name: sha256_file(path) for path in (tmp_path / "out").iterdir() if path.name != FILE}
    assert {each["name"]: each["digest"]["sha256"] for each in said["subject"]} == made
    assert said["predicate"]["buildDefinition"]["externalParameters"] == {
        "attributes": {"audience": "minor"},
        "dtype": "BF16",
        "kind": "adapter",
        "method": "delta",
        "policy": {"sha256": soup.grant.policy_digest.removeprefix("sha256:")},
        "rank": 3,
        "sources": {},
        "weights_micro": {
            "granted": {"concise": 250_000, "friendly": 1_000_000},
            "requested": {"concise": 250_000, "friendly": 1_500_000},
        },
    }
    used = {
        each["name"]: each["digest"]["sha256"] for each in said["predicate"]["buildDefinition"]["resolvedDependencies"]
    }
    expected = {"base": three["friendly"].base_digest}
    expected |= {f"adapter {name}": three[name].digest for name in ("concise", "friendly")}
    assert {name: f"sha256:{digest}" for name, digest in used.items()} == expected
    assert said["predicate"]["buildDefinition"]["internalParameters"] == {"identity": saved.identity}
    assert said["predicate"]["runDetails"]["builder"]["id"] == f"pkg:pypi/soupmix@{soupmix.__version__}"
    assert str(tmp_path) not in json.dumps(said)


def test_unsigned_says_so_and_is_checked_all_the_same(soup: Soup, tmp_path: Path, public: Path) -> None:
    out = tmp_path / "out"
    soup.save_adapter(out)
    assert json.loads((out / FILE).read_bytes())["signatures"] == []
    assert verify(out).ok
    assert verify(out).signed is None
    assert kinds(out, key=public) == {("signature-missing", FILE)}


def test_signed_is_verified_and_rebuilt(soup: Soup, tmp_path: Path, key: Path, public: Path) -> None:
    out = tmp_path / "out"
    soup.save_adapter(out, sign=key)
    verdict = verify(out, key=public)
    assert verdict.ok
    assert verdict.signed
    assert verify(out).ok  # the repeated merge has no key, and compares what was signed
    soup.save_adapter(tmp_path / "again", sign=key)
    for path in out.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_a_strangers_signature_is_found(soup: Soup, tmp_path: Path, key: Path) -> None:
    soup.save_adapter(tmp_path / "out", sign=key)
    stranger = generate_key(tmp_path / "stranger.pem")
    assert kinds(tmp_path / "out", key=stranger) == {("signature-wrong", FILE)}
    assert verify(tmp_path / "out", key=stranger).signed is False


def test_tampered_weights_are_found_with_and_without_the_key(
    soup: Soup, tmp_path: Path, key: Path, public: Path
) -> None:
    out = tmp_path / "out"
    soup.save_adapter(out, sign=key)

    def more(content: dict) -> None:
        content["predicate"]["buildDefinition"]["externalParameters"]["weights_micro"]["granted"]["friendly"] = 900_000

    rewrite(out, more)
    assert kinds(out, rebuild=False) == {("provenance-differs", FILE)}
    assert kinds(out, rebuild=False, key=public) == {("provenance-differs", FILE), ("signature-wrong", FILE)}
    assert ("rebuild-differs", FILE) in kinds(out)


def test_a_tampered_file_is_found_however_well_it_is_covered_up(
    soup: Soup, tmp_path: Path, key: Path, public: Path
) -> None:
    out = tmp_path / "out"
    soup.save_adapter(out, sign=key)
    path = out / "adapter_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert kinds(out, rebuild=False) == {("output-changed", path.name)}
    record = json.loads((out / "soupmix_digests.json").read_text())
    record["outputs"][path.name] = f"sha256:{sha256_file(path)}"
    (out / "soupmix_digests.json").write_bytes(canonical_json(record))
    assert kinds(out, rebuild=False) == {
        ("provenance-differs", path.name),
        ("provenance-differs", "soupmix_digests.json"),
    }

    def cover(content: dict) -> None:
        for each in content["subject"]:
            each["digest"]["sha256"] = sha256_file(out / each["name"])

    rewrite(out, cover)
    assert kinds(out, rebuild=False) == set()
    assert kinds(out, rebuild=False, key=public) == {("signature-wrong", FILE)}
    assert ("rebuild-differs", path.name) in kinds(out)


def test_a_result_without_its_provenance_is_not_as_recorded(soup: Soup, tmp_path: Path, public: Path) -> None:
    soup.save_adapter(tmp_path / "out")
    (tmp_path / "out" / FILE).unlink()
    assert kinds(tmp_path / "out") == {("output-missing", FILE)}
    assert ("signature-missing", FILE) in kinds(tmp_path / "out", key=public)


def test_a_record_that_hides_the_grant_does_not_pass(soup: Soup, tmp_path: Path) -> None:
    """Taking the grant out of every list must not switch the rebuild off."""
    out = tmp_path / "out"
    soup.save_adapter(out)
    record = json.loads((out / "soupmix_digests.json").read_text())
    del record["outputs"]["soupmix_grant.json"]
    (out / "soupmix_digests.json").write_bytes(canonical_json(record))
    assert ("output-unknown", "soupmix_grant.json") in kinds(out)
    (out / "soupmix_grant.json").unlink()
    with pytest.raises(RecipeError) as caught:
        verify(out)
    assert caught.value.reason == "bad-record"


@pytest.mark.parametrize(
    "payload", ["", "[]", "{}", '{"_type": "https://in-toto.io/Statement/v1", "predicateType": "x"}', "[" * 99_999]
)
def test_a_damaged_provenance_is_one_sentence(soup: Soup, tmp_path: Path, payload: str) -> None:
    soup.save_adapter(tmp_path / "out")
    text = base64.b64encode(payload.encode()).decode()
    for data in (
        payload.encode(),
        canonical_json({"payload": text, "payloadType": "application/vnd.in-toto+json", "signatures": []}),
    ):
        (tmp_path / "out" / FILE).write_bytes(data)
        with pytest.raises(RecipeError, match=r"soupmix_provenance\.json is damaged") as caught:
            verify(tmp_path / "out")
        assert caught.value.reason == "bad-record"


def test_bad_keys_stop_before_anything_is_written(soup: Soup, tmp_path: Path, key: Path) -> None:
    for options, reason in (({"sign": tmp_path / "gone.pem"}, "unreadable"), ({"sign_model": key}, "wrong-kind")):
        with pytest.raises(RecipeError) as caught:
            soup.save_adapter(tmp_path / "out", **options)
        assert caught.value.reason == reason
    assert not (tmp_path / "out").exists()


def test_unsigned_merging_needs_no_extra(three: Store, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    code = (
        "import sys\n"
        "for name in ('tuf', 'securesystemslib', 'cryptography'): sys.modules[name] = None\n"
        "from soupmix.cli import cli, main\n"
        f"cli.main(['merge', '--store', {str(three.folder)!r}, '-w', 'friendly=1', {out!r}], standalone_mode=False)\n"
        f"cli.main(['verify', {out!r}], standalone_mode=False)\n"
        f"sys.argv = ['soupmix', 'verify', {out!r}, '--key', 'x']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "as recorded; the repeated merge gives the same bytes" in done.stdout
    assert done.returncode == 1
    assert "soupmix[trust]" in done.stderr


@pytest.fixture
def model_key(tmp_path: Path) -> Path:
    generate_key(tmp_path / "model.pem", kind="ecdsa-p256")
    return tmp_path / "model.pem"


def test_a_model_signature_speaks_of_every_other_file_and_repeats(
    three: Store, grant: Callable[..., Grant], tmp_path: Path, model_key: Path
) -> None:
    soup, out = merge(three, grant(three, friendly=0.5)), tmp_path / "out"
    soup.save_adapter(out, sign_model=model_key)
    assert verify(out).ok
    first = (out / "model.sig").read_bytes()
    assert sign_folder(out, model_key).read_bytes() == first
    (out / "README.md").write_text("better")
    assert {("signature-differs", "README.md"), ("output-changed", "README.md")} == kinds(out, rebuild=False)
    (out / "model.sig").write_text("{}")
    assert ("signature-differs", "model.sig") in kinds(out, rebuild=False)


def test_only_folders_of_plain_files_are_signed(tmp_path: Path, model_key: Path) -> None:
    for name, make in {"a": Path.mkdir, "b": lambda path: path.symlink_to("x"), ".gitignore": Path.touch}.items():
        folder = tmp_path / f"with-{name}"
        folder.mkdir()
        make(folder / name)
        with pytest.raises(RecipeError) as caught:
            sign_folder(folder, model_key)
        assert caught.value.reason == "not-a-file"
