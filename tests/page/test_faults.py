"""What a visitor reads while the engine starts, when it is gone, and when the store is; and that the page goes on."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from idiolect.bundle import Bundle
from tests.page.conftest import Opens
from tests.page.served import Served, served
from tests.page.window import Window
from tests.parts.second_bundle import second_bundle

pytestmark = pytest.mark.slow

YOU = ".pane.ours"
SAME = "word for word the same"


def fit_to_read(one: Window) -> None:
    assert one.violations() == []
    assert one.overflow_px() <= 0


def test_it_waits_for_the_engine_and_goes_on_by_itself(opens: Opens, built: Path, tokenizer: Any):
    with served(tokenizer, starts=False) as starting:
        windows = [opens(starting.url, width, scheme) for width, scheme in ((1440, "light"), (360, "dark"))]
        for one in windows:
            one.expected = "503"  # the browser's own words for "starting"
            one.wait("The model is starting", "[role=status]")
            fit_to_read(one)
        starting.start()
        for one in windows:
            one.wait(SAME, YOU)
            assert one.page.locator("[role=status] p").count() == 0


def test_an_answer_that_cannot_be_kept_is_not_lost_in_silence(opens: Opens, built: Path, tokenizer: Any):
    with served(tokenizer) as running:
        one = opens(running.url, 360)
        one.expected = "503"
        one.wait(SAME, YOU)
        one.page.locator(".side").first.wait_for()
        running.redis.kill()
        one.page.keyboard.press("1")
        one.wait("your answer was not kept", "[role=alert]")
        one.wait("memory of people does not answer", "[role=status]")
        fit_to_read(one)
        assert one.page.locator(".steps .on").count() == 0
        running.redis.start()
        one.page.locator("[role=status] p").wait_for(state="detached")
        one.page.keyboard.press("1")
        one.page.wait_for_function("() => document.querySelectorAll('.steps .on').length === 1")
        assert one.page.locator("[role=alert]").count() == 0
        assert votes(running, one) == 1


def test_without_the_store_the_page_still_answers(opens: Opens, built: Path, tokenizer: Any):
    with served(tokenizer) as running:
        running.redis.kill()
        one = opens(running.url)
        one.expected = "503"
        one.wait(SAME, YOU)
        one.wait("memory of people does not answer", "[role=status]")
        fit_to_read(one)
        running.redis.start()
        one.page.locator(".side").first.wait_for()


def test_a_server_that_is_gone_is_told_in_words(opens: Opens, built: Path, tokenizer: Any):
    with served(tokenizer) as running:
        one = opens(running.url)
        one.expected = "Failed to load resource"
        one.wait(SAME, YOU)
        one.page.locator(".side").first.wait_for()
        running.kill_engine()
        one.page.locator("#prompt").press("Enter")
        one.wait("The server does not answer", "[role=status]")
        one.page.keyboard.press("Tab")
        assert re.search("does not answer|has stopped|being stopped", one.text(f"{YOU} [role=alert]"))
        fit_to_read(one)


def test_a_bundle_without_questions_and_names_says_so(
    opens: Opens, built: Path, tokenizer: Any, demo_bundle: Bundle, tmp_path: Path
):
    manifest = demo_bundle.manifest.model_copy(update={"cluster_names": None, "bank": None})
    plain = second_bundle(replace(demo_bundle, manifest=manifest, bank=None), tmp_path / "bundle")
    with served(tokenizer, bundle=plain.path) as running:
        one = opens(running.url, 360)
        one.wait("cannot get to know you")
        one.wait("has no names for what it learns")
        one.wait(SAME, YOU)
        fit_to_read(one)


def votes(running: Served, one: Window) -> int:
    visitor = one.page.evaluate("sessionStorage.getItem('idiolect-visitor')")
    return len(running.api("GET", f"/users/{visitor}/votes")["votes"])
