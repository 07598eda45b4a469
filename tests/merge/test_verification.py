"""verify: whatever was changed is named."""

import base64
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from soupmix.base import Base, resolve
from soupmix.errors import RecipeError
from soupmix.files import canonical_json, sha256_file
from soupmix.merge import Soup, merge, verify
from soupmix.policy import Grant
from soupmix.store.store import Store


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, session_cache: Path) -> None:
    monkeypatch.setenv("SOUPMIX_CACHE", str(session_cache))


@pytest.fixture
def base(tiny_base: Base, session_cache: Path) -> Base:
    """The base under the name of its folder, as a user would give it."""
    return resolve(tiny_base.folder, cache=session_cache)


@pytest.fixture(params=["adapter", "cut", "model"])
def out(request: pytest.FixtureRequest, soup: Soup, base: Base, tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    if request.param == "model":
        soup.save_model(folder, base=base, dtype="bf16", shard_size=30_000)
    else:
        soup.save_adapter(folder, rank=3 if request.param == "cut" else None)
    return folder


def kinds(folder: Path, **options: object) -> set[tuple[str, str]]:
    return {(finding.kind, finding.subject) for finding in verify(folder, **options).findings}


def reseal(folder: Path) -> None:
    """What a careful forger does: make the digests fit again."""
    path = folder / "soupmix_digests.json"
    recorded = json.loads(path.read_text())
    recorded["outputs"] = {name: f"sha256:{sha256_file(folder / name)}" for name in recorded["outputs"]}
    path.write_bytes(canonical_json(recorded))
    cover(folder)


def cover(folder: Path) -> None:
    """... and the unsigned provenance, which tells of the same digests and of the grant."""
    path = folder / "soupmix_provenance.json"
    envelope = json.loads(path.read_text())
    content = json.loads(base64.b64decode(envelope["payload"]))
    for each in content["subject"]:
        each["digest"]["sha256"] = sha256_file(folder / each["name"])
    weights = content["predicate"]["buildDefinition"]["externalParameters"]["weights_micro"]
    record = json.loads((folder / "soupmix_grant.json").read_text() or "{}")
    if isinstance(record, dict):
        for kind in weights.keys() & record.keys() if "binding" in record else ():
            weights[kind] = {name: round(float(number) * 1e6) for name, number in record[kind].items()}
    envelope["payload"] = base64.b64encode(canonical_json(content)).decode()
    path.write_bytes(canonical_json(envelope))


def first_tensors(folder: Path) -> Path:
    return sorted(folder.glob("*.safetensors"))[0]


def test_what_soupmix_wrote_is_as_recorded(out: Path) -> None:
    verdict = verify(out)
    assert verdict.ok
    assert verdict.rebuilt
    assert verdict.to_dict()["findings"] == []


def test_nothing_is_written_while_verifying(out: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    verify(out)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


@pytest.mark.parametrize("rebuild", [True, False])
def test_a_changed_tensor_is_found(out: Path, rebuild: bool) -> None:
    path = first_tensors(out)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert kinds(out, rebuild=rebuild) == {("output-changed", path.name)}


def test_a_changed_tensor_with_fitting_digests_is_found_by_rebuilding(out: Path) -> None:
    path = first_tensors(out)
    tensors = load_file(path)
    name = sorted(tensors)[0]
    tensors[name].view(-1)[0] += 1
    save_file(tensors, path, metadata={"format": "pt"})
    reseal(out)
    assert verify(out, rebuild=False).ok
    assert ("rebuild-differs", path.name) in kinds(out)


def test_missing_foreign_and_linked_files_are_found(out: Path, tmp_path: Path) -> None:
    (out / "extra.py").write_text("print()")
    shutil.move(out / "README.md", tmp_path / "card")
    (out / "README.md").symlink_to(tmp_path / "card")
    (out / "soupmix_report.json").unlink()
    assert {
        ("output-unknown", "extra.py"),
        ("output-missing", "README.md"),
        ("output-missing", "soupmix_report.json"),
    } <= (kinds(out))


def test_a_forged_grant_is_found_by_rebuilding(out: Path) -> None:
    path = out / "soupmix_grant.json"
    record = json.loads(path.read_text())
    record["granted"]["friendly"] = record["requested"]["friendly"] = "1"
    path.write_bytes(canonical_json(record))
    reseal(out)
    assert {("rebuild-differs", "README.md"), ("rebuild-differs", first_tensors(out).name)} <= kinds(out)


def test_a_changed_adapter_is_named(out: Path, three: Store) -> None:
    path = three.path("concise") / "adapter_model.safetensors"
    tensors = {name: tensor + 1 for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
    assert kinds(out) == {("adapter-changed", "concise")}


def test_an_adapter_that_left_the_store_is_named(
    out: Path, make_store: Callable[..., Store], folders: Mapping[str, Path]
) -> None:
    fewer = make_store({name: folder for name, folder in folders.items() if name != "expert"}, where="fewer")
    assert kinds(out, store=fewer.folder) == {("adapter-changed", "expert")}


def test_a_store_that_moved_can_be_named(out: Path, three: Store, tmp_path: Path) -> None:
    three.folder.rename(tmp_path / "moved")
    assert kinds(out) == {("adapter-changed", "store")}
    assert verify(out, store=tmp_path / "moved").ok


def test_another_base_is_named(three: Store, grant: Callable[..., Grant], base: Base, tmp_path: Path) -> None:
    shutil.copytree(base.folder, tmp_path / "other")
    tensors = load_file(tmp_path / "other/model.safetensors")
    tensors["model.norm.weight"] = torch.full_like(tensors["model.norm.weight"], 2.0)
    save_file(tensors, tmp_path / "other/model.safetensors", metadata={"format": "pt"})
    for number, weights in enumerate(({"friendly": 1.0}, {})):
        out = tmp_path / f"out{number}"
        merge(three, grant(three, **weights)).save_model(out, base=base)
        assert verify(out).ok
        findings = verify(out, base=tmp_path / "other").findings
        assert [finding.kind for finding in findings] == ["base-changed"]
        assert base.digest in findings[0].message


def test_a_folder_without_a_record_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no result of soupmix") as caught:
        verify(tmp_path)
    assert caught.value.reason == "no-record"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"inputs": {}, "outputs": {"../x": "sha256:0"}}',
        '{"inputs": {}, "outputs": {"x": 1}}',
        "[" * 99999,
    ],
)
def test_a_damaged_record_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "soupmix_digests.json").write_text(text)
    with pytest.raises(RecipeError, match="is damaged") as caught:
        verify(tmp_path)
    assert caught.value.reason == "bad-record"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"granted": 1}'])
def test_a_damaged_grant_is_one_sentence(soup: Soup, tmp_path: Path, text: str) -> None:
    soup.save_adapter(tmp_path / "out")
    (tmp_path / "out/soupmix_grant.json").write_text(text)
    reseal(tmp_path / "out")
    with pytest.raises(RecipeError, match=r"soupmix_grant\.json is damaged"):
        verify(tmp_path / "out")
