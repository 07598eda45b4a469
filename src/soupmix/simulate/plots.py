"""AL(k) of every arm as a picture."""

from soupmix.evaluate.page.drawing import Series, draw_series, new_figure, plotting, standalone
from soupmix.simulate.curves import Curves

__all__ = ["curves_svg"]


def curves_svg(made: Curves) -> str:
    """AL(k) with intervals, as an SVG file.

    Raises:
        EvaluationError: matplotlib is not installed (reason "no-library").
    """
    turns = range(1, 1 + len(made.arms["base"].turns))
    series = [
        Series(name, list(turns), [(e.value, e.low, e.high) for e in each.turns]) for name, each in made.arms.items()
    ]
    with plotting():
        figure, axes = new_figure(7.2, 3.6)
        draw_series(axes, series, shift=0.07)
        axes.set_xlabel("turn")
        axes.set_ylabel("AL(k): 0 the worst, 1 the best soup of the pool")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return standalone(figure, "al-curves", "AL(k) by turn for every arm, with 95 % intervals over people")
