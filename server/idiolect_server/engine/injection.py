"""The two ways in which user tokens enter vLLM, behind one setting.

`passthrough` (default) ships T_u x H numbers whatever the prompt's length, through a model class of ours
(`idiolect_server.engine.model`). `mixed` is vLLM's documented prompt-embeds input and needs no class of ours, but ships
prompt length x H. Both give the same tokens; a vLLM upgrade that breaks one leaves the other.
"""

from typing import Any, Protocol, get_args

import numpy as np
import torch
from vllm.inputs.engine import embeds_input, mm_input, tokens_input
from vllm.multimodal.inputs import (
    MultiModalBatchedField,
    MultiModalFieldElem,
    MultiModalKwargsItem,
    MultiModalKwargsItems,
    PlaceholderRange,
)

from idiolect.architectures import SERVED_OTHERWISE
from idiolect_server.engine.base import InjectionName
from idiolect_server.engine.plugin import ARCHITECTURES
from idiolect_server.errors import SettingsError
from idiolect_server.prompt import Placed

INJECTIONS: tuple[InjectionName, ...] = get_args(InjectionName)

MODALITY = "prompt_embeds"
PLACEHOLDER_ID = 0
"""An id inside every vocabulary, so that penalties and gathers stay in range."""


class Injection(Protocol):
    """How a placed prompt becomes an input of vLLM's engine."""

    def engine_args(self, architecture: str) -> dict[str, Any]:
        """What the engine needs to be started with. Raises SettingsError for an architecture that it does not know."""

    def engine_input(self, placed: Placed, dtype: torch.dtype) -> Any:
        """The rendered engine input of one request."""


class PassThrough:
    """User tokens as an item of vLLM's pass-through modality."""

    def engine_args(self, architecture: str) -> dict[str, Any]:
        _check(architecture)
        if architecture not in ARCHITECTURES:
            known = ", ".join(sorted(ARCHITECTURES))
            raise SettingsError(
                f"passthrough injection knows {known}, not {architecture}", hint="set IDIOLECT_INJECTION=mixed"
            )
        return {
            "hf_overrides": {"architectures": [ARCHITECTURES[architecture]]},
            "skip_mm_profiling": True,
            # Items are a few kilobytes and already cached by us; vLLM's own cache would only hold them twice.
            "mm_processor_cache_gb": 0,
        }

    def engine_input(self, placed: Placed, dtype: torch.dtype) -> Any:
        if placed.user_tokens is None:
            return tokens_input(list(placed.token_ids))
        rows = torch.from_numpy(placed.user_tokens.rows).to(dtype)
        item = MultiModalKwargsItem({"embedding": MultiModalFieldElem(data=rows, field=MultiModalBatchedField())})
        return mm_input(
            with_placeholders(placed),
            MultiModalKwargsItems({MODALITY: [item]}),
            {MODALITY: [placed.user_tokens.digest]},
            {MODALITY: [PlaceholderRange(offset=placed.offset, length=len(rows))]},
        )


class Mixed:
    """User tokens as rows of a full-length tensor, with a mask that says which rows to take."""

    def engine_args(self, architecture: str) -> dict[str, Any]:
        _check(architecture)
        return {"enable_prompt_embeds": True}

    def engine_input(self, placed: Placed, dtype: torch.dtype) -> Any:
        if placed.user_tokens is None:
            return tokens_input(list(placed.token_ids))
        ids = with_placeholders(placed)
        rows = placed.user_tokens.rows
        # Rows of token positions are hashed into the prefix cache too: exactly zero, or nothing would be shared.
        embeds = torch.zeros(len(ids), rows.shape[1], dtype=dtype)
        embeds[placed.offset : placed.offset + len(rows)] = torch.from_numpy(rows).to(dtype)
        is_token = np.ones(len(ids), dtype=bool)
        is_token[placed.offset : placed.offset + len(rows)] = False
        return embeds_input(embeds, prompt_token_ids=ids, is_token_ids=is_token.tolist())


def build_injection(name: InjectionName) -> Injection:
    """The injection of that name."""
    return PassThrough() if name == "passthrough" else Mixed()


def _check(architecture: str) -> None:
    if architecture in SERVED_OTHERWISE:
        raise SettingsError(f"vLLM computes {architecture} otherwise than the trainer did, and cannot serve it")


def with_placeholders(placed: Placed) -> list[int]:
    """Token ids with PLACEHOLDER_ID where a user token stands, [n_tokens]."""
    n = placed.n_tokens - len(placed.token_ids)
    return [*placed.token_ids[: placed.offset], *[PLACEHOLDER_ID] * n, *placed.token_ids[placed.offset :]]
