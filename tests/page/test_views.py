"""Chat, compare, a person, operate: what each does, in both widths and colours, and by keyboard."""

import pytest

from tests.page.conftest import Opens
from tests.page.served import Served
from tests.page.window import Window

pytestmark = pytest.mark.slow

SHAPES = (1440, "light"), (360, "dark")
VIEWS = {"chat": "Chat", "compare": "Compare", "person": "Person", "operate": "Operate"}


def fit(one: Window) -> None:
    assert one.violations() == []
    assert one.overflow_px() <= 0


def voted(world: Served, user: str, n: int = 2) -> str:
    """A user who has answered questions."""
    for _ in range(n):
        asked = world.api("GET", f"/users/{user}/question")["question"]
        vote = {"user_id": user, "question_id": asked["question_id"]}
        world.api("POST", "/feedback", json={**vote, "chosen": asked["first"], "rejected": asked["second"]})
    return user


@pytest.mark.parametrize(("width", "scheme"), SHAPES)
def test_every_view_is_reached_by_keyboard_and_fit_to_read(opens: Opens, world: Served, width: int, scheme: str):
    one = opens(world.url, width, scheme)
    for path, title in VIEWS.items():
        link = one.page.get_by_role("link", name=title, exact=True)
        link.focus()
        one.page.keyboard.press("Enter")
        one.page.get_by_role("heading", name=title, exact=True).wait_for()
        assert one.page.url.endswith(f"#/{path}")
        assert link.get_attribute("aria-current") == "page"
        one.page.wait_for_function("() => !document.querySelector('main .dots')")
        fit(one)


def test_colours_can_be_turned_and_stay_so(opens: Opens, world: Served):
    one = opens(world.url)
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    light = one.page.evaluate(ground)
    one.page.get_by_role("button", name="Dark colours").press("Enter")
    dark = one.page.evaluate(ground)
    assert dark != light
    one.page.reload()
    one.page.get_by_role("button", name="Light colours").wait_for()
    assert one.page.evaluate(ground) == dark


def test_a_chat_streams_and_a_choice_between_two_replies_is_a_vote(opens: Opens, world: Served):
    one = opens(f"{world.url}/#/chat", 360)
    one.page.get_by_label("As").fill("chatty")
    one.page.get_by_label("As").press("Enter")
    say = one.page.get_by_label("Say something")
    say.fill("Good morning")
    say.press("Enter")
    one.page.locator(".turn.assistant:not(:has(.caret))").wait_for()
    assert one.page.locator(".turn").count() == 2
    one.page.get_by_label("two replies, to choose from").check()
    say.fill("Tell me more")
    say.press("Enter")
    one.page.locator(".side").nth(1).wait_for()
    fit(one)
    second = one.page.locator(".side span").nth(1).inner_text()
    one.page.locator(".side").nth(1).focus()
    one.page.keyboard.press("2")
    one.wait("Noted.", ".talk")
    assert one.page.locator(".turn.assistant").last.inner_text() == second
    (vote,) = world.api("GET", "/users/chatty/votes")["votes"]
    assert vote["chosen"] == second
    assert [turn["content"] for turn in vote["messages"] if turn["role"] == "user"] == ["Good morning", "Tell me more"]


def test_several_people_are_compared(opens: Opens, world: Served):
    user = voted(world, "compared")
    one = opens(f"{world.url}/#/compare")
    one.page.get_by_role("button", name="short-list-warm-1").click()  # whom training knew
    one.page.get_by_label("Add a person").fill(user)
    one.page.get_by_label("Add a person").press("Enter")
    one.page.get_by_role("button", name="Ask for all").click()
    one.wait("is what differs", f".pane:has-text('For {user}')")
    one.wait("is what differs", ".pane:has-text('For short-list-warm-1')")
    one.wait("word for word the same", ".pane.ours")
    assert one.page.locator(".pane").count() == 4
    fit(one)
    one.page.get_by_role("button", name=f"Remove {user}").click()
    assert one.page.locator(".pane").count() == 3


@pytest.mark.parametrize(("width", "scheme"), SHAPES)
def test_a_person_is_shown_and_taken_back(opens: Opens, world: Served, width: int, scheme: str):
    user = voted(world, f"shown-{width}", 3)
    one = opens(f"{world.url}/#/person", width, scheme)
    one.page.get_by_label("Who").fill(user)
    one.page.get_by_label("Who").press("Enter")
    one.wait("known by their answers")
    assert world.api("GET", f"/users/{user}")["belief_in_words"] in one.text(".words")
    assert one.page.locator("ol li").count() == 3
    fit(one)
    one.page.get_by_role("button", name="Take back").first.press("Enter")
    one.page.wait_for_function("() => document.querySelectorAll('ol li').length === 2")
    assert world.api("GET", f"/users/{user}")["votes"] == 2
    words = one.page.get_by_label("In their own words")
    words.fill("I sail.")
    one.page.get_by_role("button", name="Keep").press("Enter")
    one.wait("Kept.")
    assert world.api("GET", f"/users/{user}")["profile"] == "I sail."
    one.page.get_by_role("button", name="Erase this person").press("Enter")
    one.page.get_by_role("button", name="Yes, erase").press("Enter")
    one.wait("Forgotten", ".receipt")
    fit(one)
    assert world.api("GET", f"/users/{user}")["known"] is False


def test_operating_shows_what_is_served(opens: Opens, world: Served):
    one = opens(f"{world.url}/#/operate", 360)
    status = world.api("GET", "/status")
    one.wait(status["bundle"])
    one.wait("replies written")
    fit(one)
