"""A window of Chromium on the page, and what is looked for in every one."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from playwright.sync_api import Browser, Page, sync_playwright

from tests.page.build import WEB

AXE = WEB / "node_modules" / "axe-core" / "axe.min.js"
HEIGHTS = {1440: 900, 360: 740}
LATER_MS = 15_000
"""On a busy machine."""


@contextmanager
def chromium() -> Iterator[Browser | None]:
    """The system's; None where there is none."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        yield None
        return
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Window:
    page: Page
    console: list[str] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)
    """That were asked for."""
    expected: str = "nothing"
    """A pattern of what the console may say."""

    def unexpected(self) -> list[str]:
        return [message for message in self.console if not re.search(self.expected, message)]

    def violations(self) -> list[str]:
        """What axe finds against WCAG A and AA and good practice, each with the first place."""
        self.page.evaluate(AXE.read_text())
        found = self.page.evaluate("axe.run()")["violations"]
        return [f"{one['id']}: {one['help']} at {one['nodes'][0]['html'][:200]}" for one in found]

    def overflow_px(self) -> int:
        """By how much the content is wider than the window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))

    def text(self, selector: str) -> str:
        return self.page.locator(selector).first.inner_text()

    def wait(self, text: str, selector: str = "body") -> None:
        self.page.locator(selector, has_text=text).first.wait_for(timeout=LATER_MS)

    def close(self) -> None:
        self.page.context.close()


def window(browser: Browser, url: str, width: int, scheme: Literal["light", "dark"], **more: Any) -> Window:
    context = browser.new_context(
        viewport={"width": width, "height": HEIGHTS[width]}, color_scheme=scheme, reduced_motion="reduce", **more
    )
    context.set_default_timeout(LATER_MS)
    one = Window(context.new_page())
    one.page.on("console", lambda message: one.console.append(f"{message.type}: {message.text}"))
    one.page.on("pageerror", lambda error: one.console.append(f"error: {error}"))
    one.page.on("request", lambda request: one.urls.append(request.url))
    one.page.goto(url)
    return one
