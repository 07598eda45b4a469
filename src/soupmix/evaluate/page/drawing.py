"""Plots as SVG inside the page: text stays text, and every colour is one of the page's, which knows light and dark.

Series differ by marker and dash too, so that they can be told apart without colour.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soupmix.evaluate.measures.measure import missing_library

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "FOREGROUND",
    "GRID",
    "LESS",
    "MORE",
    "MUTED",
    "Series",
    "draw_series",
    "new_figure",
    "plotting",
    "standalone",
    "style_of",
    "svg",
]

# Placeholders: whatever has one of these colours takes the page's variable of that name.
FOREGROUND, MUTED, GRID, MORE, LESS = "#010101", "#020202", "#030303", "#0b0001", "#0b0002"
_SERIES = tuple(f"#0a000{number}" for number in range(1, 7))
_VARIABLES = {
    FOREGROUND: "--fg",
    MUTED: "--muted",
    GRID: "--grid",
    MORE: "--more",
    LESS: "--less",
    **{colour: f"--s{number}" for number, colour in enumerate(_SERIES, 1)},
}
_MARKERS, _DASHES = "os^DvP", ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)), (0, (1, 1)), (0, (9, 3)))
_STYLE: dict[str, Any] = {
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": FOREGROUND,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "figure.facecolor": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.title_fontsize": 7,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "text.color": FOREGROUND,
    "text.parse_math": False,
    "xtick.color": FOREGROUND,
    "ytick.color": FOREGROUND,
}


@dataclass(frozen=True, slots=True)
class Series:
    """Points with intervals.

    Attributes:
        name: for the legend. x: places. points: (value, low, high) each, or None where there is no figure.
    """

    name: str
    x: Sequence[float]
    points: Sequence[tuple[float, float, float] | None]


@contextmanager
def plotting() -> Iterator[None]:
    """Within it, plots look as they do on the page.

    Raises:
        EvaluationError: matplotlib is not installed (reason "no-library").
    """
    try:
        import matplotlib
    except ImportError as error:
        raise missing_library("the page", "matplotlib") from error
    with matplotlib.rc_context(_STYLE):
        yield


def new_figure(width: float, height: float) -> "tuple[Figure, Axes]":
    """An empty plot, in inches of 72 points."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def style_of(number: int) -> dict[str, Any]:
    """Colour, marker and dash of a series; a colour that comes again has another dash, and its markers are hollow."""
    turn, place = divmod(number, len(_SERIES))
    found = {"color": _SERIES[place], "marker": _MARKERS[place], "linestyle": _DASHES[(place + turn) % len(_DASHES)]}
    return {**found, "fillstyle": "none"} if turn else found


def draw_series(axes: "Axes", series: Sequence[Series], *, shift: float = 0.0) -> None:
    """Lines through points with intervals; `shift` moves each series a little, so that intervals do not hide one another."""
    for number, each in enumerate(series):
        found = [(x, point) for x, point in zip(each.x, each.points, strict=True) if point is not None]
        if not found:
            continue
        moved = shift * (number - (len(series) - 1) / 2)
        values = [point[0] for _, point in found]
        below = [max(point[0] - point[1], 0.0) for _, point in found]
        above = [max(point[2] - point[0], 0.0) for _, point in found]
        axes.errorbar(
            [x + moved for x, _ in found],
            values,
            yerr=[below, above],
            label=each.name,
            markersize=4,
            linewidth=1.4,
            elinewidth=0.9,
            capsize=2,
            **style_of(number),
        )


def svg(figure: "Figure", name: str, about: str) -> str:
    """A plot as an element of the page, the same bytes each time.

    Args:
        name: unique in the page. about: what is to be seen, for those who do not see it.
    """
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": name}), io.StringIO() as file:
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    # names inside one plot must not meet those of another
    text = re.sub(r'(id="|url\(#|xlink:href="#)', rf"\g<1>{name}-", text)
    label = about.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


def standalone(figure: "Figure", name: str, about: str) -> str:
    """A plot as a file of its own, in the page's colours, light or dark as whoever looks at it prefers."""
    page = (Path(__file__).parent / "report.html.jinja").read_text("utf-8")
    light, dark = re.findall(r":root \{([^}]*)\}", page)[:2]
    style = f"svg {{ {light} background: var(--bg); }} @media (prefers-color-scheme: dark) {{ svg {{ {dark} }} }}"
    return svg(figure, name, about).replace(">", f"><style>{' '.join(style.split())}</style>", 1) + "\n"
