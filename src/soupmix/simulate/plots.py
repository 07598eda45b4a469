"""AL(k) of every arm, and what is known of one person, as pictures."""

from soupmix.evaluate.page.drawing import Series, draw_series, new_figure, plotting, standalone
from soupmix.preference.posterior import Posterior
from soupmix.simulate.curves import Curves

__all__ = ["curves_svg", "posterior_svg"]


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


def posterior_svg(known: Posterior) -> str:
    """What was believed of a person after each signal, by the model that is likeliest in the end: means and 90 % intervals.

    Raises:
        EvaluationError: matplotlib is not installed (reason "no-library").
    """
    model, signals = known.best, known.signals
    points: list[list[tuple[float, float, float]]] = [[] for _ in known.traits.axes]
    believed = known.copied()
    believed.forget_all()
    for number in range(len(signals) + 1):
        if number:
            believed.learn(signals[number - 1])
        found = zip(believed.mean(model), believed.intervals(0.9, model), strict=True)
        for own, (mean, (low, high)) in zip(points, found, strict=True):
            own.append((float(mean), float(low), float(high)))
    places = list(range(len(signals) + 1))
    series = [Series(name, places, own) for name, own in zip(known.traits.names, points, strict=True)]
    with plotting():
        figure, axes = new_figure(7.2, 3.0)
        draw_series(axes, series, shift=0.12)
        axes.set_xlabel("answers")
        axes.set_ylabel(f"wanted ({model} model)")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return standalone(figure, "one-person", "What one person wants after each answer, with 90 % intervals")
