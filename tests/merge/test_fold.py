"""Tensors in blocks against whole matrices: the same bytes and the same norms, on any number of threads."""

import hashlib
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save_file
from torch import Tensor

import soupmix_kernels
from soupmix.base import TensorInfo, read_tensors
from soupmix.errors import BaseModelError, OutputError
from soupmix.merge import fold
from soupmix.merge.fold import Folding, Patch
from soupmix.merge.sink import PENDING, Sink, Stream
from soupmix.merge.stack import Stack, one_thread
from soupmix.merge.tensors import DTYPES, TensorReader, header, spec_of

Bases = Mapping[str, Tensor]
Norms = Mapping[str, tuple[float, float]]
Patches = Mapping[str, Sequence[Patch]]


def _stack(rows: int, columns: int, rank: int, seed: int) -> Stack:
    draw = torch.Generator().manual_seed(seed)
    A, B = torch.randn(rank, columns, generator=draw), torch.randn(rows, rank, generator=draw) * 0.01
    return Stack(A, B, torch.rand(rank, generator=draw).double(), torch.full((rank,), 2.0, dtype=torch.float64))


def _write(where: Path, tensors: Bases, patches: Patches, dtype: str | None, threads: int) -> tuple[bytes, Norms]:
    """The file that is made of these tensors, in the order of their names, and the norms of what was folded."""
    where.mkdir(exist_ok=True)
    save_file(dict(tensors), where / "model.safetensors")
    infos = read_tensors(where)
    specs = [spec_of(name, info, dtype) for name, info in infos.items()]
    sink = Sink(where / "out")
    (where / "out").mkdir(exist_ok=True)
    with TensorReader() as reader, one_thread(), Folding(reader, threads) as folding, sink.stream("made") as stream:
        stream.write(header(specs))
        for spec in specs:
            folding.write(stream, spec, infos[spec.name], patches.get(spec.name, ()))
        folding.finish(stream)
    data = (where / "out" / "made").read_bytes()
    assert sink.digests == {"made": f"sha256:{hashlib.sha256(data).hexdigest()}"}
    return data, folding.norms()


def _whole(weight: Tensor, stack: Stack, dtype: torch.dtype) -> tuple[Tensor, tuple[float, float]]:
    """A matrix at once: folded in one product, rounded once, and its norms, rows in fp32 and their sum in float64."""
    held, ones = stack.weights.float(), torch.ones(stack.rank)
    columns = torch.arange(stack.rank, dtype=torch.int32)
    c = soupmix_kernels.coefficients(held[None], 0 * ones, ones, columns, stack.scale.float())
    merged = soupmix_kernels.merge(weight.float(), stack.A, stack.B, c)[0]
    rounded = merged.to(dtype)
    lost, delta = merged - rounded.float(), merged - weight.float()
    rows = [torch.linalg.vector_norm(each, dim=-1).double() for each in (lost, delta)]
    return rounded, (torch.linalg.vector_norm(rows[0]).item(), torch.linalg.vector_norm(rows[1]).item())


def _near(made: tuple[float, float], expected: tuple[float, float]) -> None:
    """What rounding lost is the same number; how large the delta is comes from its factors, and here from fp32 differences."""
    assert made[0] == expected[0]
    assert made[1] == pytest.approx(expected[1], rel=1e-5)


SHAPES = {"narrow": (1000, 7), "square": (300, 300), "wide": (70, 4000), "one": (1, 900), "tall": (129, 33)}


@pytest.fixture(params=[(2 << 20, 512 << 10), (3000, 2000)])
def _at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold, "_AT_ONCE", request.param[0])
    monkeypatch.setattr(fold, "_IN_CACHE", request.param[1])


