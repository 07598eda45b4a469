"""`samples.jsonl` is appended to: wherever an append is killed, what was whole stays, and the run goes on behind it."""

import os
from pathlib import Path
from typing import Any

import pytest

from soupmix.evaluate import samples as module
from soupmix.evaluate.record import write_record
from soupmix.evaluate.samples import SAMPLES, open_samples, read_samples, sample_line
from tests.support import evaluated


class Killed(BaseException):
    """As if the process had been killed: nothing that follows in it has any effect."""


def _plant(patch: pytest.MonkeyPatch, count: int) -> None:
    """Let writes put so many bytes on the disk, and kill the one that would go beyond."""
    write, left = os.write, [count]

    def dying(handle: int, data: Any) -> int:
        if left[0] < len(data):
            write(handle, data[: left[0]])
            left[0] = 0
            patch.setattr(module.os, "ftruncate", lambda *_: None)
            raise Killed
        left[0] -= len(data)
        return write(handle, data)

    patch.setattr(module.os, "write", dying)


def test_an_append_that_is_killed_at_any_byte_leaves_what_was_whole(tmp_path: Path) -> None:
    record = evaluated.record(1)
    first, *rest = evaluated.samples(record)[:3]
    write_record(tmp_path, record)
    lines = [sample_line(each) for each in rest]
    ends = [len(lines[0]), len(lines[0]) + len(lines[1])]
    (tmp_path / SAMPLES).write_bytes(sample_line(first))
    for count in sorted({*range(0, ends[1], 37), *(end + off for end in ends for off in (-1, 0, 1))}):
        with open_samples(tmp_path, record) as file, pytest.MonkeyPatch.context() as patch:
            assert list(file.samples.values()) == [first]
            _plant(patch, count)
            try:
                file.append(rest)
            except Killed:
                assert count < ends[1]
        whole = sum(count >= end for end in ends)
        kept = read_samples(tmp_path, record)
        assert [each.key for each in kept] == [each.key for each in (first, *rest)[: 1 + whole]]
        with open_samples(tmp_path, record) as file:
            assert file.cut == (count - [0, *ends][whole] if count < ends[1] else 0)
            file.append([each for each in rest if each.key not in file.samples])
            file.sort()
        assert (tmp_path / SAMPLES).read_bytes() == b"".join(map(sample_line, (first, *rest)))
        (tmp_path / SAMPLES).write_bytes(sample_line(first))
