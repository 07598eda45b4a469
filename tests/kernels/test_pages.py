"""Copies in large pages are the tensors, bit for bit, and lie where the system keeps pages of 2 MB."""

import mmap
from pathlib import Path

import pytest
import torch

from soupmix_kernels.compiled import LargePages

HAS = hasattr(mmap, "MADV_HUGEPAGE")
SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
TENSORS = [
    torch.randn(7, 33).bfloat16(),
    torch.randn(5),
    torch.arange(12, dtype=torch.uint8).view(3, 4),
    torch.randn(6, 4).t(),
    torch.empty(0, 3),
]


@pytest.mark.skipif(not HAS, reason="no large pages here")
def test_copies_are_the_tensors_and_lie_apart() -> None:
    pages = LargePages(TENSORS)
    copies = [pages.copy(each) for each in TENSORS]
    for tensor, copy in zip(TENSORS, copies, strict=True):
        assert copy.dtype == tensor.dtype
        assert torch.equal(copy, tensor)
        assert not tensor.numel() or (copy.is_contiguous() and copy.data_ptr() % 64 == 0)
    for one in copies[:-1]:
        before = [each.clone() for each in copies]
        one.zero_()
        assert all(each is one or torch.equal(each, was) for each, was in zip(copies, before, strict=True))


@pytest.mark.skipif(not HAS, reason="no large pages here")
def test_no_more_is_copied_than_was_said() -> None:
    pages = LargePages([torch.zeros(3)])
    with pytest.raises(ValueError, match="do not fit"):
        pages.copy(torch.zeros(8 << 20, dtype=torch.uint8))


def test_where_there_are_none_tensors_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    pages = LargePages(TENSORS)
    assert all(pages.copy(each) is each for each in TENSORS)


@pytest.mark.skipif(not HAS or not SETTING.is_file() or "[never]" in SETTING.read_text(), reason="none are given here")
def test_they_lie_in_large_pages() -> None:
    large = torch.ones(16 << 20, dtype=torch.uint8)
    copy = LargePages([large]).copy(large)
    place, found = copy.data_ptr(), 0
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head = line.split()[0]
        if "-" in head and not head.endswith(":"):
            first, end = (int(each, 16) for each in head.split("-"))
            inside = first <= place < end
        elif inside and head == "AnonHugePages:":
            found = int(line.split()[1])
    assert found >= 14 << 10
