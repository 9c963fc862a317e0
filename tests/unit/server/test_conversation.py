"""Long conversations are encoded in another thread, and come out the same."""

import asyncio
import threading

import pytest
from transformers import AutoTokenizer

from idiolect.prompt.layout import Layout
from idiolect_server.engine.conversation import MAX_INLINE_CHARACTERS, Conversations
from idiolect_server.errors import RequestError
from idiolect_training.demo_model import demo_model

LAYOUT = Layout(placement="after_system", opening="<|im_start|>user", end_id=2)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(demo_model())


def expected(tokenizer, messages: list[dict[str, str]]) -> list[int]:
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]


def test_short_and_long_ones_at_once_are_encoded_as_the_template_says(tokenizer):
    conversations = Conversations(tokenizer, 100_000)
    asked = [
        [{"role": "user", "content": f"Number {n}? " * (1 if n % 2 else MAX_INLINE_CHARACTERS)}] for n in range(12)
    ]

    async def encode_all():
        return await asyncio.gather(*(conversations.place(one, LAYOUT) for one in asked))

    found = asyncio.run(encode_all())
    assert [placed.token_ids for placed in found] == [expected(tokenizer, messages) for messages in asked]
    conversations.close()


def test_the_event_loop_goes_on_while_a_long_one_is_encoded(tokenizer):
    conversations = Conversations(tokenizer, 100_000)
    long = [{"role": "user", "content": "What of it? " * 2 * MAX_INLINE_CHARACTERS}]

    async def count() -> int:
        encoding = asyncio.ensure_future(conversations.place(long, LAYOUT))
        turns = 0
        while not encoding.done():
            turns += 1
            await asyncio.sleep(0.0005)
        return turns

    assert asyncio.run(count()) > 3
    assert any(thread.name.startswith("tokenizer") for thread in threading.enumerate())
    conversations.close()


def test_what_the_template_refuses_is_a_request_error(tokenizer):
    strict = AutoTokenizer.from_pretrained(demo_model())
    strict.chat_template = "{{ raise_exception('users and assistants take turns') }}"
    with pytest.raises(RequestError, match="take turns"):
        asyncio.run(Conversations(strict, 2048).place([{"role": "user", "content": "Hi"}], LAYOUT))
