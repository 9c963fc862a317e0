"""The minute, as a visitor has it: five answers, another reply, forgotten. By click and by key, on both widths."""

import gzip
import re
from pathlib import Path
from typing import Any

import pytest

from idiolect_server.door.keys import digest
from tests.page.conftest import Opens
from tests.page.served import Served, served
from tests.page.window import Window

pytestmark = pytest.mark.slow

MAX_GZ_BYTES = 60_000
BOTH = pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (360, "dark")])
YOU, EVERYBODY = ".pane.ours", ".pane:not(.ours)"


def begun(opens: Opens, world: Served, width: int = 1440, scheme: str = "light") -> Window:
    one = opens(world.url, width, scheme)
    one.wait("word for word the same", YOU)
    one.page.locator(".side").first.wait_for()
    return one


def reply(one: Window, pane: str) -> str:
    return one.text(f"{pane} .reply")


def answer(one: Window, n: int, key: str) -> None:
    """The next question's, which is there afterwards."""
    before = one.text(".pair")
    one.page.keyboard.press(key)
    one.page.locator("[aria-disabled=true]").first.wait_for(state="detached")  # the answer before is taken
    one.page.wait_for_function(
        "([n, before]) => document.querySelectorAll('.steps .on').length === n"
        " && document.querySelector('.pair')?.innerText !== before",
        arg=[n, before],
    )


@BOTH
def test_five_answers_change_the_reply_and_forgetting_brings_it_back(
    opens: Opens, world: Served, width: int, scheme: str
):
    one = begun(opens, world, width, scheme)
    first = reply(one, YOU)
    assert first == reply(one, EVERYBODY)
    for n, key in enumerate("12112", start=1):
        answer(one, n, key)
    one.wait("marked is what differs", YOU)
    assert reply(one, YOU) != first
    assert one.page.locator(f"{YOU} .reply mark").count() > 0
    figures = one.text("dl")
    assert re.search(r"\d+ ms", figures)
    assert re.search(r"\n0\n", f"\n{figures}\n")
    assert "32 bytes" in figures
    assert one.violations() == []
    assert one.overflow_px() <= 0
    one.page.get_by_role("button", name="Forget me").click()
    one.wait("Forgotten", ".receipt")
    assert "5 answers" in one.text(".receipt")
    one.wait("word for word the same", YOU)
    assert reply(one, YOU) == first
    assert "You could be anybody" in one.text(".below")
    assert one.violations() == []
    assert {url.split("/")[2] for url in one.urls} == {world.url.removeprefix("http://")}


def test_the_picture_is_what_the_api_believes(opens: Opens, world: Served):
    one = begun(opens, world)
    answer(one, 1, "1")
    visitor = one.page.evaluate("sessionStorage.getItem('idiolect-visitor')")
    belief = world.api("GET", f"/users/{visitor}")["belief"]
    labels = one.page.locator(".below ul svg").evaluate_all("all => all.map(one => one.getAttribute('aria-label'))")
    assert len(labels) == 3
    for label in labels:
        for word, percent in re.findall(r"(\w+) (\d+)%", label):
            p = sum(weight for name, weight in belief.items() if word in name.split(", "))
            assert abs(100 * p - int(percent)) <= 1, label


def test_skipping_notes_nothing_and_no_preference_is_an_answer(opens: Opens, world: Served):
    one = begun(opens, world)
    visitor = one.page.evaluate("sessionStorage.getItem('idiolect-visitor')")
    before = one.text(".pair")
    one.page.keyboard.press("s")
    one.page.wait_for_function("before => document.querySelector('.pair')?.innerText !== before", arg=before)
    assert world.api("GET", f"/users/{visitor}/votes")["votes"] == []
    answer(one, 1, "0")
    (vote,) = world.api("GET", f"/users/{visitor}/votes")["votes"]
    assert (vote["kind"], vote["effect"]) == ("tie", "counted")


def test_the_whole_minute_goes_by_keyboard(opens: Opens, world: Served):
    """Tab and Enter reach everything, and digits typed into the question are no answers."""
    one = begun(opens, world)
    one.page.get_by_label("Your question to the model").focus()
    one.page.keyboard.type(" 1 2")
    one.page.keyboard.press("Enter")
    one.wait("word for word the same", YOU)
    assert one.page.locator(".steps .on").count() == 0
    for _ in range(10):
        one.page.keyboard.press("Tab")
        if one.page.evaluate("document.activeElement.matches('.side')"):
            break
    answer(one, 1, "Enter")
    assert one.page.evaluate("document.activeElement.matches('.side')")  # the place is kept
    for n in range(2, 6):
        answer(one, n, "2")
    assert one.page.evaluate("document.activeElement.innerText") == "That was five."
    one.page.keyboard.press("Tab")
    one.page.locator("[aria-disabled=true]").wait_for(state="detached")
    one.page.keyboard.press("Enter")
    one.wait("Forgotten", ".receipt")


def test_text_from_right_to_left_stands_at_the_right(opens: Opens, world: Served):
    one = begun(opens, world)
    box = one.page.get_by_label("Your question to the model")
    box.fill("מה זה מהדר?")
    assert box.evaluate("box => getComputedStyle(box).direction") == "rtl"
    assert one.page.locator(".reply").first.get_attribute("dir") == "auto"


def test_what_a_model_or_a_user_writes_stays_text(opens: Opens, world: Served):
    one = begun(opens, world)
    one.page.get_by_label("Your question to the model").fill("<img src=x onerror=document.title='in'>")
    one.page.keyboard.press("Enter")
    one.wait("word for word the same", YOU)
    assert one.page.title() == "Idiolect"
    with pytest.raises(Exception, match="TrustedHTML"):
        one.page.evaluate("document.body.innerHTML = '<p>in</p>'")
    one.expected = "TrustedHTML|trusted"


def test_a_key_is_asked_for_once_and_stays_out_of_addresses(opens: Opens, built: Path, tokenizer: Any):
    with served(tokenizer, api_keys=(digest("a-key"),)) as locked:
        one = opens(locked.url)
        one.expected = "401"  # the browser's own words for the first question, and for the wrong key
        for key in ("wrong", "a-key"):
            one.page.get_by_label("API key").fill(key)
            assert one.violations() == []
            one.page.keyboard.press("Enter")
        one.wait("word for word the same", YOU)
        one.page.reload()
        one.wait("word for word the same", YOU)
        assert [url for url in one.urls if "a-key" in url or "wrong" in url] == []
        assert one.page.evaluate(
            "[Object.values(sessionStorage), Object.values(localStorage)].map(all => all.includes('a-key'))"
        ) == [
            True,
            False,
        ]


def test_all_of_it_is_small(built: Path):
    parts = [path for path in built.rglob("*") if path.is_file()]
    assert sum(len(gzip.compress(path.read_bytes())) for path in parts) <= MAX_GZ_BYTES
