"""A quantized copy of the base model, accepted by the bundle, serves it on real vLLM beside a live adapter."""

import shutil
from pathlib import Path

import httpx
import pytest

from idiolect.base_model import accept
from idiolect.bundle import Bundle
from tests.live import running_server
from tests.parts.int8_copy import write_int8_copy

PROMPTS = ("How do I tune a violin?", "How do I boil an egg?", "What is a glacier?")


@pytest.mark.timeout(300)
def test_users_keep_their_tastes_on_a_copy_with_weights_of_8_bits(
    demo_bundle: Bundle, model_path: Path, tmp_path: Path
):
    model = write_int8_copy(model_path, tmp_path / "int8")
    bundle = Path(shutil.copytree(demo_bundle.path, tmp_path / "bundle"))
    accept(bundle, model, "int8")
    with (tmp_path / "log").open("wb") as log, running_server(log, bundle=str(bundle), model=str(model)) as (url, _):

        def reply(user: str, prompt: str) -> str:
            answer = httpx.post(f"{url}/generate", json={"user_id": user, "prompt": prompt}, timeout=60)
            assert answer.json()["personalization"]["state"] == "stored", answer.text
            return str(answer.json()["text"])

        for prompt in PROMPTS:
            short, long = reply("short-list-warm-1", prompt), reply("thorough-prose-plain-1", prompt)
            assert short.startswith("- "), short
            assert not long.startswith("- "), long
            assert len(long) > len(short)
