"""The page in headless Chromium, against a real server: what it shows is what the API says, for hands, eyes and ears."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from soupmix.base import Base
from soupmix.batching.runner import Runner
from soupmix.store import Store
from soupmix.surface import Surface
from tests.support.planted_soups import document_over, late
from tests.support.serving import Running
from tests.support.visits import CONTRAST, LOOKS, Visit

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect

POLES = {"elementary": "expertise", "expert": "expertise", "friendly": "style"}
POLICY = """\
tier: organisation
issuer: Example
version: '1'
rules:
- {id: warm, rule: bounds, adapter: friendly, at_most: '0.8', public_reason: warmth is not all}
- {id: half, rule: bounds, adapter: elementary, at_most: '0.5', scope: {audience: [minor]}}
- {id: grown, rule: deny, adapter: expert, mode: refuse, scope: {audience: [minor]}, public_reason: for adults only}
obligations:
- {oblige: disclose, what: ai}
- {oblige: log, level: grants}
"""


@pytest.fixture(scope="module")
def poles(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: Base, tiny_adapter: Callable[..., Path]
) -> dict[str, Any]:
    """A store with two poles of one dimension and one of another, and a policy on them."""
    store = Store(tmp_path_factory.mktemp("poles"), create=True)
    for number, (name, dimension) in enumerate(POLES.items()):
        store.add(tiny_adapter(seed=number, scale=0.3), name=name, dimension=dimension, pole=name, base=tiny_base)
    policy = tmp_path_factory.mktemp("policy") / "example.yaml"
    policy.write_text(POLICY)
    return {"store": store, "policies": lambda: (policy,)}


@pytest.fixture(scope="module")
def site(start: Callable[..., AbstractContextManager[Running]], poles: dict[str, Any]) -> Iterator[Running]:
    with start(no_auth=True, **poles) as made:
        yield made


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of so small a model would end before anybody can click; these take 25 ms a token at least."""
    step = Runner.step

    def slow(runner: Runner, plan: Any) -> Any:
        time.sleep(0.025)
        return step(runner, plan)

    monkeypatch.setattr(Runner, "step", slow)


@pytest.fixture(scope="module")
def mapped(start: Callable[..., AbstractContextManager[Running]], poles: dict[str, Any]) -> Iterator[Running]:
    """The same, where somebody measured what the adapters do."""
    names = {"easy": "elementary", "hard": "expert", "warm": "friendly"}
    surface = Surface.of(document_over(list(poles["store"]), names, late), poles["store"])
    with start(no_auth=True, surface=surface, **poles) as made:
        yield made


@pytest.fixture
def seen(visit: Callable[..., Visit], site: Running) -> Visit:
    found = visit(site.url)
    found.ready()
    return found


def test_nothing_comes_from_elsewhere_and_nothing_is_wrong(site: Running, seen: Visit) -> None:
    seen.sampled(tokens=8)
    seen.page.get_by_role("button", name="Ask everybody").click()
    seen.answered()
    assert seen.said == []
    assert {re.match(r"\w+://[^/]+", url)[0] for url in seen.asked} == {site.url}  # type: ignore[index]
    assert {"/", "/page.js", "/page.css", "/icon.svg"} <= {url.removeprefix(site.url) for url in seen.asked}