@pytest.mark.usefixtures("_at_once")
@pytest.mark.parametrize("written", [None, *DTYPES])
@pytest.mark.parametrize("held", DTYPES)
def test_blocks_give_the_bytes_and_the_norms_of_whole_matrices(held: str, written: str | None, tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(1)
    tensors = {name: torch.randn(shape, generator=draw).to(DTYPES[held]) for name, shape in SHAPES.items()}
    plain = {"untouched": torch.randn(5000, generator=draw).to(DTYPES[held]), "counts": torch.arange(9)}
    stacks = {name: _stack(*shape, rank=3 + 20 * n, seed=n) for n, (name, shape) in enumerate(SHAPES.items())}
    patches = {name: [Patch(f"layer.{name}", 0, stack)] for name, stack in stacks.items()}
    made = [_write(tmp_path / str(n), tensors | plain, patches, written, n) for n in (1, 2, 5)]
    assert made[0] == made[1] == made[2]
    found, dtype = load(made[0][0]), DTYPES[written or held]
    assert torch.equal(found.pop("untouched"), plain["untouched"].to(dtype))
    assert torch.equal(found.pop("counts"), plain["counts"])
    for name, tensor in found.items():
        expected, norms = _whole(tensors[name], stacks[name], dtype)
        assert torch.equal(tensor, expected)
        _near(made[0][1][f"layer.{name}"], norms)


def test_several_deltas_lie_in_one_tensor_with_rows_between_them(tmp_path: Path) -> None:
    weight = torch.randn(200, 50, generator=torch.Generator().manual_seed(3))
    stacks = [_stack(40, 50, 4, 1), _stack(100, 50, 9, 2)]
    patches = {"fused": [Patch("q", 10, stacks[0]), Patch("v", 60, stacks[1])]}
    data, norms = _write(tmp_path, {"fused": weight}, patches, "BF16", 2)
    expected = weight.bfloat16()
    for (first, rows), stack, name in zip(((10, 40), (60, 100)), stacks, "qv", strict=True):
        expected[first : first + rows], found = _whole(weight[first : first + rows], stack, torch.bfloat16)
        _near(norms[name], found)
    assert torch.equal(load(data)["fused"], expected)


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([1000, 2 << 20]))
def test_blocks_are_all_rows_in_turn_and_never_a_few_of_many(rows: int, row: int, at_once: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fold, "_AT_ONCE", at_once)
        blocks = list(fold._row_blocks(rows, row))
    assert [first for first, _ in blocks] == [0, *(end for _, end in blocks[:-1])]
    assert blocks[-1][1] == rows
    sizes = [end - first for first, end in blocks]
    assert min(sizes) >= min(rows, fold._FEWEST_ROWS)
    assert max(sizes) * row <= max(at_once, fold._FEWEST_ROWS * row) + fold._FEWEST_ROWS * row


@pytest.mark.parametrize("broken", [0, 70])
def test_a_block_that_overflows_is_an_error(broken: int, tmp_path: Path) -> None:
    weight = torch.zeros(100, 50)
    weight[broken, 3] = 1e30
    for patches in ({}, {"up": [Patch("up", 0, _stack(100, 50, 2, 1))]}):
        with pytest.raises(OutputError, match="up holds values that do not fit F16") as caught:
            _write(tmp_path, {"up": weight}, patches, "F16", 2)
        assert caught.value.reason == "overflow"


def test_a_file_that_is_cut_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    save_file({"up": torch.ones(100, 50)}, tmp_path / "model.safetensors")
    info = read_tensors(tmp_path)["up"]
    longer = TensorInfo((200, 50), "F32", info.file, info.start, info.end * 2)
    spec = spec_of("up", longer, None)
    with TensorReader() as reader, Folding(reader, 2) as folding, Sink(None).stream("made") as stream:
        folding.write(stream, spec, longer)
        with pytest.raises(BaseModelError, match="was cut short while it was read"):
            folding.finish(stream)


class _Slow(BytesIO):
    """A disk that takes its time, and keeps what it was given at the end of it."""

    def __init__(self, refuse: int = -1) -> None:
        super().__init__()
        self.calls, self._refuse, self.threads = 0, refuse, set[int]()

    def write(self, data: object) -> int:
        self.threads.add(threading.get_ident())
        self.calls += 1
        if self.calls == self._refuse:
            raise OSError(28, "No space left on device")
        time.sleep(0.002)
        return super().write(data)  # type: ignore[arg-type]


def test_pieces_stay_in_order_and_are_released_once_written() -> None:
    file, pieces, released = _Slow(), [bytearray([n]) * 5000 for n in range(20)], list[int]()
    expected = b"".join(pieces)

    def release(number: int) -> None:
        released.append(number)
        pieces[number][:] = b"x" * 5000  # from now on it belongs to somebody else

    with Stream(file, keeps=False) as stream:
        for number, piece in enumerate(pieces):
            stream.write(memoryview(piece), partial(release, number))
            assert number - len(released) < PENDING
        digest = stream.finish()
    assert released == list(range(20))
    assert file.getvalue() == expected
    assert digest == hashlib.sha256(expected).hexdigest()
    assert threading.get_ident() not in file.threads


@pytest.mark.parametrize("refused", [1, 3, 5])
def test_a_disk_that_refuses_a_piece_is_heard(refused: int) -> None:
    def write() -> None:
        with Stream(_Slow(refused), keeps=False) as stream:
            for _ in range(5):
                stream.write(b"piece")
            stream.finish()

    with pytest.raises(OSError, match="No space left"):
        write()
