"""What runs under ncu: every kernel once per shape of 8B after a round that compiles, with L2 flushed before each."""

import sys

import torch

from benchmarks.gpu_day.day import MODELS, OPS, RANK, TOY, K, add, groups

METRICS = (
    *("gpu__time_duration.sum", "dram__bytes_read.sum", "dram__bytes_write.sum", "lts__t_bytes.sum"),
    *("sm__warps_active.avg.pct_of_peak_sustained_active", "launch__registers_per_thread"),
    *("l1tex__data_bank_conflicts_pipe_lsu.sum", "lts__throughput.avg.pct_of_peak_sustained_elapsed"),
)
KERNELS = "regex:shrink|expand|merge|coefficients"


def main(device: str) -> None:
    gpu = device != "cpu"
    shape, rows_all = (MODELS["8B"], (1, 16, 64, 128, 2048)) if gpu else (TOY["toy"], (3,))
    flush = torch.empty((256 << 20) if gpu else 16, dtype=torch.uint8, device=device)
    for counted in (False, True) if gpu else (False,):
        if counted:
            torch.cuda.synchronize()
            torch.cuda.profiler.start()  # ncu --profile-from-start off
        _all(device, shape, rows_all, flush)
    if gpu:
        torch.cuda.synchronize()
        torch.cuda.profiler.stop()


def _all(device: str, shape: tuple[int, ...], rows_all: tuple[int, ...], flush: torch.Tensor) -> None:
    def random(*size: int) -> torch.Tensor:
        return torch.randn(*size, device=device).bfloat16()

    R = K * RANK
    for inputs, widths in groups(shape).values():
        factors = random(len(widths) * R, inputs), random(sum(widths), R)
        for rows in rows_all:
            x, y = random(rows, inputs), random(rows, sum(widths))
            c, who = torch.rand(rows, len(widths) * R, device=device), torch.arange(rows, device=device).int()
            for rank in (0, RANK):
                flush.zero_()
                add(y, x, factors, c, who, widths, rank)
    W, A, B = random(shape[2], shape[0]), random(R, shape[0]), random(shape[2], R)
    for people in (1, 8):
        flush.zero_()
        OPS.merge(W, A, B, torch.rand(people, R, device=device))
    low, high = torch.zeros(K, device=device), torch.ones(K, device=device)
    columns = (torch.arange(3 * R, device=device) % K).int()
    OPS.coefficients(torch.rand(1024, K, device=device), low, high, columns, torch.ones(3 * R, device=device))


if __name__ == "__main__":
    main(sys.argv[1])