ATTACKS = {
    "script": "document.body.append(Object.assign(document.createElement('script'), {text: 'window.hacked = 1'}))",
    "html": "document.body.innerHTML = '<p>'",
    "image": "document.body.append(Object.assign(new Image(), {src: 'https://elsewhere.example/'}))",
    "fetch": "fetch('https://elsewhere.example/').catch(() => 0)",
    "style": "document.body.setAttribute('style', 'color: red')",
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_the_browser_refuses_what_the_page_never_does(seen: Visit, attack: str) -> None:
    seen.page.evaluate(
        """() => { window.refused = new Promise(done =>
            addEventListener('securitypolicyviolation', event => done(event.effectiveDirective))) }"""
    )
    seen.page.evaluate(f"() => {{ try {{ {attack} }} catch {{}} }}")
    assert seen.page.evaluate("() => Promise.race([window.refused, new Promise(late => setTimeout(late, 5000, null))])")
    assert seen.page.evaluate("() => window.hacked === undefined")


def test_hands_on_the_keyboard_only(seen: Visit) -> None:
    press, slider = seen.page.keyboard.press, seen.page.get_by_role("slider", name="expertise").nth(1)
    for _ in range(40):
        press("Tab")
        if slider.evaluate("element => element === document.activeElement"):
            break
    expect(slider).to_be_focused()
    assert slider.evaluate("element => getComputedStyle(element).outlineStyle") == "solid"
    for key, value in (("Home", "elementary 1.00"), ("End", "expert 1.00"), ("ArrowLeft", "expert 0.95")):
        press(key)
        expect(slider).to_have_attribute("aria-valuetext", value)
    press("Enter")
    seen.answered()
    for text in seen.page.locator(".answer .text").all():
        assert text.text_content()
    press("Tab")
    assert not slider.evaluate("element => element === document.activeElement")


def box(slider: Any, part: str) -> dict[str, float]:
    found: dict[str, float] = slider.locator("xpath=..").locator(part).bounding_box()
    return found


def shaded(slider: Any) -> float:
    """How much of the track is allowed."""
    return box(slider, ".allowed")["width"] / box(slider, ".rail")["width"]


def test_a_measure_is_asked_for_and_its_weights_are_wished_for(mapped: Running, visit: Callable[..., Visit]) -> None:
    seen = visit(mapped.url)
    seen.ready()
    card = seen.page.get_by_role("article").nth(2)  # its name follows the wishes
    card.get_by_text("Ask for a measure").click()
    find = card.get_by_role("button", name="Find weights")
    find.click()
    expect(card.locator(".found")).to_have_text("Fill in what you want of an answer.")
    style = card.get_by_role("slider", name="style: friendly")
    style.press("ArrowRight")
    card.get_by_label("grade").fill("8.2")
    with seen.page.expect_response("**/v1/soups/ask") as answered:
        card.get_by_label("grade").press("Enter")
    found = answered.value.json()
    sent = answered.value.request.post_data_json
    assert (sent["targets"], sent["weights"]) == ({"grade": 8.2}, {"friendly": "5%"})
    assert set(found["weights"]) == {"elementary", "friendly"}
    expect(card.locator(".found")).to_contain_text("grade: 8.2 expected on average")
    share = share_of(mapped, "elementary", float(found["weights"]["elementary"]))
    expect(card.get_by_role("slider", name="expertise")).to_have_attribute(
        "aria-valuetext", f"elementary {round(share)} %"
    )
    with seen.page.expect_response(lambda each: clamped(each, friendly="10%")) as asked:
        style.press("ArrowRight")
    sent = asked.value.request.post_data_json["weights"]
    assert sent == {"elementary": found["weights"]["elementary"], "friendly": "10%"}  # what was found is asked for
    with seen.page.expect_response("**/v1/soups/ask"):
        find.evaluate("button => { button.click(); button.click(); }")
    assert sum(url.endswith("/v1/soups/ask") for url in seen.asked) == 2  # a double click asks once
    expect(find).to_have_attribute("aria-disabled", "false")
    assert seen.said == []


def clamped(response: Any, **weights: str) -> bool:
    """Whether it is the policy's answer to a person with these wishes: others may still wait for theirs."""
    if not response.url.endswith("/v1/clamp"):
        return False
    return weights.items() <= response.request.post_data_json["weights"].items()


def share_of(server: Running, name: str, weight: float) -> float:
    """How many percent of its effect an adapter has at a weight, as the server tells it."""
    with server.http(None) as http:
        weights = http.get("/v1/measures").json()["effects"][name]["weights"]
    return float(np.interp(weight, weights, range(101)))


def test_a_slider_asks_for_a_share_of_an_effect_where_that_was_measured(
    mapped: Running, seen: Visit, visit: Callable[..., Visit]
) -> None:
    """Half of a slider is half of the effect: the weight .71 here, which the policy bounds to .5 for minors."""
    expect(seen.page.get_by_text("a share of an effect")).to_be_hidden()
    found = visit(mapped.url)
    page = found.ready()
    expect(page.get_by_text("a share of an effect")).to_be_visible()
    card = found.card("Friendly, elementary")
    slider = card.get_by_role("slider", name="expertise")
    expect(card.get_by_text(re.compile("elementary ≤ 2[4-7] %"))).to_be_visible()
    with page.expect_response(lambda each: clamped(each, elementary="50%")) as answered:
        slider.fill("-50")
    assert answered.value.request.post_data_json["weights"] == {"elementary": "50%", "friendly": "100%"}
    told = answered.value.json()
    assert float(told["requested"]["elementary"]) == pytest.approx(0.707, abs=0.02)
    assert told["granted"]["elementary"] == "0.5"
    expect(slider).to_have_attribute(
        "aria-valuetext",
        re.compile(r"^elementary 50 %, granted 2[4-7] % \(weight 0\.50\): at most 0\.5 for audience minor"),
    )
    expect(card.get_by_text(re.compile(r"asked 50 % \(weight 0\.7[0-3]\), granted 2[4-7] %"))).to_be_visible()
    rail, mark, allowed = (box(slider, part) for part in (".rail", ".granted", ".allowed"))
    share = share_of(mapped, "elementary", 0.5) / 200  # of a rail from -100 to 100
    assert (mark["x"] + mark["width"] / 2 - rail["x"]) / rail["width"] == pytest.approx(0.5 - share, abs=0.01)
    assert allowed["width"] / rail["width"] == pytest.approx(share, abs=0.01)
    card.get_by_label("audience").select_option("someone else")
    expect(slider).to_have_attribute("aria-valuetext", "elementary 50 %")
    card.get_by_role("button", name="Save as profile").click()
    expect(card.locator(".saved")).to_contain_text("Saved.")
    with mapped.http(None) as http:
        (profile,) = [each for each in http.get("/v1/soups").json()["data"] if each["name"] == "Friendly, elementary"]
    assert profile["weights"]["elementary"] == told["requested"]["elementary"]
    assert found.said == []


def test_a_clamp_is_shown_where_it_is_with_its_reason(seen: Visit) -> None:
    card = seen.card("Friendly, elementary")
    friendly, expertise = (card.get_by_role("slider", name=name) for name in ("style: friendly", "expertise"))
    expect(friendly).to_have_attribute("aria-valuetext", "friendly 1.00, granted 0.80: warmth is not all")
    expect(friendly).to_have_accessible_description(re.compile("friendly ≤ 0.80"))
    expect(card.get_by_text("asked 1.00, granted 0.80: warmth is not all")).to_be_visible()
    expect(card.locator(".value", has_text="friendly")).to_have_text("friendly 1.00 \u2192 0.80")
    expect(card.get_by_text("asked 0.70, granted 0.50: at most 0.5 for audience minor (half, Example)")).to_be_visible()
    for slider, asked, granted in ((friendly, 1.0, 0.8), (expertise, 0.15, 0.25)):
        rail, mark = box(slider, ".rail"), box(slider, ".granted")
        assert (mark["x"] + mark["width"] / 2 - rail["x"]) / rail["width"] == pytest.approx(granted, abs=0.01)
        low, high, value = (float(slider.evaluate(f"element => element.{key}")) for key in ("min", "max", "value"))
        assert (value - low) / (high - low) == pytest.approx(asked)
    assert shaded(expertise) == pytest.approx(0.25, abs=0.01)  # elementary up to 0.5 of 2; minors get nothing of expert
    card.get_by_label("audience").select_option("someone else")
    expect(expertise).to_have_attribute("aria-valuetext", "elementary 0.70")
    expect(card.get_by_text("granted 0.50")).to_have_count(0)
    assert shaded(expertise) == pytest.approx(1, abs=0.01)


def test_cards_fill_their_row(seen: Visit) -> None:
    """Nothing is left free beside them, and so no bound of a slider breaks in two."""
    boxes = [each.bounding_box() for each in seen.page.get_by_role("article").all()]
    whole = seen.page.locator("#columns").bounding_box()
    assert len({each["y"] for each in boxes}) == 1
    assert boxes[-1]["x"] + boxes[-1]["width"] == pytest.approx(whole["x"] + whole["width"], abs=1)


def test_everybody_is_answered_as_the_api_answers(site: Running, seen: Visit) -> None:
    seen.sampled(tokens=24, temperature=0)
    seen.page.get_by_label("One prompt").fill("Why is the sky blue?")
    seen.page.get_by_label("One prompt").press("Enter")
    seen.answered()
    soups = {
        "Base": {},
        "Friendly, elementary": {
            "weights": {"elementary": 0.7, "friendly": 1},
            "attributes": {"audience": "minor"},
        },
        "Expert": {"weights": {"expert": 1}, "attributes": {"audience": "other"}},
    }
    said = set()
    for name, soup in soups.items():
        ask = {"model": "tiny", "messages": [{"role": "user", "content": "Why is the sky blue?"}], "max_tokens": 24}
        with site.http(None) as http:
            whole = http.post("/v1/chat/completions", json={**ask, "temperature": 0, "soup": soup}).json()
        text = seen.card(name).locator(".answer .text").text_content()
        assert text == whole["choices"][0]["message"]["content"].lstrip()
        count = whole["usage"]["completion_tokens"]
        expect(seen.card(name).locator(".meta")).to_have_text(
            re.compile(rf"^(cut at )?{count} tokens(, [0-9.]+ tokens/s)?$")
        )
        assert f"{name} answered: {text}" in [each.text_content() for each in seen.page.locator("#spoken p").all()]
        said.add(text)
    assert len(said) == 3


def test_a_conversation_goes_on_until_it_is_begun_anew(site: Running, seen: Visit) -> None:
    seen.sampled(tokens=16, temperature=1, seed=3)
    prompt, ask = seen.page.get_by_label("One prompt"), seen.page.get_by_role("button", name="Ask everybody")
    said: list[dict[str, str]] = []
    for words in ("Why?", "And then?"):
        prompt.fill(words)
        ask.click()
        seen.answered()
        said.append({"role": "user", "content": words})
        with site.http(None) as http:
            body = {"model": "tiny", "messages": said, "max_tokens": 16, "temperature": 1, "seed": 3}
            text = http.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"].lstrip()
        assert seen.card("Base").locator(".answer .text").text_content() == text != ""
        said.append({"role": "assistant", "content": text})
    turns = [each.text_content() for each in seen.card("Base").locator(".turns li").all()]
    assert turns == [each["content"] for each in said[:2]]
    seen.page.get_by_role("button", name="New conversation").click()
    expect(seen.card("Base").locator(".turns li")).to_have_count(0)
    assert seen.said == []


@pytest.mark.usefixtures("unhurried")
def test_answers_come_while_they_are_made_and_can_be_stopped(site: Running, seen: Visit) -> None:
    seen.sampled(tokens=220)
    seen.page.get_by_role("button", name="Ask everybody").click()
    expect(seen.page.locator(".answer[aria-busy='true'] .text").first).not_to_be_empty()
    seen.page.get_by_role("button", name="Stop").click()
    expect(seen.page.locator(".answer[aria-busy='true']")).to_have_count(0)
    stopped = seen.page.locator(".meta", has_text="stopped").count()
    assert stopped > 0
    for _ in range(200):
        if site.state.backend.state().running == 0:
            break
        time.sleep(0.05)  # the server notices a client that is gone at its next token
    assert site.state.backend.state().running == 0
    assert seen.page.locator("#spoken p").count() == 3 - stopped  # an answer may have ended by itself


def test_a_saved_profile_can_be_called(site: Running, seen: Visit) -> None:
    card = seen.card("Expert")
    card.get_by_role("textbox", name="Name").fill("<b>Ben</b>")
    card = seen.card("<b>Ben</b>")
    assert card.locator("b").count() == 0
    card.get_by_role("button", name="Save as profile").click()
    (model,) = re.findall(r'^model="(soup:[\w-]+)"$', card.locator(".saved code").text_content())
    with site.http(None) as http:
        answer = http.post(
            "/v1/chat/completions", json={"model": model, "messages": [{"role": "user", "content": "Why?"}]}
        ).json()
        assert answer["soup"]["granted"] == {"expert": "1"}
        assert answer["soup"]["attributes"] == {"audience": "other"}
        card.get_by_role("slider", name="expertise").press("Home")
        card.get_by_role("button", name="Save again").click()
        expect(card.locator(".saved")).to_contain_text(model)
        place = f"/v1/soups/{model.removeprefix('soup:')}"
        for _ in range(100):
            if (stored := http.get(place).json())["weights"] == {"elementary": "1"}:
                break
        assert (stored["name"], stored["weights"]) == ("<b>Ben</b>", {"elementary": "1"})
    other = seen.card("Friendly, elementary")
    other.get_by_role("textbox", name="Name").fill("<b>Ben</b>")
    seen.page.get_by_role("button", name=re.compile("Save as profile")).click()
    expect(seen.page.get_by_text("Not saved: there is a profile named '<b>Ben</b>' already")).to_be_visible()


def test_people_come_and_go(seen: Visit) -> None:
    add = seen.page.get_by_role("button", name="Add a person")
    add.click()
    expect(seen.card("No wishes yet").get_by_role("textbox", name="Name")).to_be_focused()
    seen.card("No wishes yet").get_by_role("slider", name="expertise").press("ArrowRight")
    expect(seen.card("Expert")).to_have_count(2)
    add.click()
    expect(seen.page.get_by_role("article")).to_have_count(5)
    full = seen.page.get_by_role("button", name="4 people are the most at once")
    full.click(force=True)
    expect(seen.page.get_by_role("article")).to_have_count(5)
    seen.page.get_by_role("button", name="Remove No wishes yet").click()
    expect(seen.page.get_by_role("article")).to_have_count(4)
    expect(add).to_be_focused()


def test_a_refusal_is_said_in_words_and_the_others_are_answered(seen: Visit) -> None:
    seen.sampled(tokens=4)
    card = seen.card("Expert")
    card.get_by_label("audience").select_option("minor")
    expect(card.get_by_role("alert")).to_contain_text("for adults only")
    expect(card.get_by_text("expert: not allowed")).to_be_visible()
    seen.page.get_by_role("button", name="Ask everybody").click()
    seen.answered()
    expect(card.locator(".meta")).to_contain_text("for adults only")
    expect(seen.card("Base").locator(".meta")).to_contain_text("4 tokens")
    card.get_by_label("audience").select_option("someone else")
    expect(card.get_by_role("alert")).to_be_empty()


def test_an_adapter_that_no_answer_can_have_has_no_slider_and_it_is_said_why(site: Running, seen: Visit) -> None:
    def without(route: Any) -> None:
        answer = route.fetch()
        told = answer.json()
        why = {"servable": False, "reason": "whole", "why": "adapter 'friendly' changes whole weights"}
        told["data"] = [each | (why if each["name"] == "friendly" else {}) for each in told["data"]]
        route.fulfill(response=answer, json=told)

    expect(seen.page.locator("#unserved")).to_be_hidden()
    seen.page.route("**/v1/adapters", without)
    seen.page.reload()
    expect(seen.page.locator("#unserved")).to_have_text("adapter 'friendly' changes whole weights")
    assert "style" not in seen.page.locator(".sliders").first.inner_text()
    assert "expertise" in seen.page.locator(".sliders").first.inner_text()


def test_an_end_of_the_server_is_said_in_words(
    start: Callable[..., AbstractContextManager[Running]], poles: dict[str, Any], visit: Callable[..., Visit]
) -> None:
    with start(no_auth=True, **poles) as server:
        found = visit(server.url)
        found.ready()
    found.page.get_by_role("button", name="Ask everybody").click()
    expect(found.card("Base").locator(".meta")).to_have_text(
        "The server does not answer. Check that it is running, then try again."
    )


def test_a_key_is_asked_for_kept_in_this_tab_only_and_what_is_so_of_it_counts(
    start: Callable[..., AbstractContextManager[Running]], poles: dict[str, Any], visit: Callable[..., Visit]
) -> None:
    with start(**poles) as server:
        found = visit(server.url)
        field = found.page.get_by_label("API key")
        expect(field).to_be_focused()
        expect(found.page.get_by_role("alert")).to_have_text("This server needs an API key.")
        field.fill("sk-wrong")
        field.press("Enter")
        expect(found.page.get_by_role("alert")).to_contain_text("this API key is not known")
        field.fill(server.keys["school"])
        field.press("Enter")
        found.ready()
        expect(field).to_be_hidden()
        expect(found.page.locator("#problem")).to_be_empty()
        audience = found.card("Friendly, elementary").get_by_label("audience")
        expect(audience).to_have_value("minor")
        assert found.page.evaluate("() => [localStorage.length, document.cookie, Object.values(sessionStorage)]") == [
            0,
            "",
            [server.keys["school"]],
        ]
        expect(found.card("Expert").get_by_role("alert")).to_contain_text("for adults only")


def test_a_new_policy_is_on_the_page_with_the_next_grant(
    start: Callable[..., AbstractContextManager[Running]],
    poles: dict[str, Any],
    tmp_path: Path,
    visit: Callable[..., Visit],
) -> None:
    policy = tmp_path / "example.yaml"
    policy.write_text(POLICY)
    with start(no_auth=True, **{**poles, "policies": lambda: (policy,)}) as server, server.http(None) as http:
        found = visit(server.url)
        page = found.ready()
        policy.write_text(POLICY.replace("'0.8'", "'0.4'"))
        now = http.post("/v1/policy/reload").json()["now"]
        slider = found.card("Friendly, elementary").get_by_role("slider", name="style: friendly")
        slider.press("ArrowLeft")
        expect(slider).to_have_attribute("aria-valuetext", "friendly 0.95, granted 0.40: warmth is not all")
        expect(page.locator("#policy-name")).to_have_text("Example")
        expect(page.locator("#policy-digest")).to_have_text(now)


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: f"{look['color_scheme']}-{look['viewport']['width']}")
def test_everything_can_be_read_in_every_look(
    mapped: Running, visit: Callable[..., Visit], look: dict[str, Any]
) -> None:
    width = look["viewport"]["width"]
    found = visit(mapped.url, color_scheme=look["color_scheme"])
    page = found.ready()
    page.set_viewport_size(look["viewport"])
    found.sampled(tokens=4)
    found.card("Expert").get_by_label("audience").select_option("minor")
    expect(found.card("Expert").get_by_role("alert")).not_to_be_empty()
    found.card("Friendly, elementary").get_by_text("Ask for a measure").click()
    found.card("Friendly, elementary").get_by_label("warmth").fill("50")
    found.card("Friendly, elementary").get_by_role("button", name="Find weights").click()
    expect(found.card("Friendly, elementary").locator(".found")).to_contain_text("cannot be reached")
    page.get_by_role("button", name="Ask everybody").click()
    found.answered()
    page.locator("#policy summary").click()
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    places = [each.bounding_box() for each in page.get_by_role("article").all()]
    assert len({each["x"] for each in places}) == 3
    assert {each["y"] for each in places} == {places[0]["y"]}
    assert width != 320 or all(each["width"] <= width for each in places)
    expect(page.locator("#rules")).to_contain_text("warmth is not all")
    read = page.evaluate(CONTRAST.read_text("utf-8"))
    assert len(read) > 30
    assert {text: ratio for text, ratio in read if ratio < 4.5} == {}
    page.keyboard.press("Escape")
    expect(page.locator("#rules")).to_be_hidden()


