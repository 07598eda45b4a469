"""Every writer, with every call of its write path failing once: old or new, never torn, and nothing left at the next start."""

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from soupmix import scratch
from soupmix.base import Base
from soupmix.errors import OutputError
from soupmix.evaluate.record import RECORD, held_record, write_record
from soupmix.evaluate.report import REPORT, read_report, report, write_report
from soupmix.files import new_folder, write_file
from soupmix.merge import merge
from soupmix.policy import Policy
from soupmix.store import Store
from soupmix.surface import SURFACE, read_surface, write_surface
from tests.support import evaluated, planted_soups
from tests.support.adapter_folder import adapter, encode, item, sound
from tests.support.faults import KINDS, Faults
from tests.support.folders import debris, snapshot

training = importlib.import_module("soupmix.train.run")
Write = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes version 0 or 1 of something at `target`; may refuse to replace."""

    target: Path
    write: Write
    read: Callable[[], object]


def _plain(target: Path) -> object:
    if not target.exists():
        return None
    return target.read_bytes() if target.is_file() else snapshot(target)


def _fill(target: Path, version: int, *, force: bool) -> None:
    with new_folder(target, force=force, own=lambda folder: True) as folder:
        (folder / "config.json").write_text(f"version {version}")
        (folder / "inner").mkdir()
        for number in range(2 + version):
            (folder / "inner" / f"{number}.bin").write_bytes(bytes([version]) * 1000)


def _file_writer(where: Path) -> Writer:
    target = where / "file.json"
    return Writer(target, lambda version: write_file(target, bytes([version]) * 5000), lambda: _plain(target))


def _folder_writer(where: Path) -> Writer:
    target = where / "folder"
    return Writer(target, lambda version: _fill(target, version, force=True), lambda: _plain(target))


def _values(where: Path, value: float) -> Path:
    return adapter(where, tensors=encode({key: item(shape, value) for key, (_, shape, _) in sound().items()}))


def _store_writer(where: Path, base: Base) -> Writer:
    folders = [_values(where / "made" / str(version), 0.01 + version) for version in range(2)]
    target = where / "place" / "store"

    def write(version: int) -> None:
        Store(target, create=True).add(folders[version], dimension="d", pole="p", base=base, force=True)

    def read() -> object:
        """What a reader gets: the adapter itself, read and checked."""
        if not (target / "manifest.json").exists():
            return None
        opened = Store(target)
        return opened.load("p").digest, opened.gram.tolist()

    return Writer(target, write, read)


def _budget_writer(where: Path, base: Base) -> Writer:
    writer = _store_writer(where, base)
    writer.write(0)
    return Writer(
        writer.target,
        lambda version: Store(writer.target).set_total_budget(version),
        lambda: (Store(writer.target).total_budget, writer.read()),
    )


def _merge_writer(where: Path, base: Base, kind: str) -> Writer:
    store = Store(where / "store", create=True)
    store.add(_values(where / "made", 0.01), dimension="d", pole="p", base=base)
    soups = [merge(store, Policy.open(store).clamp({"p": weight})) for weight in (0.25, 0.75)]
    target = where / "place" / "out"

    def write(version: int) -> None:
        if kind == "adapter":
            soups[version].save_adapter(target, force=True)
        else:
            soups[version].save_model(target, base=base, force=True)

    return Writer(target, write, lambda: _plain(target))


def _training_writer(where: Path, monkeypatch: pytest.MonkeyPatch) -> Writer:
    """What `soupmix train` does around a fit, which itself is left out: the fitted files are its arguments."""
    version_now = [0]

    def fit(_base: object, _pairs: object, _recipe: object, folder: Path) -> dict[str, int]:
        (folder / "adapter_model.safetensors").write_bytes(bytes([version_now[0]]) * 2000)
        (folder / "adapter_config.json").write_bytes(b"{}")
        return {"version": version_now[0]}

    monkeypatch.setattr(training, "fit", fit)
    monkeypatch.setattr(training, "fit_identity", lambda *_: str(version_now[0]))

    class Plan:
        folder, pairs, recipe = where / "train", 4, None
        base, given, soup = type("Base", (), {"digest": "sha256:0"}), dict[str, object](), None

        @staticmethod
        def examples(_pole: str) -> list[object]:
            return []

    def write(version: int) -> None:
        version_now[0] = version
        training._fit(Plan, "friendly")  # type: ignore[arg-type]

    return Writer(where / "train" / "friendly", write, lambda: _plain(where / "train" / "friendly"))


def _evaluation_writer(where: Path, kind: str) -> Writer:
    """The documents of an evaluation, and the map that is fitted on one."""
    records = [evaluated.record(prompts, of=evaluated.arms()[:4]) for prompts in (1, 2)]
    match kind:
        case "record":
            return Writer(where / RECORD, lambda n: write_record(where, records[n]), lambda: held_record(where))
        case "report":
            made = [report(each, evaluated.samples(each), evaluated.measured(each)) for each in records]
            return Writer(where / REPORT, lambda n: write_report(where, made[n]), lambda: _report_of(where))
        case _:
            maps = [planted_soups.document(seed=seed) for seed in range(2)]
            return Writer(where / SURFACE, lambda n: write_surface(where, maps[n]), lambda: read_surface(where))


def _report_of(where: Path) -> object:
    return read_report(where / REPORT) if (where / REPORT).exists() else None


EVALUATIONS = ("record", "report", "surface")
WRITERS = ("file", "folder", "folder in turn", "store", "budget", "adapter", "model", "training", *EVALUATIONS)
CASES = [
    pytest.param(writer, kind, marks=pytest.mark.slow if writer in ("adapter", "model") and kind != "no space" else ())
    for writer in WRITERS
    for kind in KINDS
]


@pytest.fixture
def writer(request: pytest.FixtureRequest, tmp_path: Path, tiny_base: Base, monkeypatch: pytest.MonkeyPatch) -> Writer:
    name = request.param
    if name == "folder in turn":  # as where two names cannot be exchanged
        monkeypatch.setattr(scratch, "_renameat2", None)
    match name:
        case "file":
            return _file_writer(tmp_path)
        case "folder" | "folder in turn":
            return _folder_writer(tmp_path)
        case "store":
            return _store_writer(tmp_path, tiny_base)
        case "budget":
            return _budget_writer(tmp_path, tiny_base)
        case "training":
            return _training_writer(tmp_path, monkeypatch)
        case "record" | "report" | "surface":
            return _evaluation_writer(tmp_path, name)
        case _:
            return _merge_writer(tmp_path, tiny_base, name)


def _failing(writer: Writer, version: int, number: int, kind: str) -> tuple[Faults, BaseException | None]:
    with Faults(number, kind).planted() as faults:
        try:
            writer.write(version)
        except (OSError, KeyboardInterrupt) as error:
            return faults, error
    return faults, None


@pytest.mark.parametrize(("writer", "kind"), CASES, indirect=["writer"])
def test_a_failing_call_never_tears(writer: Writer, kind: str, tmp_path: Path) -> None:
    wholes = {}
    for version in (0, 1):
        writer.write(version)
        wholes[version] = writer.read()
    assert wholes[0] != wholes[1]
    total = _failing(writer, 0, 0, kind)[0].count
    assert total >= 6
    assert debris(tmp_path) == []
    now = 0
    for number in range(1, total + 1):
        faults, error = _failing(writer, 1 - now, number, kind)
        assert faults.hit, number
        if not isinstance(error, KeyboardInterrupt | None):
            assert isinstance(error, OutputError), (number, faults.hit, error)
            assert error.reason == "write-failed"
            assert "cannot write" in str(error)
        found = writer.read()
        assert found in wholes.values(), (number, faults.hit)
        if error is None:
            assert found == wholes[1 - now], (number, faults.hit)
        now = 0 if found == wholes[0] else 1
        writer.write(now)
        assert writer.read() == wholes[now]
        assert debris(tmp_path) == [], (number, faults.hit)


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_folder_is_there_whole_or_not_at_all(kind: str, tmp_path: Path) -> None:
    target = tmp_path / "new"
    with Faults(0, kind).planted() as faults:
        _fill(target, 0, force=False)
    whole = snapshot(target)
    for number in range(1, faults.count + 1):
        for path in (target, tmp_path / "other"):
            scratch.remove(path)
        writer = Writer(target, lambda _: _fill(target, 0, force=False), lambda: _plain(target))
        _, error = _failing(writer, 0, number, kind)
        assert _plain(target) in (None, whole), number
        if kind in ("no space", "input/output error") and error is not None:
            assert isinstance(error, OutputError)
            assert debris(tmp_path) == [] or number < 8, number
        scratch.sweep(tmp_path, target.name)
        assert debris(tmp_path) == []


def test_the_same_faults_tear_a_naive_writer(tmp_path: Path) -> None:
    """The control."""
    target = tmp_path / "naive.json"

    def naive(version: int) -> None:
        with open(target, "w") as file:  # noqa: PTH123  # as the naive do
            for piece in json.JSONEncoder(indent=1).iterencode({"version": version, "list": list(range(50))}):
                file.write(piece)

    naive(0)
    whole = target.read_text()
    writer = Writer(target, naive, lambda: target.read_text())
    total = _failing(writer, 0, 0, "no space")[0].count
    _failing(writer, 1, total // 2, "no space")
    assert target.read_text() not in (whole, whole.replace('"version": 0', '"version": 1'))
