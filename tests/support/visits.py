"""The page of a server in a browser, as somebody who visits it sees it."""

from pathlib import Path
from typing import Any

__all__ = ["CONTRAST", "LOOKS", "Visit"]

CONTRAST = Path(__file__).parents[1] / "serve" / "contrast.js"
LOOKS = [
    {"color_scheme": scheme, "viewport": {"width": width, "height": 800}}
    for scheme in ("light", "dark")
    for width in (1400, 320)
]


class Visit:
    """A page in a tab of its own, and everything that it said and asked for."""

    def __init__(self, browser: Any, url: str, **options: Any) -> None:
        self.tab = browser.new_context(viewport={"width": 1400, "height": 900}, **options)
        self.page: Any = self.tab.new_page()
        self.page.set_default_timeout(10_000)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(url)

    def ready(self) -> Any:
        """The page, once all grants and ranges are there."""
        from playwright.sync_api import expect

        expect(self.page.locator("#kitchen")).to_be_visible()
        self.page.wait_for_load_state("networkidle")
        return self.page

    def card(self, name: str) -> Any:
        return self.page.get_by_role("article", name=name, exact=True)

    def sampled(self, **values: float) -> None:
        self.page.get_by_text("Sampling").click()
        for name, value in values.items():
            self.page.locator(f"#{name}").fill(str(value))

    def answered(self) -> None:
        """Wait for the end of all answers."""
        from playwright.sync_api import expect

        expect(self.page.locator("#stop")).to_have_attribute("aria-disabled", "true", timeout=60_000)
