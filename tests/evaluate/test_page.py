"""The page needs nothing but itself, has a table behind every plot, and takes no word of a report for markup."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from soupmix.errors import EvaluationError
from soupmix.evaluate.page import page
from soupmix.evaluate.page.drawing import _MARKERS, _SERIES, style_of
from soupmix.evaluate.page.follows import faithful_part, follows_part, spans_part
from soupmix.evaluate.page.fronts import _edge, draw_front
from soupmix.evaluate.page.page import _lead
from soupmix.evaluate.report import report
from soupmix.evaluate.soups import Arm
from soupmix.weights import Weights
from tests.support import evaluated


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    record = evaluated.record(6)
    return report(record, evaluated.samples(record), evaluated.measured(record))


@pytest.fixture(scope="module")
def html(made: dict[str, Any]) -> str:
    return page(made)


class _Reader(HTMLParser):
    """Tags in order, and whether all that are opened are closed."""

    VOID = frozenset({"meta", "br", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(text: str) -> _Reader:
    reader = _Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def test_nothing_comes_from_elsewhere(html: str) -> None:
    found = read(html)
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form"} & set(found.tags)
    for _, name, value in found.attributes:
        if name in ("href", "xlink:href", "src", "srcset", "data", "action"):
            assert value.startswith("#"), value
        assert not name.startswith("on")
    assert "@import" not in html
    assert set(re.findall(r"url\((.)", html)) <= {"#"}
    assert set(re.findall(r"https?://[^\"' <]+", html)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_every_plot_has_a_table_and_says_what_it_is(html: str) -> None:
    figures = re.findall(r"<figure.*?</figure>", html, re.DOTALL)
    assert len(figures) > 10
    for each in figures:
        assert each.count("<svg") == each.count("<table") == each.count('role="img"') == 1
        assert re.search(r'aria-label="[^"]{10,}"', each)
        assert each.count("<tr>") > 1
        assert "<figcaption>" in each


def test_names_in_one_plot_are_no_names_in_another(html: str) -> None:
    found = [value for _, name, value in read(html).attributes if name == "id"]
    assert len(found) == len(set(found))
    used = {value[1:] for _, name, value in read(html).attributes if name in ("href", "xlink:href")}
    used |= set(re.findall(r"url\(#([^)]+)\)", html))
    assert used <= set(found)


def test_every_colour_is_of_the_page_which_knows_light_and_dark(html: str) -> None:
    style = html[html.index("<style>") : html.index("</style>")]
    light, dark = style.split("@media (prefers-color-scheme: dark)")
    dark = dark[: dark.index("}")]
    for variable in set(re.findall(r"var\((--[a-z0-9]+)\)", html)):
        assert f"{variable}:" in light
        assert f"{variable}:" in dark
    drawn = re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)
    assert not re.findall(r"(?:fill|stroke|color): ?#[0-9a-f]{3,6}", drawn)


def _luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_text_and_lines_can_be_read_on_both_grounds(html: str) -> None:
    """WCAG 2: 4.5 for text, 3 for lines."""
    for theme in re.findall(r":root \{(.*?)\}", html, re.DOTALL):
        colours = dict(re.findall(r"--([a-z0-9]+): (#[0-9a-f]{6})", theme))
        for name, least in {"fg": 7.0, "muted": 4.5, "link": 4.5, **{f"s{n}": 3.0 for n in range(1, 7)}}.items():
            for ground in ("bg", "card"):
                one, other = sorted((_luminance(colours[name]), _luminance(colours[ground])), reverse=True)
                assert (one + 0.05) / (other + 0.05) >= least, (name, ground)


def test_series_differ_without_colour() -> None:
    styles = [style_of(number) for number in range(len(_SERIES))]
    assert len({each["marker"] for each in styles}) == len({str(each["linestyle"]) for each in styles}) == len(_MARKERS)
    styles += [style_of(number) for number in range(len(_SERIES), 2 * len(_SERIES))]
    assert len({(each["color"], str(each["linestyle"])) for each in styles}) == len(styles)


def test_what_is_missing_and_what_cannot_be_shown_is_said(html: str) -> None:
    assert "10,000 parameters" in html
    assert "loud by a prompt: no preference prompt was given for it" in html


def test_the_same_report_is_the_same_page(made: dict[str, Any], html: str) -> None:
    assert page(made) == html


def test_a_report_is_no_markup(made: dict[str, Any]) -> None:
    evil = "<script>alert(1)</script>\"'&<b>"
    base = {**made["base"], "name": evil}
    said = [{"what": evil, "why": evil}]
    measures = [{**each, "title": evil, "unit": evil, "source": evil} for each in made["measures"]]
    odd = {name: {**each, "family": f"$\\oops{{$ {evil}"} for name, each in made["fronts"]["0"]["points"].items()}
    fronts = {**made["fronts"], "0": {**made["fronts"]["0"], "points": odd}}
    other = {"base": base, "not_measured": said, "measures": measures, "cannot_show": [evil], "fronts": fronts}
    found = read(page({**made, **other}))
    assert not {"script", "b"} & set(found.tags)


def test_a_report_without_soups_is_a_page() -> None:
    record = evaluated.record(2, of=evaluated.arms()[:1])
    assert "What this cannot show" in page(report(record, evaluated.samples(record), evaluated.measured(record)))


def test_a_missing_library_is_one_sentence(made: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(EvaluationError, match=r"the page needs matplotlib, .*pip install 'soupmix\[evaluate\]'"):
        page(made)


def test_single_poles_on_few_prompts_claim_no_more() -> None:
    """No table of what composes where nothing was mixed, and intervals over few prompts are not trusted in silence."""
    few = evaluated.record(2, of=[Arm("base", Weights({})), Arm("long@1", Weights({"long": 1}))])
    html = page(report(few, evaluated.samples(few), evaluated.measured(few)))
    assert "Do these soups compose" not in html
    assert "What is kept of each pole" not in html
    assert "There are only 2 prompts: intervals over so few are too narrow" in html


def test_the_page_says_who_answered_fewer_prompts(made: dict[str, Any], html: str) -> None:
    assert "all arms answered the same prompts" in html
    arms = made["results"]["0"]
    late = {**arms, "long@1": {**arms["long@1"], "prompts": 1}}
    other = _lead({**made, "results": {**made["results"], "0": late}})
    assert "all arms answered the same prompts" not in other
    assert "up to 1 arms answered fewer prompts than the others" in other


def test_how_measures_follow_weights_is_shown(made: dict[str, Any]) -> None:
    tables = {each.folded: each for each in follows_part(made).tables}
    ranks = tables["Does a measure rise with its weight? temperature 0, method delta"]
    assert ("long", "words", "0, 0.5, 1", "1.00 [1.00, 1.00]") in ranks.rows
    assert ("short", "words", "0, 0.5, 1", "-1.00 [-1.00, -1.00]") in ranks.rows
    reached = tables["How far is what is reached from what is asked? temperature 0, method delta"]
    assert [row[:3] for row in reached.rows] == [("mood", "peace", "8"), ("length", "words", "8")]
    # `loud` takes a quarter and a half of 20 and 40 from four of eight; they span 80
    assert reached.rows[1][3].startswith(f"{(5 + 5 + 20 + 20) / 8 / 80:.2g} [")


def test_fronts_are_drawn_of_the_arms_that_are_on_them(made: dict[str, Any]) -> None:
    """As the report has them by corner, which is what hypervolumes are of; arms behind them are counted."""
    plot = draw_front(made, "0.7", ("length", "mood"))
    assert plot is not None
    reached = [each for each in made["fronts"]["0.7"]["reached"] if each["dimensions"] == ["length", "mood"]]
    wanted = {(arm, each["family"], corner) for each in reached for corner, own in each["front"].items() for arm in own}
    assert {row[:3] for row in plot.rows} == wanted
    drawn, arms = len({row[0] for row in plot.rows}), sum(each["arms"] for each in reached)
    assert 0 < drawn < arms
    assert f"{drawn} of {arms} arms" in plot.caption


@pytest.mark.parametrize("signs", [(1, 1), (-1, 1), (-1, -1)])
def test_the_edge_of_a_front_holds_what_its_points_dominate(signs: tuple[int, int]) -> None:
    """Its area is that of the union of their boxes, counted on a grid."""
    spots = [(0.9, 0.1), (0.4, 0.7), (0.6, 0.3)]
    edge = [(0.0, 0.0), *_edge([(x * signs[0], y * signs[1]) for x, y in spots])]
    turned = [*edge[1:], edge[0]]
    area = abs(sum(x * w - z * y for (x, y), (z, w) in zip(edge, turned, strict=True))) / 2
    cells = [(i + 0.5, j + 0.5) for i in range(10) for j in range(10)]
    assert area == pytest.approx(sum(any(x < 10 * a and y < 10 * b for a, b in spots) for x, y in cells) / 100)


def test_what_was_not_measured_is_not_on_the_page(made: dict[str, Any], html: str) -> None:
    assert not faithful_part(made).tables
    assert "Is a soup what its parts are" not in html
    figure = {"value": 40.25, "low": 36.0, "high": 44.0}
    fidelity = {"0": {"long@1": {"kl_mod": 0.0123, "kl_base": figure, "tokens": 312}}}
    connected = [{"soup": "long+loud@1", "margin": None}]
    part = faithful_part(
        {**made, "prose": {"base": {"perplexity": figure}}, "fidelity": fidelity, "connectivity": connected}
    )
    assert [tuple(table.rows) for table in part.tables] == [
        (("base", "40.2 [36.0, 44.0]"),),
        (("long@1", "0.0123", "40.2 [36.0, 44.0]", "312"),),
        (("long+loud@1", "–"),),
    ]


def test_floors_and_ceilings_are_shown(made: dict[str, Any]) -> None:
    rows = {row[:2]: row for row in spans_part(made).tables[0].rows}
    assert rows["calm", "peace"][4] == "calm by prompt"
    assert rows["long", "words"][4:6] == ("long@1", "40.0 [40.0, 40.0]")