def test_every_control_has_a_name_for_whoever_does_not_see_it(seen: Visit) -> None:
    seen.page.get_by_text("Sampling").click()
    tree = seen.tab.new_cdp_session(seen.page).send("Accessibility.getFullAXTree")["nodes"]
    controls = {"button", "textbox", "slider", "combobox", "spinbutton", "article", "region", "group", "heading"}
    named = [
        (node["role"]["value"], node["name"]["value"])
        for node in tree
        if not node["ignored"] and node["role"]["value"] in controls and "name" in node
    ]
    assert {"button", "textbox", "slider", "combobox", "spinbutton", "article", "region"} <= {role for role, _ in named}
    assert [role for role, name in named if not name.strip() and role != "group"] == []
    buttons = [name for role, name in named if role == "button"]
    assert len(buttons) == len(set(buttons))


@pytest.mark.usefixtures("unhurried")
def test_nothing_moves_for_whoever_does_not_want_it(site: Running, visit: Callable[..., Visit]) -> None:
    found = visit(site.url, reduced_motion="reduce")
    found.ready()
    found.sampled(tokens=220)
    found.page.get_by_role("button", name="Ask everybody").click()
    expect(found.page.locator(".answer[aria-busy='true']").first).to_be_visible()
    assert found.page.evaluate("() => document.getAnimations({subtree: true}).length") == 0
    found.page.get_by_role("button", name="Stop").click()
