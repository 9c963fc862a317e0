"""The protocols as their own clients use them, on real vLLM: one server for all files of this folder.

A tiny model with random weights: what it says is noise, but for what a constraint has it say.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
from transformers import AutoTokenizer

from tests.live import running_server
from tests.parts.tiny import tiny_bundle

TEMPLATE = Path(__file__).parents[2] / "parts" / "tools.jinja"
N_USER_TOKENS = 2
SAID: list[Any] = [{"role": "user", "content": "Question 1?"}]
SCHEMA = {
    "type": "object",
    "properties": {"x": {"enum": ["aa", "bb"]}, "id": {"enum": [1]}},
    "required": ["x", "id"],
    "additionalProperties": False,
}
TOOL: Any = {
    "type": "function",
    "function": {"name": "pick", "description": "Picks.", "parameters": SCHEMA, "strict": True},
}
OTHER: Any = {"type": "function", "function": {"name": "rest", "parameters": SCHEMA, "strict": True}}
FLAT: Any = {"type": "function", "name": "pick", "parameters": SCHEMA, "strict": True}
ARGUMENTS = [{"x": "aa", "id": 1}, {"x": "bb", "id": 1}]


@dataclass
class Clients:
    openai: openai.OpenAI
    anthropic: anthropic.Anthropic
    http: httpx.Client
    model: str
    tokenizer: Any
    log: Path

    @cached_property
    def dense(self) -> dict[str, int]:
        """A bias against white space, which JSON allows without end, and a random model loves."""
        ids = (token for token in range(len(self.tokenizer)) if not self.tokenizer.decode([token]).strip())
        return {str(token): -100 for token in ids}


@pytest.fixture(scope="package")
def clients(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Iterator[Clients]:
    folder = tmp_path_factory.mktemp("protocols")
    bundle, model, _ = tiny_bundle(folder, model_path)
    settings = {"bundle": str(bundle.path), "model": str(model), "adapter": "live", "data_dir": str(folder / "data")}
    settings |= {"tool_call_parser": "hermes", "chat_template": str(TEMPLATE), "max_model_len": "1024"}
    log = folder / "server.log"
    with (
        log.open("wb") as file,
        running_server(file, **settings) as (url, _),
        httpx.Client(base_url=url, timeout=120) as http,
    ):
        yield Clients(
            openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120),
            anthropic.Anthropic(base_url=url, api_key="none", max_retries=0, timeout=120),
            http,
            bundle.manifest.base_model.name,
            AutoTokenizer.from_pretrained(model),
            log,
        )


def chat(clients: Clients, **asked: Any) -> Any:
    return clients.openai.chat.completions.create(
        **{"model": clients.model, "messages": SAID, "max_tokens": 8, "temperature": 0, **asked}
    )


def calls(clients: Clients, **asked: Any) -> list[tuple[str, dict[str, Any]]]:
    """Names and arguments of the calls in a reply, whole or streamed."""
    reply = chat(clients, logit_bias=clients.dense, max_tokens=200, user="long", **asked)
    if not asked.get("stream"):
        made = [(call.function.name, call.function.arguments) for call in reply.choices[0].message.tool_calls or ()]
        return [(name, json.loads(arguments)) for name, arguments in made]
    names, written = dict[int, str](), dict[int, str]()
    for chunk in reply:
        for call in chunk.choices[0].delta.tool_calls or ():
            names[call.index] = call.function.name or names[call.index]
            written[call.index] = written.get(call.index, "") + (call.function.arguments or "")
    return [(names[index], json.loads(written[index])) for index in sorted(names)]
