"""Decode steps: the linear layers of a whole model over one token a row, in every way that people could be told apart."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import linear

from benchmarks.gpu_day import rivals
from benchmarks.gpu_day.day import RANK, Day, Work, add, groups, own
from soupmix_kernels import reference
from soupmix_kernels.jit import launch

BF16 = torch.bfloat16
PEOPLE = 64  # of whom merged adapters are held: more rows share them


class Net:
    """Weights and factors of the layers that are held, all different."""

    def __init__(self, day: Day, shape: tuple[int, ...]) -> None:
        self.groups, (self.layers, self.held) = groups(shape), shape[3:]
        self.pools = {name: day.pool(inputs, widths) for name, (inputs, widths) in self.groups.items()}
        self.weights = [
            {
                name: day.random(sum(widths), inputs, seed=n) / inputs**0.5
                for name, (inputs, widths) in self.groups.items()
            }
            for n in range(self.held)
        ]
        self.factors = [{name: own(pool) for name, pool in self.pools.items()} for _ in range(self.held)]

    @property
    def bytes(self) -> int:
        """Of the weights that are held."""
        return sum(each.nbytes for layer in self.weights for each in layer.values())


class Batch:
    """Rows of a step, all of different people, and the ways to compute it."""

    def __init__(self, day: Day, net: Net, rows: int) -> None:
        self.day, self.net, self.rows = day, net, rows
        self.x = {inputs: day.random(rows, inputs, seed=inputs) for inputs, _ in net.groups.values()}
        self.who = torch.arange(rows, device=day.device, dtype=torch.int32)
        self.c = {name: day.people(pool, rows).values for name, pool in net.pools.items()}
        self.factor = {name: day.people(pool, rows, "factor").values for name, pool in net.pools.items()}

    def variants(self) -> dict[str, Work]:
        """Name -> a step; "base" is what everything is told in terms of."""
        found: dict[str, Work] = {
            "base": lambda: self._each(lambda n, name, x, y: None),
            "soup delta": lambda: self._each(self._soup(self.c, 0)),
            "soup factor": lambda: self._each(self._soup(self.factor, RANK)),
            "one adapter, in torch": lambda: self._each(self._plain),
        }
        if self.day.gpu:
            found["soup delta, shrink on a second stream"] = self._overlapped(torch.cuda.Stream())
        if (room := self._room()) is not None:
            found["gather of merged adapters"] = self._gathering(room)
        if self.day.tiny or self.net.bytes * 1.1 < torch.cuda.mem_get_info()[0] * 0.8:
            found["one GEMM over [W | B]"] = self._wide()
        return found

    def off(self) -> str:
        """What is wrong with a step of the first layer; nothing if all variants are near float64."""
        for name, (inputs, widths) in self.net.groups.items():
            x, W, (A, B), c = self.x[inputs], self.net.weights[0][name], self.net.factors[0][name], self.c[name]
            y = linear(x, W)
            base, exact = y.clone(), x.double() @ W.double().T
            exact = reference.soup_linear(exact, x, A, B, c, self.who, widths)
            add(y, x, (A, B), c, self.who, widths, 0)
            wide = torch.empty(self.rows, inputs + len(A), device=x.device, dtype=BF16)
            wide[:, :inputs] = x
            one = linear(rivals.tail(wide, inputs, A, self.who, c), rivals.wide_weight(W, B, widths))
            rounding, plain = (exact.to(BF16).double() - exact).norm(), (base.double() - exact).norm()
            for what, got in (("the soup", y), ("one GEMM", one)):
                error = (got.double() - exact).norm()
                if not (error <= 6 * rounding and error < 0.5 * plain):
                    return f"{name}: {what} is off by {error:.3g}, rounding is {rounding:.3g}, the base is off by {plain:.3g}"
        return ""

    def _each(self, more: Callable[[int, str, Tensor, Tensor], object]) -> None:
        for n, layer in enumerate(self.net.weights):
            for name, (inputs, _) in self.net.groups.items():
                x = self.x[inputs]
                more(n, name, x, linear(x, layer[name]))

    def _soup(self, table: dict[str, Tensor], rank: int) -> Callable[..., None]:
        def more(n: int, name: str, x: Tensor, y: Tensor) -> None:
            add(y, x, self.net.factors[n][name], table[name], self.who, self.net.groups[name][1], rank)

        return more

    def _plain(self, n: int, name: str, x: Tensor, y: Tensor) -> None:
        """PEFT's forward without its Python."""
        (A, B), at = self.net.factors[n][name], 0
        for s, width in enumerate(self.net.groups[name][1]):
            first = s * B.shape[1]
            y[:, at : at + width] += linear(linear(x, A[first : first + RANK]), B[at : at + width, :RANK])
            at += width

    def _overlapped(self, side: "torch.cuda.Stream") -> Work:
        """The memory of h is used again by the next shrink only, which waits for what was expanded."""

        def step() -> None:
            main = torch.cuda.current_stream()
            for layer, factors in zip(self.net.weights, self.net.factors, strict=True):
                for name, (inputs, widths) in self.net.groups.items():
                    x, (A, B) = self.x[inputs], factors[name]
                    side.wait_stream(main)
                    with torch.cuda.stream(side):
                        h = launch.shrink(x, A)
                    y = linear(x, layer[name])
                    main.wait_stream(side)
                    launch.expand_into(y, h, B, self.c[name], self.who, widths)

        return step

    def _room(self) -> int | None:
        """How many layers' merged adapters of everybody fit into a quarter of what is free; None: not one layer's."""
        own = min(self.rows, PEOPLE)
        layer = own * sum(
            (len(widths) * inputs + sum(widths)) * RANK * 2 for inputs, widths in self.net.groups.values()
        )
        free = 1 << 30 if self.day.tiny else torch.cuda.mem_get_info()[0]
        return min(self.net.held, int(free / 4 // layer)) or None

    def _gathering(self, held: int) -> Work:
        own, device = min(self.rows, PEOPLE), self.day.device
        mine = (torch.arange(self.rows, device=device) % own).int()
        tables = [
            {
                name: (
                    torch.ones(own, len(widths) * RANK, inputs, device=device, dtype=BF16),
                    torch.ones(own, sum(widths), RANK, device=device, dtype=BF16),
                )
                for name, (inputs, widths) in self.net.groups.items()
            }
            for _ in range(held)
        ]

        def more(n: int, name: str, x: Tensor, y: Tensor) -> None:
            (A, B), at = tables[n % held][name], 0
            for s, width in enumerate(self.net.groups[name][1]):
                a, b = A[:, s * RANK : (s + 1) * RANK], B[:, at : at + width]
                rivals.gather_(y[:, at : at + width], x, a, b, mine)
                at += width

        return lambda: self._each(more)

    def _wide(self) -> Work:
        net = self.net
        weights = [
            {name: rivals.wide_weight(W[name], f[name][1], net.groups[name][1]) for name in net.groups}
            for W, f in zip(net.weights, net.factors, strict=True)
        ]
        inputs = {
            name: torch.empty(self.rows, weights[0][name].shape[1], device=self.day.device, dtype=BF16)
            for name in net.groups
        }
        for name, (count, _) in net.groups.items():
            inputs[name][:, :count] = self.x[count]

        def step() -> None:
            for layer, factors in zip(weights, net.factors, strict=True):
                for name, (count, _) in net.groups.items():
                    linear(rivals.tail(inputs[name], count, factors[name][0], self.who, self.c[name]), layer[name])

        return step
