"""The compiled step against the same decoder written down in float64, on every instruction set that this processor has."""

import ctypes
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, silu

from soupmix_kernels.compiled import CannotCompile, Decoder, DecoderLayer, Product, build, instructions, library
from tests.support.decoders import (
    ADAPTERS,
    BEST,
    HEADS,
    KEYS,
    LENGTH,
    PEOPLE,
    SIZE,
    TEXTS,
    VOCABULARY,
    Draw,
    Running,
    library_for,
)

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler here")

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
ACTS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": silu,
    "gelu by tanh": lambda x: gelu(x, approximate="tanh"),
    "gelu": gelu,
}


class Reference:
    """One row in float64: all tokens at once, no cache; c: coefficients over the columns of every table."""

    def __init__(self, d: Decoder, c: Sequence[Tensor] | None, factor: bool) -> None:
        self.d, self.c, self.factor = d, c, factor

    def product(self, each: Product, x: Tensor) -> Tensor:
        y = x @ each.weight.double().t() + (0 if each.bias is None else each.bias.double())
        pool = each.pool
        if pool is None or self.c is None:
            return y
        R, made = pool.B.shape[1], []
        for s, B in enumerate(pool.B.double().split(list(pool.widths))):
            A, c = pool.A.double()[s * R : (s + 1) * R], self.c[each.table].double()[s * R : (s + 1) * R]
            if self.factor:
                A, B = (
                    sum(c[k : k + pool.rank, None] * A[k : k + pool.rank] for k in range(0, R, pool.rank)),
                    sum(c[k : k + pool.rank] * B[:, k : k + pool.rank] for k in range(0, R, pool.rank)),
                )
                made.append(x @ A.t() @ B.t())
            else:
                made.append((x @ A.t() * c) @ B.t())
        return y + torch.cat(made, -1)

    def products(self, many: Sequence[Product], x: Tensor) -> Tensor:
        return torch.cat([self.product(each, x) for each in many], -1)

    def normed(self, x: Tensor, weight: Tensor | None) -> Tensor:
        if weight is None:
            return x
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.d.epsilon) * weight.double()

    def turned(self, x: Tensor, norm: Tensor | None, table: int | None) -> Tensor:
        x = self.normed(x, norm)
        if table is None:
            return x
        (a, b), n = x.chunk(2, -1), len(x)
        cos, sin = self.d.cos[table, :n, None].double(), self.d.sin[table, :n, None].double()
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def capped(self, x: Tensor, cap: float) -> Tensor:
        return cap * (x / cap).tanh() if cap else x

    def attention(self, layer: DecoderLayer, x: Tensor) -> Tensor:
        n = len(x)
        q, k, v = self.products(layer.qkv, x).view(n, -1, SIZE).split([HEADS, KEYS, KEYS], 1)
        q, k = self.turned(q, layer.query_norm, layer.angles), self.turned(k, layer.key_norm, layer.angles)
        k, v = (each.repeat_interleave(HEADS // KEYS, 1) for each in (k, v))
        scores = self.capped(torch.einsum("thd,shd->hts", q, k) * self.d.scale, self.d.score_cap)
        t, s = torch.arange(n)[:, None], torch.arange(n)
        seen = (s <= t) & ((t - s < layer.window) if layer.window else True)
        return torch.einsum("hts,shd->thd", scores.masked_fill(~seen, -torch.inf).softmax(-1), v).flatten(1)

    def logits(self, tokens: Sequence[int]) -> Tensor:
        d = self.d
        x = d.embedding[list(tokens)].double() * d.embedding_scale
        for layer in d.layers:
            added = self.product(layer.o, self.attention(layer, self.normed(x, layer.before_attention)))
            x = x + d.residual_scale * self.normed(added, layer.after_attention)
            gate, up = self.products(layer.gate_up, self.normed(x, layer.before_mlp)).chunk(2, -1)
            added = self.product(layer.down, ACTS[d.activation](gate) * up)
            x = x + d.residual_scale * self.normed(added, layer.after_mlp)
        return self.capped(self.product(d.head, self.normed(x, d.norm)) * d.logit_scale, d.logit_cap)


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ctypes.CDLL]:
    """By the names of their instructions."""
    return partial(library_for, folder=tmp_path_factory.mktemp("step"))


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has loaded no library, and compiles in a moment."""
    monkeypatch.setattr(build, "_loaded", {})
    monkeypatch.setattr(build, "_FLAGS", (*build._FLAGS, "-O0"))


def expected(decoder: Decoder, weights: Tensor, tokens: Sequence[int], running: Running) -> Tensor:
    served = [each.gathered.c[0] for each in running.soups(weights[None], torch.zeros(1, dtype=torch.int64))]  # type: ignore[union-attr]
    return Reference(decoder, served if bool(weights.any()) else None, running.factor).logits(tokens)


@pytest.mark.parametrize("name", instructions())
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("factor", [False, True], ids=["delta", "factor"])
def test_it_computes_the_decoder(name: str, dtype: str, factor: bool, libraries: Callable[[str], Any]) -> None:
    """Prompts in parts, beside each other, then token by token."""
    decoder = Draw(DTYPES[dtype], one_rank=factor).decoder()
    running = Running(decoder, libraries(name), factor=factor)
    first = [(slot, 0, text[:5]) for slot, text in enumerate(TEXTS)]
    found = [list(each) for each in running.feed(first, PEOPLE).split([len(text[:5]) for text in TEXTS])]
    for place in range(5, 12):
        fed = [(slot, place, [text[place]]) for slot, text in enumerate(TEXTS) if len(text) > place]
        people = PEOPLE[[slot for slot, _, _ in fed]]
        for (slot, _, _), logits in zip(fed, running.feed(fed, people), strict=True):
            found[slot].append(logits)
    for slot, text in enumerate(TEXTS):
        truth = expected(decoder, PEOPLE[slot], text, running)
        off = (torch.stack(found[slot]).double() - truth).norm() / truth.norm()
        assert off < {"fp32": 2e-6, "bf16": 1.2e-2}[dtype]


@pytest.mark.parametrize("activation", ACTS)
def test_every_activation(activation: str, libraries: Callable[[str], Any]) -> None:
    decoder = Draw(torch.float32).decoder(activation)
    running = Running(decoder, libraries(BEST))
    truth = expected(decoder, PEOPLE[0], TEXTS[0], running)
    assert (running.feed([(0, 0, TEXTS[0])], PEOPLE[:1]).double() - truth).norm() / truth.norm() < 2e-6


@pytest.mark.parametrize("name", instructions())
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_has_the_same_bits_whoever_is_beside_it(name: str, dtype: str, libraries: Callable[[str], Any]) -> None:
    decoder = Draw(DTYPES[dtype]).decoder()
    together, parts = Running(decoder, libraries(name)), torch.get_num_threads()
    found = together.feed([(slot, 0, text) for slot, text in enumerate(TEXTS)], PEOPLE).split(list(map(len, TEXTS)))
    for slot, text in enumerate(TEXTS):
        alone = Running(decoder, libraries(name))
        torch.set_num_threads(3)  # nor on how many threads compute
        try:
            one = torch.cat([alone.feed([(2, n, [token])], PEOPLE[[slot]]) for n, token in enumerate(text)])
        finally:
            torch.set_num_threads(parts)
        assert torch.equal(one, found[slot])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", dict.fromkeys([BEST, *(each for each in instructions() if each == "avx2")]))
def test_a_row_has_the_same_bits_among_so_many(name: str, dtype: str, libraries: Callable[[str], Any]) -> None:
    """A product takes four rows at a time, widens many, and a soup takes those of which one at least has a coefficient."""
    decoder, most = Draw(DTYPES[dtype]).decoder(), 65
    people = torch.rand(most, ADAPTERS, generator=torch.Generator().manual_seed(1)) * (torch.arange(most)[:, None] % 3)
    fed = [(slot, 0, [slot % VOCABULARY]) for slot in range(most)]
    everybody = Running(decoder, libraries(name), most).feed(fed, people)
    assert torch.equal(everybody[::3], Running(decoder, libraries(name), most).feed(fed[::3], people[::3], bare=True))
    for rows in (1, 2, 3, 4, 5, 16, 63, 64):
        for first in (0, most - rows):
            mine = slice(first, first + rows)
            found = Running(decoder, libraries(name), most).feed(fed[mine], people[mine])
            assert torch.equal(found, everybody[mine]), (rows, first)


def test_a_row_of_nobody_is_the_base(libraries: Callable[[str], Any]) -> None:
    decoder = Draw(torch.bfloat16).decoder()
    running, fed = Running(decoder, libraries(BEST)), [(slot, 0, text) for slot, text in enumerate(TEXTS)]
    served = running.feed(fed, PEOPLE).split(list(map(len, TEXTS)))
    base = running.feed(fed, PEOPLE, bare=True).split(list(map(len, TEXTS)))
    assert torch.equal(served[1], base[1])
    assert not torch.equal(served[0], base[0])


def test_a_coefficient_of_zero_excludes(libraries: Callable[[str], Any]) -> None:
    """The second adapter overflows in the middle, for everybody; who has none of it does not notice."""
    fed = [(slot, 0, text) for slot, text in enumerate(TEXTS)]
    expected = Running(Draw(torch.float32).decoder(), libraries(BEST)).feed(fed, PEOPLE).split(list(map(len, TEXTS)))
    decoder = Draw(torch.float32).decoder()  # the same once more: factors are copied at their first use
    for each in decoder.products:
        if each.pool is not None:
            each.pool.A[each.pool.columns == 1] = 3e38
    found = Running(decoder, libraries(BEST)).feed(fed, PEOPLE).split(list(map(len, TEXTS)))
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    assert not found[2].isfinite().all()


def test_nan_stays_in_its_row(libraries: Callable[[str], Any]) -> None:
    decoder = Draw(torch.bfloat16).decoder()
    fed = [(slot, 0, text) for slot, text in enumerate(TEXTS[:3])]
    expected = Running(decoder, libraries(BEST)).feed(fed, PEOPLE[:3])
    decoder.embedding[39] = math.nan
    fed[1] = (1, 0, [39, 39, 39])
    found = Running(decoder, libraries(BEST)).feed(fed, PEOPLE[:3])
    mine = torch.arange(len(found))[12:15]
    assert found[mine].isnan().all()
    others = [n for n in range(len(found)) if n not in mine]
    assert torch.equal(found[others], expected[others])


def test_numbers_that_are_not_there_are_refused(libraries: Callable[[str], Any]) -> None:
    decoder = Draw(torch.float32).decoder()
    running = Running(decoder, libraries(BEST))
    for slot, first, tokens in ((0, 0, [VOCABULARY]), (0, 0, [-1]), (4, 0, [1]), (-1, 0, [1]), (0, LENGTH, [1])):
        with pytest.raises(ValueError, match="numbers from 0 to"):
            running.feed([(slot, first, tokens)], PEOPLE[:1])
    with pytest.raises(ValueError, match="one rank"):
        Running(decoder, libraries(BEST)).step(
            *(torch.zeros(1, dtype=torch.int64) for _ in range(4)), [], [], factor=True
        )
    soups = running.soups(PEOPLE[:1], torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="coefficients of every row"):
        running.step(*(torch.zeros(1, dtype=torch.int64) for _ in range(4)), soups, soups)
    with pytest.raises(ValueError, match="weights"):
        replace(decoder, heads=2, key_heads=2)
    with pytest.raises(TypeError, match="fp32 or bf16"):
        replace(decoder, embedding=decoder.embedding.half())


@pytest.mark.usefixtures("unloaded")
def test_a_library_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library(tmp_path / "step", "plain")
    (made,) = (tmp_path / "step").iterdir()
    monkeypatch.setattr(build, "_loaded", {})
    monkeypatch.setattr(build, "_compile", lambda *_: pytest.fail("compiled again"))
    library(tmp_path / "step", "plain")
    assert [made] == list((tmp_path / "step").iterdir())


@pytest.mark.usefixtures("unloaded")
def test_a_damaged_library_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, made = build._compile, []

    def torn(command: list[str], path: Path) -> None:
        made.append(path)
        path.write_bytes(b"\x7fELF") if len(made) == 1 else whole(command, path)

    monkeypatch.setattr(build, "_compile", torn)
    assert library(tmp_path / "step", "plain").soupmix_step
    assert len(made) == 2


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize("mode", [0o777, 0o770], ids=["everybody", "a group"])
def test_code_is_not_loaded_from_where_others_write(tmp_path: Path, mode: int) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(mode)
    for folder in (tmp_path / "open", tmp_path / "open" / "step"):
        with pytest.raises(CannotCompile, match="can be written by others"):
            library(folder, "plain")


@pytest.mark.usefixtures("unloaded")
def test_a_library_that_others_can_write_or_that_is_a_link_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written(_: list[str], path: Path) -> None:
        path.write_bytes(b"")
        path.chmod(0o777)

    monkeypatch.setattr(build, "_compile", written)
    with pytest.raises(CannotCompile, match="can be written by others"):
        library(tmp_path / "step", "plain")
    (made,) = (tmp_path / "step").iterdir()
    elsewhere = made.rename(tmp_path / "elsewhere.so")
    made.symlink_to(elsewhere)
    monkeypatch.setattr(build, "_compile", lambda *_: None)
    with pytest.raises(CannotCompile, match="symbolic link"):
        library(tmp_path / "step", "plain")


@pytest.mark.usefixtures("unloaded")
def test_without_a_compiler_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotCompile, match=r"no C\+\+ compiler"):
        library(tmp_path / "step", "plain")
    monkeypatch.setenv("CXX", "/bin/false")
    with pytest.raises(CannotCompile, match="/bin/false failed"):
        library(tmp_path / "step", "plain")
    assert list((tmp_path / "step").iterdir()) == []
