"""What the index page of a release says, with a public address of the sources and without one."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_bytes
from email.message import Message
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ADDRESS = "https://git.example/people/soupmix"
LINKS = re.compile(r"\]\(([^)]+)\)")


@pytest.fixture(scope="module")
def hook() -> Any:
    pytest.importorskip("hatchling", reason="needs hatchling, of the group test")
    spec = spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    made = module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def updated(hook: Any, config: dict[str, str]) -> dict[str, Any]:
    metadata: dict[str, Any] = {"version": "0.1.0"}
    hook.CustomMetadataHook(str(ROOT), config).update(metadata)
    return metadata


def test_with_an_address_every_link_leads_to_the_sources_of_that_version(hook: Any) -> None:
    text, made = (ROOT / "README.md").read_text("utf-8"), updated(hook, {"address": f"{ADDRESS}/"})
    before, after = LINKS.findall(text), LINKS.findall(made["readme"]["text"])
    assert len(before) == len(after) > 20
    for old, new in zip(before, after, strict=True):
        kind, _, path = new.removeprefix(f"{ADDRESS}/").partition("/v0.1.0/")
        assert kind == ("raw" if old.endswith((".svg", ".png")) else "blob")
        assert path == old
        assert (ROOT / path.partition("#")[0]).exists()
    assert made["urls"]["Source"] == ADDRESS
    assert all(each.startswith(ADDRESS) for each in made["urls"].values())


def test_links_that_are_absolute_stay(hook: Any) -> None:
    text = "[a](https://x.example) [b](#part) [c](mailto:a@x.example) `[d]` [e](docs/e.md#f)"
    assert hook.absolute(text, ADDRESS, "1") == text.replace("docs/", f"{ADDRESS}/blob/v1/docs/")


def test_without_an_address_nothing_leads_nowhere(hook: Any) -> None:
    made = updated(hook, {"address": ""})
    assert made == {
        "version": "0.1.0",
        "readme": {"content-type": "text/markdown", "text": (ROOT / "README.md").read_text("utf-8")},
    }
    with pytest.raises(ValueError, match="begins with https://"):
        updated(hook, {"address": "git.example"})


def test_the_address_is_set_in_one_place() -> None:
    read = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert {"readme", "urls"} <= set(read["project"]["dynamic"])
    assert isinstance(read["tool"]["hatch"]["metadata"]["hooks"]["custom"]["address"], str)


def told(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as file:
        (name,) = [each for each in file.namelist() if each.endswith(".dist-info/METADATA")]
        return message_from_bytes(file.read(name))


@pytest.mark.slow
def test_a_release_is_built_so_with_an_address_and_without(tmp_path: Path) -> None:
    for address in ("", ADDRESS):
        sources, out = tmp_path / f"sources{len(address)}", tmp_path / f"out{len(address)}"
        sources.mkdir()
        files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
            "\n"
        )
        for each in filter(None, files):
            (sources / each).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / each, sources / each)
        project = sources / "pyproject.toml"
        project.write_text(project.read_text("utf-8").replace('address = ""', f'address = "{address}"'))
        build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", out]
        subprocess.run([*build, sources], check=True)
        (wheel,) = out.glob("soupmix-*.whl")
        said = told(wheel)
        assert ("Source, " + ADDRESS in (said.get_all("Project-URL") or [])) is bool(address)
        assert (f"]({ADDRESS}/blob/v" in str(said.get_payload())) is bool(address)
        assert f"]({'' if not address else ADDRESS + '/raw/v0.1.0/'}docs/people.svg)" in str(said.get_payload())
