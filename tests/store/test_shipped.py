"""What is shipped with soupmix is written by nobody but who maintains it, however its folder is named."""

from collections.abc import Callable
from pathlib import Path

import pytest

from soupmix.errors import AdapterError
from soupmix.store import Store, adding, manifest

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def shipped(pico_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a store that stands for the shipped one."""
    import shutil

    folder = tmp_path / "shipped"
    shutil.copytree(pico_store.folder, folder)
    for module in (manifest, adding):
        monkeypatch.setattr(module, "shipped_root", lambda: folder)
    return folder


def test_it_is_not_written_by_its_path_nor_by_a_link(
    shipped: Path, tmp_path: Path, tiny_adapter: Callable[..., Path]
) -> None:
    (tmp_path / "link").symlink_to(shipped)
    before = (shipped / "manifest.json").read_bytes()
    for folder in (shipped, tmp_path / "link", tmp_path / "x/../shipped"):
        (tmp_path / "x").mkdir(exist_ok=True)
        store = Store(folder)
        for change in (
            lambda store=store: store.remove(store.names[0]),
            lambda store=store: store.set_total_budget(1),
            lambda store=store: store.check_writable(),
        ):
            with pytest.raises(AdapterError, match="--maintain") as caught:
                change()
            assert caught.value.reason == "shipped"
    assert (shipped / "manifest.json").read_bytes() == before
    Store(shipped, maintain=True).set_total_budget(1)
    assert (shipped / "manifest.json").read_bytes() != before


def test_commands_do_not_write_it(shipped: Path, run: Run) -> None:
    before = (shipped / "manifest.json").read_bytes()
    code, _, err = run("adapters", "budget", "1.5", "--store", shipped)
    assert code == 1
    assert "is never written" in err
    assert (shipped / "manifest.json").read_bytes() == before
    assert run("adapters", "budget", "1.5", "--store", shipped, "--maintain")[0] == 0
