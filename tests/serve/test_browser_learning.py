"""Which of these two? Ten questions on the page in headless Chromium, and everything a person may do about what is known."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from soupmix.base import Base
from soupmix.preference import Traits
from soupmix.preference.learner import Values
from soupmix.serve.learners import Measurer
from soupmix.store import Store
from soupmix.surface import Surface
from tests.support.planted_soups import document_over
from tests.support.serving import Running
from tests.support.visits import CONTRAST, LOOKS, Visit

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect

POLES = {"short": "length", "long": "length", "warm": "tone"}
POLICY = """\
tier: organisation
issuer: Example
version: '1'
rules:
- {id: warm, rule: bounds, adapter: warm, at_most: '0.8', public_reason: warmth is not all}
"""


def by_letters(traits: Traits) -> Callable[[str, Sequence[str]], list[Values | None]]:
    """Measures of which even the noise of a tiny model has some."""

    def values(text: str) -> dict[str, float]:
        found = {"words": float(len(text)), "warmth": 0.2 * sum(each in "aeiou" for each in text.lower())}
        return {each.name: found[each.key] for each in traits.axes}

    return lambda _, texts: [values(text) if text.strip() else None for text in texts]


@pytest.fixture(scope="module")
def taught(
    start: Callable[..., AbstractContextManager[Running]],
    tmp_path_factory: pytest.TempPathFactory,
    tiny_base: Base,
    tiny_adapter: Callable[..., Path],
) -> Iterator[Running]:
    store = Store(tmp_path_factory.mktemp("poles"), create=True)
    for number, (name, dimension) in enumerate(POLES.items()):
        store.add(tiny_adapter(seed=number, scale=0.3), name=name, dimension=dimension, pole=name, base=tiny_base)
    policy = tmp_path_factory.mktemp("policy") / "example.yaml"
    policy.write_text(POLICY)
    surface = Surface.of(document_over(list(store), {name: name for name in POLES}), store)
    measurer = Measurer(("words", "warmth"), by_letters)
    with start(no_auth=True, store=store, surface=surface, measurer=measurer, policies=lambda: (policy,)) as made:
        yield made


def opened(found: Visit) -> Any:
    """The column of somebody who chose nothing, with what is learned open."""
    page = found.ready()
    found.sampled(tokens=24)
    page.get_by_role("button", name="Add a person").click()
    card = page.get_by_role("article").last
    card.get_by_text("Learn from what you choose").click()
    expect(card.locator(".state")).to_contain_text("0 answered")
    return card


def widths(card: Any) -> list[float]:
    return [
        float(each.evaluate("element => parseFloat(element.style.width)")) for each in card.locator(".interval").all()
    ]


def answer_one(page: Any, card: Any) -> None:
    """Ask until two answers differ, and choose the shorter one, by the keyboard."""
    before = card.locator(".state").text_content()
    for _ in range(20):
        with page.expect_response("**/next") as asked:
            card.locator(".next").press("Enter")
        if asked.value.json()["id"]:
            break
        expect(card.locator(".state")).to_contain_text("too much alike")
    first, second = (each.text_content() for each in card.locator(".pair .text").all())
    expect(card.locator(".pair button").first).to_be_focused()
    with page.expect_response("**/feedback") as taken:
        page.keyboard.press("1" if len(first) <= len(second) else "2")
    assert taken.value.status == 201
    expect(card.locator(".pair")).to_be_hidden()
    expect(card.locator(".state")).not_to_have_text(before)


def test_ten_questions_narrow_the_bars_and_the_next_answer_is_of_the_new_soup(
    taught: Running, visit: Callable[..., Visit]
) -> None:
    found = visit(taught.url)
    card = opened(found)
    page, before = found.page, widths(card)
    for number in range(10):
        answer_one(page, card)
        expect(card.locator(".state")).to_contain_text(f"{number + 1} answered.")
    after = widths(card)
    assert after[0] < 0.7 * before[0], "of length much is known now"
    with taught.http(None) as http:
        (profile,) = http.get("/v1/soups").json()["data"]
        known = http.get(f"/v1/soups/{profile['id']}/evidence").json()
    assert known["evidence"] == 10
    (length,) = [each for each in known["wants"] if each["trait"] == "length"]
    assert length["mean"] < 0
    assert float(known["inferred"]["short"]) > 0
    page.get_by_role("button", name="Ask everybody").click()
    found.answered()
    with page.expect_response("**/grant") as told:
        card.get_by_label("Prompt", exact=True).focus()
        card.locator(".freeze").click()
    assert told.value.json()["inferred"] == known["inferred"]
    expect(card.locator(".value", has_text="inferred: short")).to_be_visible()
    expect(card.locator(".state")).to_contain_text("Frozen.")
    expect(card.locator(".next")).to_have_attribute("aria-disabled", "true")
    card.get_by_text("What is known").click()
    expect(card.locator(".known li")).to_have_count(10)
    with page.expect_download() as download:
        card.locator(".export").click()
    exported = json.loads(Path(download.value.path()).read_text())
    assert len(exported["evidence"]) == 10
    card.locator(".freeze").click()
    expect(card.locator(".freeze")).to_have_text("Freeze")
    card.locator(".known li button").first.click()
    expect(card.locator(".known li")).to_have_count(9)
    card.locator(".forget").click()
    expect(card.locator(".state")).to_contain_text("0 answered. Nothing is inferred yet.")
    expect(card.locator(".value", has_text="inferred")).to_have_count(0)
    assert widths(card) == pytest.approx(before, abs=0.5)
    assert found.said == []


@pytest.mark.parametrize("look", LOOKS[1:3], ids=lambda look: f"{look['color_scheme']}-{look['viewport']['width']}")
def test_a_question_can_be_read_in_every_look(
    taught: Running, visit: Callable[..., Visit], look: dict[str, Any]
) -> None:
    found = visit(taught.url, color_scheme=look["color_scheme"])
    found.page.set_viewport_size(look["viewport"])
    card = opened(found)
    for _ in range(20):
        with found.page.expect_response("**/next") as asked:
            card.locator(".next").click()
        if asked.value.json()["id"]:
            break
    expect(card.locator(".pair")).to_be_visible()
    assert found.page.evaluate("() => document.documentElement.scrollWidth") <= look["viewport"]["width"]
    read = found.page.evaluate(CONTRAST.read_text("utf-8"))
    assert {text: ratio for text, ratio in read if ratio < 4.5} == {}
    tall = [each.bounding_box()["height"] for each in card.locator(".pair button").all()]
    assert min(tall) >= 40, "a thumb finds it"
