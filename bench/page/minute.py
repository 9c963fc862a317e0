"""make page-minute (F1, F2-paint): the minute of a stranger in real Chromium, on the real engine and the demo bundle.

The stranger likes short, warm lists, answers five questions by that rule, and is forgotten. Nothing waits in
between, as a reader would. The setup before is not run again here: its seconds are those that `make first-minutes` (G4)
has measured last. Each step is kept as a picture in docs/images, with the clock in it.
"""

import gzip
import json
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize

from bench.results import ROOT, history, latest, record
from idiolect_training.data.everyday import shared, taste_of
from tests.live import running_server
from tests.page import build
from tests.page.window import chromium

TASTE = "short-list-warm"
N_ANSWERS = 5
PICTURES = ROOT / "docs" / "images"
MAX_PICTURE_BYTES = 150_000
SIZE: ViewportSize = {"width": 1200, "height": 1130}
N_COLOURS = 128
"""Of a picture, which has few: a quarter of the bytes."""
WAIT_MS = 60_000
N_PAINTS = 5
YOU, EVERYBODY = ".pane.ours .reply", ".pane:not(.ours) .reply"

CLOCK = """
began => {
  const clock = document.body.appendChild(document.createElement("div"));
  clock.style.cssText = "position:fixed;top:1.05rem;right:6rem;padding:.2rem .9rem;border-radius:2rem;"
    + "background:#1d1b22;color:#fff;font:600 1rem ui-monospace,monospace";
  const tick = () => { clock.textContent = ((performance.now() - began) / 1000).toFixed(1) + " s"; };
  tick();
  setInterval(tick, 100);
}
"""


class Stranger:
    """One visit, from an empty window; `seconds` are those at the end of each step."""

    def __init__(self, browser: Browser, url: str) -> None:
        self.page: Page = browser.new_page(viewport=SIZE)
        self.page.set_default_timeout(WAIT_MS)
        self.urls: list[str] = []
        self.page.on("request", lambda request: self.urls.append(request.url))
        self._began = time.monotonic()
        self.seconds: dict[str, float] = {}
        self.page.goto(url)
        self.page.evaluate(CLOCK, 0)

    def done(self, step: str) -> None:
        self.seconds[step] = round(time.monotonic() - self._began, 1)
        self.page.evaluate("scrollTo(0, 0)")
        path = PICTURES / f"page-{len(self.seconds)}.png"
        with Image.open(BytesIO(self.page.screenshot(animations="disabled"))) as picture:
            picture.convert("RGB").quantize(N_COLOURS).save(path, optimize=True)
        if path.stat().st_size > MAX_PICTURE_BYTES:
            raise RuntimeError(f"{path} has {path.stat().st_size} bytes")

    def see(self, text: str) -> None:
        self.page.locator(".pane.ours", has_text=text).wait_for()

    def answer(self) -> None:
        """The next question by the rule; another one where both replies share as much with the taste."""
        while True:
            sides = self.page.locator(".side span")
            sides.first.wait_for()
            self.page.locator("[aria-disabled=true]").first.wait_for(state="detached")
            likes = [shared(taste_of(side), TASTE) for side in sides.all_inner_texts()]
            before = self.page.locator(".pair").inner_text()
            self.page.keyboard.press("0" if likes[0] == likes[1] else "1" if likes[0] > likes[1] else "2")
            self.page.wait_for_function("old => document.querySelector('.pair')?.innerText !== old", arg=before)
            if likes[0] != likes[1]:
                return

    def tell(self) -> dict[str, Any]:
        """The whole story."""
        page = self.page
        self.see("word for word the same")
        first = page.locator(YOU).inner_text()
        self.done("stranger")
        for number in range(N_ANSWERS):
            self.answer()
            if number == 1:
                self.done("two answers")
        self.see("is what differs")
        page.locator("[aria-disabled=true]").first.wait_for(state="detached")
        changed = page.locator(YOU).inner_text()
        marked = " ".join(page.locator(f"{YOU} mark").all_inner_texts())
        figures = page.locator("dl").inner_text()
        self.done("five answers")
        page.get_by_role("button", name="Forget me").click()
        page.locator(".receipt").wait_for()
        self.see("word for word the same")
        back = page.locator(YOU).inner_text()
        self.done("forgotten")
        return {
            "seconds": self.seconds,
            "first_reply": first,
            "changed_reply": changed,
            "changed_words": len(marked.split()),
            "first_reply_is_back": back == first == page.locator(EVERYBODY).inner_text(),
            "votes_erased": N_ANSWERS if f"{N_ANSWERS} answers" in page.locator(".receipt").inner_text() else 0,
            "figures": " ".join(figures.split()),
        }


def paints(browser: Browser, url: str) -> list[float]:
    """First contentful paint of fresh windows, in milliseconds from the start of the navigation."""
    found = []
    for _ in range(N_PAINTS):
        page = browser.new_page()
        page.goto(url)
        page.wait_for_function("() => performance.getEntriesByName('first-contentful-paint').length > 0")
        found.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
        page.close()
    return [round(each) for each in found]


def main() -> None:
    began = time.monotonic()
    build.install()
    build.build()
    build_s = round(time.monotonic() - began, 1)
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "server.log").open("wb") as log:
        began = time.monotonic()
        with running_server(log, data_dir=f"{folder}/data") as (url, _), chromium() as browser:
            if browser is None:
                raise RuntimeError("Chromium is not installed")
            start_s = round(time.monotonic() - began, 1)
            first_paint_ms = paints(browser, url)
            stranger = Stranger(browser, url)
            told = stranger.tell()
    page_s = max(told["seconds"].values())
    setup_s = latest(history())["G4"]["value"]["first_s"]
    times = {"page_s": page_s, "build_s": build_s, "start_s": start_s, "setup_s_of_G4": setup_s}
    times["with_setup_s"] = round(sum(times.values()), 1)
    json.dump(record("F1", {**times, **told})["value"], sys.stdout, indent=1, ensure_ascii=False)
    parts = [path for path in (ROOT / "server/idiolect_server/page/built").rglob("*") if path.is_file()]
    paint = {
        "first_paint_ms": {"all": first_paint_ms},
        "gz_bytes": sum(len(gzip.compress(path.read_bytes())) for path in parts),
        "other_hosts": len({asked for asked in stranger.urls if not asked.startswith(url)}),
    }
    json.dump(record("F2-paint", paint)["value"], sys.stdout, indent=1)


if __name__ == "__main__":
    main()
