"""Who waits is counted in the order of arrival, and refused beyond the bound; what takes too long is given up."""

import asyncio
import time
from contextlib import ExitStack

import pytest

from idiolect_server import admission
from idiolect_server.admission import USUAL_REPLY_TOKENS, Admission, Capacity, until
from idiolect_server.errors import DeadlineExceeded, Overloaded, headers

SMALL = Capacity(n_replies=2, n_tokens=1000)


def enter(stack: ExitStack, door: Admission, *size: int) -> None:
    stack.enter_context(door.reply(*size))


def test_what_the_engine_has_no_room_for_waits_and_is_bounded():
    door = Admission(SMALL, 60, max_waiting_tokens=250)
    with ExitStack() as stack:
        for _ in range(2):
            enter(stack, door, 90, 10)
        assert door.waiting_tokens == 0
        enter(stack, door, 90, 10)
        enter(stack, door, 90, 10)
        assert (door.n_replies, door.waiting_tokens) == (4, 200)
        began = time.perf_counter()
        with pytest.raises(Overloaded) as refused:
            enter(stack, door, 90, 10)
        assert time.perf_counter() - began < 0.05
        assert headers(refused.value) == {"Retry-After": "1"}
        assert (door.n_replies, door.waiting_tokens) == (4, 200)  # the refused one has left nothing
        enter(stack, door, 40, 10)
    assert (door.n_replies, door.waiting_tokens) == (0, 0)


def test_those_who_have_waited_longest_go_in_first():
    door = Admission(SMALL, 60, max_waiting_tokens=1000)
    first, others = ExitStack(), ExitStack()
    enter(first, door, 700, 100)
    enter(others, door, 600, 0)  # there is a place, but not for so many tokens
    enter(others, door, 10, 0)  # which does not overtake
    assert door.waiting_tokens == 610
    first.close()
    assert door.waiting_tokens == 0
    others.close()
    assert door.n_replies == 0


def test_a_prompt_that_nobody_waits_for_comes_in_whatever_its_size():
    door = Admission(SMALL, 60, max_waiting_tokens=0)
    with door.reply(5000, 8192), door.reply(1, 1):
        assert door.waiting_tokens == 2  # too many tokens are computed already
        with pytest.raises(Overloaded), door.reply(1, 1):
            pass


def test_the_bound_is_a_batch_of_usual_replies_unless_it_is_set():
    door = Admission(SMALL, 60)
    with ExitStack() as stack:
        for size in (500, 500, 500, 12):
            enter(stack, door, size, 0)
        assert door.waiting_tokens == 2 * USUAL_REPLY_TOKENS
        with pytest.raises(Overloaded):
            enter(stack, door, 1, 0)


def test_replies_count_as_much_as_is_usual_and_choices_for_each():
    door = Admission(Capacity(1, 10**6), 60)
    with door.reply(1, 1), door.reply(10, 8192, 3):
        assert door.waiting_tokens == 10 + 3 * USUAL_REPLY_TOKENS


def test_the_wait_that_is_asked_for_is_how_long_what_waits_will_take(monkeypatch: pytest.MonkeyPatch):
    now_s = [100.0]
    monkeypatch.setattr(admission.time, "monotonic", lambda: now_s[0])
    door = Admission(Capacity(1, 1000), 60, max_waiting_tokens=1000)
    for _ in range(2):
        with door.reply(500, 0):
            now_s[0] += 5.5  # 500 tokens in 5.5 s
    with door.reply(1, 0), door.reply(1000, 0):
        with pytest.raises(Overloaded) as refused:
            door.check(1)
        assert refused.value.retry_after_s == 11


def test_a_deadline_ends_what_is_awaited():
    async def check() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(DeadlineExceeded):
            async with until(loop.time() + 0.01):
                await asyncio.sleep(30)
        with pytest.raises(TimeoutError):
            async with until(loop.time() + 30):
                raise TimeoutError  # of something else

    asyncio.run(check())
