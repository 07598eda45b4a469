"""The picture: what is kept of each dimension in every pair and corner."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from weights_do.composed import decided, nearest
from weights_do.text import Report, luck, plain, weight


def draw(report: Report, path: Path, before: Report | None = None) -> None:
    """What is kept in each soup, by the first method at the first temperature: at every strength, or before and now at one."""
    found = list(decided(report))
    if not found:
        path.unlink(missing_ok=True)
        return
    first = found[0][:2]
    if before is None:
        series = {f"{float(strength):g}": each for *key, strength, each in found if tuple(key) == first}
        title, legend = f"by {first[1]}, {luck(first[0])}", "weights"
    else:
        strength = nearest(report)[1]
        both = {"before": before, "now": report}
        series = {n: each for n, one in both.items() for *key, each in decided(one) if tuple(key) == (*first, strength)}
        title, legend = f"by {first[1]} at {weight(strength)}, {luck(first[0])}", ""
    _draw(series, f"{title}; 1 is the whole effect of the pole alone", legend, path)


def _draw(series: Mapping[str, Report], title: str, legend: str, path: Path) -> None:
    """A panel a dimension, a row a soup, a mark for each of a series."""
    import matplotlib.pyplot as plt

    dimensions = list(next(iter(series.values()))["dimensions"])
    shares = {
        (label, name): {
            plain(soup): share
            for soup, share in each["dimensions"].get(name, {"shares": {}})["shares"].items()
            if share
        }
        for label, each in series.items()
        for name in dimensions
    }
    whole = {plain(soup) for each in series.values() for one in each["dimensions"].values() for soup in one["shares"]}
    soups = sorted(whole, key=lambda name: (name.count("+"), name))
    figure, panels = plt.subplots(1, len(dimensions), figsize=(11, 0.5 + 0.24 * len(soups)), sharey=True, squeeze=False)
    for panel, name in zip(panels[0], dimensions, strict=True):
        for place, label in enumerate(series):
            own = shares[label, name]
            y = [soups.index(soup) + 0.22 * (place - (len(series) - 1) / 2) for soup in own]
            x, low, high = _bounded(list(own.values()))
            panel.errorbar(x, y, xerr=[low, high], fmt="osD^v"[place % 5], markersize=3.5, elinewidth=0.8, label=label)
        panel.axvline(0, color="0.6", linewidth=0.8, linestyle=":")
        panel.axvline(1, color="0.6", linewidth=0.8)
        panel.set(title=f"{name} kept", xlim=(-1, 2), ylim=(len(soups) - 0.4, -0.6), yticks=range(len(soups)))
        panel.set_yticklabels(soups, fontsize=7)
        panel.grid(axis="y", linewidth=0.3)
    panels[0][-1].legend(title=legend or None, fontsize=7)
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=110, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)


def _bounded(shares: Sequence[Mapping[str, float]]) -> tuple[list[float], list[float], list[float]]:
    """Shares between -1 and 2, and how far their intervals go below and above."""
    x = [min(max(each["value"], -1), 2) for each in shares]
    low = [max(value - max(each["low"], -1), 0) for value, each in zip(x, shares, strict=True)]
    high = [max(min(each["high"], 2) - value, 0) for value, each in zip(x, shares, strict=True)]
    return x, low, high
