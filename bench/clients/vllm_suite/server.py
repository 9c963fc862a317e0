"""Stands for `tests.utils` of vLLM's tests: a server that they would start is the one that runs at VLLM_TESTS_URL."""

import os
from typing import Any, Self

import anthropic
import openai

ROCM_EXTRA_ARGS: list[str] = []
ROCM_ENV_OVERRIDES: dict[str, str] = {}
VLLM_PATH = "."


class RemoteOpenAIServer:
    """Whatever it is asked to serve, and with which arguments: the settings are those of the comparison."""

    DUMMY_API_KEY = "none"
    uds = None

    def __init__(self, *asked: Any, **more: Any) -> None:
        self.url_root = os.environ["VLLM_TESTS_URL"]
        self.host, _, port = self.url_root.removeprefix("http://").partition(":")
        self.port = int(port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None: ...

    def url_for(self, *parts: str) -> str:
        return "/".join([self.url_root, *(part.strip("/") for part in parts)])

    def get_client(self, **more: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url_for("v1"), api_key=self.DUMMY_API_KEY, max_retries=0, **more)

    def get_async_client(self, **more: Any) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=self.url_for("v1"), api_key=self.DUMMY_API_KEY, max_retries=0, **more)

    def get_client_anthropic(self, **more: Any) -> anthropic.Anthropic:
        return anthropic.Anthropic(base_url=self.url_root, api_key=self.DUMMY_API_KEY, max_retries=0, **more)

    def get_async_client_anthropic(self, **more: Any) -> anthropic.AsyncAnthropic:
        return anthropic.AsyncAnthropic(base_url=self.url_root, api_key=self.DUMMY_API_KEY, max_retries=0, **more)
