"""What runs under compute-sanitizer: a case of every op and family of shapes, with NaN around what may be touched."""

import sys

import torch

from tests.support import battery

WANTED = (
    *("coefficients-3x5", "coefficients-1x40", "soup_linear-1-", "soup_linear-3-", "soup_linear-6-"),
    *("soup_linear_factor-3-", "soup_linear_factor-6-", "merge-1-", "merge-4-", "merge-6-", "layouts", "empty"),
)


def main(device: str, only: str = "") -> int:
    checks = [check for name, check in battery.cases() if any(each in name for each in WANTED) and only in name]
    with torch.device(device):
        for check in checks:
            check()
    print(len(checks), "cases")
    return 0 if checks else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
