"""The rows of a step, and layers that add their soups: held against plain arithmetic, request by request."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from soupmix.errors import RecipeError
from soupmix.vllm_plugin.step import StepRows, add_soup, compiled_here, serve
from soupmix.vllm_plugin.supported import VERSIONS, check_version
from soupmix.weights import MILLION
from soupmix_kernels import Part, Pool
from soupmix_kernels.compiled import CompiledSoup

K, INPUTS, OUT, MOST = 3, 8, 6, (MILLION, MILLION, 500_000)
CPU = torch.device("cpu")


def _parts(seed: int = 0) -> list[Part]:
    draw = torch.Generator().manual_seed(seed)
    return [
        Part(k, torch.randn(2, INPUTS, generator=draw), torch.randn(OUT, 2, generator=draw), 0.5 + k) for k in range(K)
    ]


def _pool(parts: Sequence[Part]) -> Pool:
    return Pool.stack([parts], [OUT], inputs=INPUTS, dtype=torch.float32, device=CPU)


def _rows(people: int = 4, tokens: int = 32) -> StepRows:
    return StepRows(MOST, people, tokens, CPU)


def _alone(x: Tensor, weights: Sequence[int], parts: Sequence[Part]) -> Tensor:
    held = [min(max(each, 0), most) / MILLION for each, most in zip(weights, MOST, strict=True)]
    return sum(
        (w * p.scaling * (x @ p.A.T @ p.B.T) for w, p in zip(held, parts, strict=True)), torch.zeros(len(x), OUT)
    )


def _step(rows: StepRows, layer: int, said: dict[str, int], x: Tensor) -> Tensor:
    rows.write(list(said), list(said.values()))
    y = torch.zeros(len(x), OUT)
    rows.add(y, x, layer)
    return y


def test_every_token_has_the_soup_of_its_own_request() -> None:
    rows, parts, people = _rows(), _parts(), {"a": (MILLION, 0, 0), "b": (300_000, 200_000, 900_000), "base": (0, 0, 0)}
    layer = rows.layer(_pool(parts))
    for name, weights in people.items():
        rows.learn(name, weights)
    x = torch.randn(9, INPUTS)
    for counts in ({"a": 2, "base": 3, "b": 4}, {"b": 1, "a": 7, "base": 1}, {"base": 9}, {"b": 9}):
        y, at = _step(rows, layer, counts, x), 0
        for name, count in counts.items():
            torch.testing.assert_close(y[at : at + count], _alone(x[at : at + count], people[name], parts))
            at += count


def test_rows_of_the_base_keep_their_very_bits() -> None:
    rows = _rows()
    layer = rows.layer(_pool(_parts()))
    rows.learn("a", (MILLION, MILLION, MILLION))
    y = torch.full((3, OUT), -0.0)
    rows.write(["base", "a", "unknown"], [1, 1, 1])
    rows.add(y, torch.randn(3, INPUTS), layer)
    assert torch.signbit(y[[0, 2]]).all()
    assert not torch.equal(y[1], torch.zeros(OUT))


def test_requests_come_go_wait_and_come_back() -> None:
    rows, parts, draw = _rows(people=3), _parts(), torch.Generator().manual_seed(1)
    layer, weights = rows.layer(_pool(parts)), dict[str, tuple[int, ...]]()
    for step in range(60):
        for name in list(weights):
            if torch.rand(1, generator=draw) < 0.2:
                rows.forget([name])
                del weights[name]
        name = f"r{step % 7}"  # a name that ended may come again, with other weights
        if name not in weights:
            weights[name] = tuple(torch.randint(0, MILLION, (K,), generator=draw).tolist())
            rows.learn(name, weights[name])
        order = torch.randperm(len(weights), generator=draw)[:3].tolist()
        counts = {list(weights)[i]: 1 + i for i in order}
        x = torch.randn(sum(counts.values()), INPUTS, generator=draw)
        wanted = torch.cat(
            [_alone(x_, weights[n], parts) for n, x_ in zip(counts, x.split(list(counts.values())), strict=True)]
        )
        torch.testing.assert_close(_step(rows, layer, counts, x), wanted, rtol=1e-4, atol=1e-5)


def test_one_set_of_coefficients_serves_all_layers_with_the_same_columns() -> None:
    rows, parts, others = _rows(), _parts(), _parts(1)
    layers = [rows.layer(_pool(each)) for each in (parts, others)]
    thin = rows.layer(Pool.stack([parts[:1]], [OUT], inputs=INPUTS, dtype=torch.float32, device=CPU))
    rows.learn("a", (400_000, 0, 0))
    rows.write(["a"], [2])
    x = torch.randn(2, INPUTS)
    for layer, held in zip((*layers, thin), (parts, others, parts), strict=True):
        y = torch.zeros(2, OUT)
        rows.add(y, x, layer)
        torch.testing.assert_close(y, _alone(x, (400_000, 0, 0), held))


def test_what_a_step_does_not_have_is_nobodys() -> None:
    rows = _rows()
    layer = rows.layer(_pool(_parts()))
    rows.learn("a", (MILLION, 0, 0))
    rows.write(["a"], [5])
    assert rows.tokens[:6].tolist() == [0, 0, 0, 0, 0, -1]
    with pytest.raises(RuntimeError, match="4 tokens of a step of 5"):
        rows.add(torch.zeros(4, OUT), torch.randn(4, INPUTS), layer)
    rows.clear()
    y = torch.zeros(7, OUT)
    rows.add(y, torch.randn(7, INPUTS), layer)
    assert (rows.tokens == -1).all()
    assert not y.any()


def test_the_buffers_that_kernels_read_stay_where_they_are() -> None:
    rows = _rows()
    rows.layer(_pool(_parts()))
    at = rows.tokens.data_ptr()
    for number in range(5):
        rows.learn(f"r{number}", (MILLION, 0, 0))
        rows.write([f"r{number}"], [number + 1])
    assert rows.tokens.data_ptr() == at


def test_a_traced_layer_reads_the_rows_of_now() -> None:
    rows, parts = _rows(), _parts()
    layer = rows.layer(_pool(parts))
    serve(rows)

    def forward(x: Tensor) -> Tensor:
        y = torch.zeros(len(x), OUT)
        add_soup(y, x, layer)
        return y

    compiled, x = torch.compile(forward, backend="eager", fullgraph=True), torch.randn(2, INPUTS)
    for weights in ((MILLION, 0, 0), (0, MILLION, 0)):
        rows.learn("a", weights)
        rows.write(["a"], [2])
        torch.testing.assert_close(compiled(x), _alone(x, weights, parts))


def test_an_unknown_vllm_is_refused_in_one_sentence() -> None:
    check_version(VERSIONS[0])
    check_version(f"{VERSIONS[0]}+cpu")
    for version in ("0.33.0", "0.31.0", "dev", ""):
        with pytest.raises(RecipeError, match="install one of those") as caught:
            check_version(version)
        assert caught.value.reason == "vllm-version"


def test_layers_in_bf16_are_computed_alike_by_the_compiled_kernel_and_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    made = compiled_here(torch.bfloat16, CPU)
    if made is None:
        pytest.skip("no compiled soup here")
    draw, inputs, widths = torch.Generator().manual_seed(3), 64, ((40, 24), (64,), (24,), (12, 12))
    pools = [_half(draw, inputs, each, 16 * (1 + (len(each) == 1))) for each in widths]
    both = [StepRows(MOST, 4, 64, CPU, each) for each in (made, None)]
    layers = [[rows.layer(pool) for pool in pools] for rows in both]
    assert isinstance(both[0]._layers[0][0], CompiledSoup)
    for step, said in enumerate(({"a": 2, "base": 30, "b": 9}, {"b": 1, "a": 1, "base": 1}, {"c": 5}, {"base": 4})):
        x = torch.randn(sum(said.values()), inputs, generator=draw).bfloat16()
        found = []
        for rows, numbers in zip(both, layers, strict=True):
            if step in (0, 2):  # somebody comes whom nobody has seen
                rows.learn("a", (MILLION, step, 0))
                rows.learn("b", (300_000, 200_000, 900_000))
                rows.learn("c", (700_000, 0, 2_000_000))
            rows.write(list(said), list(said.values()))
            ys = [torch.full((len(x), sum(each)), -0.0, dtype=torch.bfloat16) for each in widths]
            for y, number in zip(ys, numbers, strict=True):
                rows.add(y, x, number)
            found.append(torch.cat(ys, 1))
        torch.testing.assert_close(*found, rtol=0.05, atol=0.05)
        bare = torch.tensor([name == "base" for name, count in said.items() for _ in range(count)])
        assert torch.signbit(found[0][bare]).all()
        assert bare.all() or found[0][~bare].any()
    assert compiled_here(torch.float32, CPU) is None
    monkeypatch.setenv("SOUPMIX_KERNELS", "reference")
    assert compiled_here(torch.bfloat16, CPU) is None


def _half(draw: torch.Generator, inputs: int, widths: Sequence[int], rank: int) -> Pool:
    parts = [
        [Part(0, torch.randn(rank, inputs, generator=draw) / 8, torch.randn(out, rank, generator=draw) / 4, 1.0)]
        for out in widths
    ]
    return Pool.stack(parts, widths, inputs=inputs, dtype=torch.bfloat16, device=CPU)
