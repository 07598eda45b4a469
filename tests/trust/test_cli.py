"""`soupmix trust` and `--trust` as a user meets them, and every command that docs/trust.md shows."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from soupmix.base import Base
from soupmix.store import Store

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """The entry point in an empty folder, with an empty state."""
    monkeypatch.setenv("SOUPMIX_STATE", str(tmp_path / "state"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return run


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, tiny_base: Base, tiny_adapter: Callable[..., Path]) -> Path:
    store = Store(tmp_path_factory.mktemp("shelf"), create=True)
    for seed, name in enumerate(("friendly", "unfriendly")):
        store.add(tiny_adapter(seed=seed), name=name, dimension="style", pole=name, base=tiny_base)
    return store.folder


def set_up(run: Run, name: str, tier: str, rule: str) -> str:
    """A repository of one root key and one document; gives the value of --trust."""
    for key in ("root", "targets", "online"):
        assert run("trust", "keygen", f"{name}-{key}.pem")[0] == 0
    keys = ("--targets-key", f"{name}-targets.pem", "--online-key", f"{name}-online.pem")
    assert run("trust", "init", name, "--root-key", f"{name}-root.pem", *keys)[:2] == (
        0,
        f"{name}/metadata/1.root.json\n",
    )
    Path(f"{name}.yaml").write_text(f"tier: {tier}\nissuer: Example\nversion: '1'\nrules:\n- {rule}\n")
    assert run("trust", "publish", name, f"{name}.yaml", *keys)[0] == 0
    return f"{tier}={name},{name}/metadata/1.root.json"


def test_a_store_that_was_edited_after_it_was_signed(run: Run, shelf: Path, tmp_path: Path) -> None:
    acme = set_up(run, "acme", "organisation", "{rule: group, id: calm, dimension: style, at_most: '0.5'}")
    mine = tmp_path / "mine"
    shutil.copytree(shelf, mine)
    keys = ("--targets-key", "acme-targets.pem", "--online-key", "acme-online.pem")
    asked = ("clamp", "--store", mine, "-w", "friendly=1,unfriendly=1", "--trust", acme)
    assert "says what the store holds" in run(*asked)[2]
    code, _, err = run("trust", "publish", "acme", "acme.yaml", *keys)
    assert (code, "see --store" in err) == (0, True)
    code, _, err = run("trust", "publish", "acme", "acme.yaml", "--store", mine, *keys)
    assert (code, err) == (0, "acme: version 4, 2 files\n")
    code, _, err = run(*asked)
    assert (code, "says what the store holds" in err) == (0, False)
    manifest = mine / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"dimension": "style"', '"dimension": "other"', 1))
    code, out, err = run(*asked)
    assert (code, out) == (1, "")
    assert "dimension of 'friendly' was style and is other" in err
    assert run("trust", "publish", "acme", "--store", mine, *keys)[0] == 2
    Path("soupmix-store.json").write_text("{}")
    assert run("trust", "publish", "acme", "soupmix-store.json", "--store", mine, *keys)[0] == 2


def bound(most: str) -> str:
    return f"{{rule: bounds, id: calm, adapter: unfriendly, at_most: '{most}'}}"


def test_a_signed_policy_on_the_command_line(run: Run, shelf: Path) -> None:
    law = set_up(run, "eu", "law", bound("0.5"))
    acme = set_up(run, "acme", "organisation", bound("1"))
    asked = ("clamp", "--store", shelf, "-w", "unfriendly=1", "--json", "--trust", law)
    code, out, err = run(*asked, "--trust", acme)
    assert code == 0
    assert json.loads(out)["granted"] == {"unfriendly": "0.5"}
    assert err.count("signed set version 2, good until ") == 2
    assert "not signed" not in err
    Path("me.yaml").write_text(f"tier: user\nissuer: Me\nversion: '1'\nrules:\n- {bound('0.25')}\n")
    assert json.loads(run(*asked, "--policy", "me.yaml")[1])["granted"] == {"unfriendly": "0.25"}
    for more, code, told in (
        (("--trust", law), 2, "given twice"),
        (("--trust", "nonsense"), 2, "TIER=DIR,ROOT"),
        (("--trust", "user=eu,eu/metadata/1.root.json"), 2, "TIER=DIR,ROOT"),
        (("--trust", "organisation=acme,gone.json"), 1, "gone.json"),
        (("--trust", "organisation=gone,eu/metadata/1.root.json"), 1, "gone"),
        (("--trust", "organisation=acme,eu/metadata/1.root.json"), 1, "does not trust"),
        (("--trust", acme + ",3"), 1, "floor"),
        (("--policy", "eu.yaml"), 1, "is not signed"),
    ):
        got, out, err = run(*asked, *more)
        assert (got, out) == (code, ""), err
        assert told in err
        assert len(err.splitlines()) == 1


def test_unsigned_documents_are_used_and_said_to_be_unsigned_once(run: Run, shelf: Path) -> None:
    Path("eu.yaml").write_text(f"tier: law\nissuer: Example\nversion: '1'\nrules:\n- {bound('0.5')}\n")
    code, _, err = run("clamp", "--store", shelf, "-w", "unfriendly=1", "--policy", "eu.yaml")
    assert code == 0
    assert err.count("not signed") == 1
    assert "not signed" not in run("clamp", "--store", shelf, "-w", "unfriendly=1")[2]


def test_merge_under_a_signed_policy_with_signed_provenance(run: Run, shelf: Path) -> None:
    law = set_up(run, "eu", "law", bound("0.5"))
    assert run("trust", "keygen", "me.pem")[0] == run("trust", "keygen", "model.pem", "--kind", "ecdsa-p256")[0] == 0
    options = ("--store", shelf, "-w", "unfriendly=1", "--trust", law)
    code, _, err = run("merge", *options, "--sign", "me.pem", "--sign-model", "model.pem", "out")
    assert code == 0
    assert "not signed" not in err
    code, out, _ = run("verify", "out", "--key", "me.pub.pem")
    assert code == 0
    assert "signed by me.pub.pem" in out
    code, out, _ = run("verify", "out", "--key", "model.pub.pem", "--json")
    assert code == 1
    assert json.loads(out)["signed"] is False
    assert run("merge", "out/soupmix_recipe.yaml", "again")[0] == 1  # no policy is another policy
    code, _, err = run("merge", "out/soupmix_recipe.yaml", "again", "--trust", law)
    assert code == 0
    assert "the provenance is not signed" in err
    tensors = [load_file(f"{name}/adapter_model.safetensors") for name in ("out", "again")]
    assert all((tensors[0][name] == tensors[1][name]).all() for name in tensors[0])


def test_init_publish_rotate_show_verify(run: Run) -> None:
    for name in ("r1", "r2", "r3", "t", "o", "t2", "o2"):
        run("trust", "keygen", f"{name}.pem")
    keys = ("--targets-key", "t.pem", "--online-key", "o.pem")
    roots = ("--root-key", "r1.pem", "--root-key", "r2.pem", "--root-key", "r3.pub.pem")
    assert run("trust", "init", "set", *roots, "--threshold", 2, *keys, "--days", "timestamp=1")[0] == 0
    Path("a.yaml").write_text("tier: law\n")
    assert run("trust", "publish", "set", "a.yaml", *keys)[0] == 0
    assert run("trust", "publish", "set", "--online-key", "o.pem")[0] == 0
    code, out, err = run("trust", "rotate", "set", "--root-key", "r1.pem", "--remove", "r3.pub.pem")
    assert (code, out) == (1, "")
    assert "signed by 1 of the keys" in err
    new = ("--targets-key", "t2.pem", "--online-key", "o2.pem")
    both = ("--root-key", "r1.pem", "--root-key", "r2.pem")
    assert run("trust", "rotate", "set", *both, "--remove", "r3.pub.pem", *new)[0] == 0
    shown = json.loads(run("trust", "show", "set", "--json")[1])
    assert shown["root"]["version"] == 2
    assert shown["root"]["signatures"] == "2 of 2"
    assert shown["files"] == {"a.yaml": 10}
    assert "a.yaml 10" in run("trust", "show", "set")[1]
    found = json.loads(run("trust", "verify", "set", "set/metadata/1.root.json", "--json")[1])
    assert found["versions"] == {"root": 2, "snapshot": 4, "targets": 3, "timestamp": 4}
    assert run("trust", "verify", "set", "set/metadata/1.root.json", "--floor", 4)[0] == 1
    assert run("trust", "publish", "set", "a.yaml", *keys)[0] == 1
    for words in (
        ("publish", "set", "a.yaml", "--online-key", "o2.pem"),
        ("publish", "set", "a.yaml", "set/../a.yaml", *new),
        ("publish", "set", "a.yaml", *new, "--days", "week=1"),
        ("publish", "set", "a.yaml", *new, "--days", "root=x"),
        ("rotate", "set", *both, "--targets-key", "t.pem"),
        ("keygen", "x.pem", "--kind", "rsa"),
    ):
        code, out, err = run("trust", *words)
        assert (code, out) == (2, ""), words
        assert "Traceback" not in err


def test_the_document_shows_what_a_reader_gets(run: Run) -> None:
    text = (ROOT / "docs/trust.md").read_text("utf-8")
    count = 0
    Path("examples").symlink_to(ROOT / "examples")
    for block in BLOCK.findall(text):
        code, shown = 0, ""
        for line in block.splitlines():
            if line.startswith("$ soupmix "):
                count += 1
                code, out, err = run(*shlex.split(line)[2:])
                shown = out + err
                assert code == ("# refused" in block), f"{line}\n{shown}"
            elif line.startswith("$ "):
                words = shlex.split(line)[1:]
                assert words[0] == "cp", line
                Path(words[2]).write_bytes(Path(words[1]).read_bytes())
            elif line.strip() and line.strip() != "..." and not line.startswith("#"):
                assert line.strip() in shown, f"missing: {line}\n{shown}"
    assert count >= 12
