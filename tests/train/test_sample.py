"""Samples are kept by what decides them, and believed only as they were written."""

from dataclasses import replace
from pathlib import Path

import pytest

from soupmix.base import Base
from soupmix.engine import Engine
from soupmix.evaluate import Prompt
from soupmix.policy import Policy
from soupmix.train.sample import NEUTRAL, Chunk, Manner, Sample, SampleSource, chunks, read_samples, sample_chunk

ASKED = tuple(Prompt(f"What is {n}?", "question", ("a",)) for n in range(100))
BRIEF = Manner("brief", ("Be brief.", "Say little."), 6)


@pytest.fixture(scope="module")
def sampled(tiny_base: Base, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Chunk, list[Sample]]:
    folder, chunk = tmp_path_factory.mktemp("samples"), Chunk(SampleSource(tiny_base, ASKED, 2, 0), BRIEF, 3, 5)
    sample_chunk(Engine.load(tiny_base, None), Policy.open(()).clamp({}), chunk, folder)
    found = read_samples(folder, chunk)
    assert found is not None
    return folder, chunk, found


def test_chunks_cover_every_prompt_once(tiny_base: Base) -> None:
    made = chunks(SampleSource(tiny_base, ASKED, 2, 0), {NEUTRAL, BRIEF})
    cells = [(chunk.pool, n) for chunk in made for n in range(chunk.start, chunk.stop)]
    assert sorted(cells, key=str) == sorted(((pool, n) for pool in (NEUTRAL, BRIEF) for n in range(100)), key=str)


def test_samples_are_of_every_prompt_and_system_prompt_in_turn(sampled: tuple[Path, Chunk, list[Sample]]) -> None:
    _, _, found = sampled
    assert [(each.prompt, each.variant, each.system) for each in found] == [
        (3, 0, "Say little."),
        (3, 1, "Be brief."),
        (4, 0, "Be brief."),
        (4, 1, "Say little."),
    ]


def test_a_base_with_few_positions_says_less(tiny_base: Base, tmp_path: Path) -> None:
    long = replace(BRIEF, cap=5000)
    chunk = Chunk(SampleSource(tiny_base, ASKED[:1], 1, 0), long, 0, 1)
    engine = Engine.load(tiny_base, None)
    sample_chunk(engine, Policy.open(()).clamp({}), chunk, tmp_path)
    found = read_samples(tmp_path, chunk)
    assert found is not None
    assert len(found[0].text) <= engine.model.config.max_position_embeddings


def test_a_chunk_is_known_by_all_that_decides_it(tiny_base: Base) -> None:
    source = SampleSource(tiny_base, ASKED, 2, 0)
    chunk = Chunk(source, BRIEF, 0, 10)
    others = [
        replace(chunk, source=replace(source, seed=1)),
        replace(chunk, source=replace(source, variants=3)),
        replace(chunk, source=replace(source, temperature=0.8)),
        replace(chunk, source=replace(source, prompts=ASKED[1:])),
        replace(chunk, source=replace(source, base=replace(tiny_base, digest="sha256:" + "0" * 64))),
        replace(chunk, pool=replace(BRIEF, systems=("Be brief.",))),
        replace(chunk, pool=replace(BRIEF, cap=7)),
        replace(chunk, stop=9),
    ]
    assert len({each.file for each in (chunk, *others)}) == 1 + len(others)
    assert replace(chunk, source=replace(source, prompts=ASKED[:10])).file == chunk.file  # others come behind it


def test_a_damaged_file_is_sampled_anew(sampled: tuple[Path, Chunk, list[Sample]], tmp_path: Path) -> None:
    folder, chunk, found = sampled
    whole = (folder / chunk.file).read_bytes()
    lines = whole.splitlines(keepends=True)
    damaged = [
        b"",
        whole[:-9],
        b"".join(lines[:-1]),
        b"".join([*lines, lines[-1]]),
        b"".join(lines[::-1]),
        whole.replace(b'"variant": 1', b'"variant": "1"'),
        whole.replace(b'"finished": ', b'"finished": 1, "was": '),
        whole.replace(b"Be brief.", b"Be rude."),
        b"null\n" * len(lines),
        b"[" * 100_000,
        b"\xff" + whole,
    ]
    for text in damaged:
        (tmp_path / chunk.file).write_bytes(text)
        assert read_samples(tmp_path, chunk) is None
    (tmp_path / chunk.file).unlink()
    (tmp_path / chunk.file).symlink_to(folder / chunk.file)
    assert read_samples(tmp_path, chunk) is None
    assert read_samples(folder, chunk) == found
