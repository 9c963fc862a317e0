"""Every setting of the server: read from IDIOLECT_* once at start, checked, frozen, passed down."""

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from idiolect.base_model import CACHE_DIR
from idiolect_server.errors import SettingsError
from idiolect_server.store.connection import URL

PREFIX = "IDIOLECT_"
ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(:\d{1,5})?|https?://\[[0-9A-Fa-f:]+\](:\d{1,5})?")
"""As browsers write one (RFC 6454, section 6.2)."""
INSTALL_VARIABLES = {"IDIOLECT_GPU"}
"""Read by docker/install.sh, not by the server."""


class Settings(BaseSettings):
    """The server's settings. Field names are the variables' names, lower case, without the prefix."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    bundle: Path
    """The bundle folder to serve."""
    model: str = "demo"
    """Base model: `demo` (see `make model`), a local folder, or a Hugging Face id, with @REVISION if need be."""
    redis_url: str | None = None
    """redis://, rediss:// or unix:// URL, or redis+cluster://HOST:PORT,HOST:PORT (rediss+cluster:// with TLS) for any
    nodes of a Redis Cluster. Without one the server runs its own Redis in the data folder."""
    data_dir: Path = Path("data")
    """Where the embedded Redis keeps its append-only file."""
    cache_dir: Path = CACHE_DIR
    """Converted and merged models."""
    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback requires api_keys."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on."""
    api_keys: Annotated[tuple[str, ...], NoDecode] = Field(default=(), repr=False)
    """Comma-separated SHA-256 digests of the accepted API keys; `idiolect keys` makes one."""
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Comma-separated origins (https://app.example.com) whose web pages may call this server from a browser; `*` for
    all, which requires api_keys. None if unset."""
    injection: Literal["passthrough", "mixed"] = "passthrough"
    """How user tokens enter vLLM; `mixed` is the fallback for models or versions that passthrough does not know."""
    adapter: Literal["auto", "merged", "live"] = "auto"
    """Merge the bundle's LoRA into the weights, or serve it beside them. `auto` merges on a CPU."""
    max_model_len: int | None = Field(default=None, ge=64)
    """Longest prompt and reply together, in tokens; the model's own limit if unset."""
    max_num_seqs: int | None = Field(default=None, ge=1, le=1024)
    """How many requests are computed at once; more wait. vLLM's choice if unset: 128 on a CPU, 1024 on an H100."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """What the model computes in. If unset: float32 on a CPU, the model's own on a GPU. A CPU with AMX or AVX512-BF16
    writes faster in bfloat16 (docs/engine.md)."""
    tensor_parallel_size: int = Field(default=1, ge=1, le=64)
    """How many GPUs compute the model together."""
    gpu_memory: float | None = Field(default=None, gt=0, le=1)
    """Share of each GPU's memory that vLLM takes, for the model, its keys and values; vLLM's choice if unset: 0.92.
    Leave room for whatever else runs there, such as the trainer."""
    kv_cache_dtype: str | None = None
    """What keys and values are kept in, by vLLM's name (such as fp8); the model's own type if unset."""
    quantization: str | None = None
    """How weights are quantized when they are loaded, by vLLM's name (such as fp8_per_tensor); not at all if unset. The
    bundle was trained on the weights as they are: its replies will differ."""
    structured_outputs: bool = True
    """Whether callers of the OpenAI API may say what form a reply must have (`response_format`, `structured_outputs`).
    Each form is bounded, and tried in a process of its own before the engine has it (docs/http-api.md)."""
    tool_call_parser: str | None = None
    """How the model writes calls of tools, by vLLM's name (such as hermes, or llama3_json). If unset, callers may give
    tools, but not leave it to the model whether to call one (docs/http-api.md)."""
    reasoning_parser: str | None = None
    """How the model writes what it thinks before its reply, by vLLM's name (such as qwen3). If unset, what it thinks is
    part of the reply."""
    chat_template: Path | None = None
    """A file with a chat template (Jinja) in place of the tokenizer's own. User tokens must have a safe place in it; it
    is not what the bundle was trained on, so replies will differ."""
    vllm_args: str = ""
    """Further engine arguments of vLLM, as for `vllm serve`, such as `--pipeline-parallel-size 2`. Checked at start;
    what has a setting here, and what personalizing depends on, is refused."""
    max_waiting_tokens: int | None = Field(default=None, ge=0)
    """How many tokens, of prompts and expected replies, may wait for the engine; whoever comes then is answered 429. If
    unset: as many as usual replies (256) have that it computes at once."""
    deadline_s: float = Field(default=600.0, gt=0, allow_inf_nan=False)
    """Seconds in which a reply must be finished; then it is given up, and answered 504."""
    max_body_bytes: int = Field(default=1 << 20, ge=1024)
    """Largest request body of /generate and /v1/chat/completions; all others take at most 64 KiB."""
    drain_s: float = Field(default=30, ge=0, le=3600)
    """How long running requests may take to finish once the server is told to stop, in seconds. Whoever stops it should
    wait 15 s longer before it kills."""
    stall_s: float = Field(default=45, ge=10, le=3600)
    """How long the engine may take for one step, in seconds, before the server ends for a supervisor to start it anew.
    A step computes at most 512 tokens on a CPU; raise this for a model that takes longer for them."""

    @field_validator("redis_url")
    @classmethod
    def _known_scheme(cls, url: str | None) -> str | None:
        if url is not None and not URL.fullmatch(url):
            # Not repeated: it may hold a password.
            raise ValueError("expected redis://, rediss://, unix://, redis+cluster:// or rediss+cluster://")
        return url

    @field_validator("api_keys", "cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("api_keys")
    @classmethod
    def _digests(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        if not all(re.fullmatch(r"[0-9a-f]{64}", key) for key in keys):
            raise ValueError("expected SHA-256 digests (64 hex digits), made by `idiolect keys`")
        return keys

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        if not all(origin == "*" or ORIGIN.fullmatch(origin) for origin in origins):
            raise ValueError("expected origins such as https://app.example.com, without a path")
        return origins

    @model_validator(mode="after")
    def _no_open_door(self) -> Self:
        if not self.api_keys and not _is_loopback(self.host):
            raise ValueError("api_keys is required when host is not a loopback address")
        if not self.api_keys and "*" in self.cors_origins:
            raise ValueError("api_keys is required when every web page may call this server")
        return self

    @classmethod
    def read(cls, env: Mapping[str, str] = os.environ) -> Self:
        """The settings of the environment. Raises SettingsError, also for an IDIOLECT_* name that does not exist."""
        names = {PREFIX + name.upper() for name in cls.model_fields} | INSTALL_VARIABLES
        if unknown := sorted(name for name in env if name.startswith(PREFIX) and name not in names):
            raise SettingsError(f"unknown setting {unknown[0]}", hint="docs/settings.md lists them all")
        try:
            return cls(**{})
        except ValidationError as error:
            problems = "; ".join(
                f"{PREFIX}{'_'.join(map(str, e['loc'])).upper() or '*'}: {e['msg']}" for e in error.errors()
            )
            raise SettingsError(problems) from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
