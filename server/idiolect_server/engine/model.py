"""Model classes that take user tokens as a pass-through modality.

vLLM copies tensors of the modality `prompt_embeds` straight to where a vision encoder's output would go, without
running an encoder. All that a text model lacks is to say that it accepts them: these classes say so and merge the
rows. Only T_u x H numbers travel with a request, whatever its length, and LoRA works unrestricted.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from vllm import ModelRegistry
from vllm.model_executor.models.interfaces import SupportsMultiModal
from vllm.model_executor.models.utils import _merge_multimodal_embeddings
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.processing import BaseDummyInputsBuilder, BaseMultiModalProcessor, BaseProcessingInfo

from idiolect_server.engine.plugin import ARCHITECTURES

MODALITY = "prompt_embeds"
MAX_USER_TOKENS = 64


class _Info(BaseProcessingInfo):  # type: ignore[misc]
    """One block of user tokens per request; there is no processor to describe."""

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        return {MODALITY: 1}

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int] | None:
        return {MODALITY: MAX_USER_TOKENS}


class _Unused(BaseMultiModalProcessor):  # type: ignore[misc]
    """The engine is handed finished inputs, so vLLM never processes one. Reaching this is a mistake of ours."""

    def _get_mm_fields_config(self, hf_inputs: object, hf_processor_mm_kwargs: object) -> Mapping[str, Any]:
        raise RuntimeError("user tokens are injected, never processed")

    def get_dummy_mm_inputs(self, *args: object, **kwargs: object) -> Any:
        """vLLM warms its processor up with these; there is nothing to warm up, and nobody reads them."""

    def _get_prompt_updates(self, *args: object) -> Sequence[Any]:
        raise RuntimeError("user tokens are injected, never processed")


class _NoDummies(BaseDummyInputsBuilder):  # type: ignore[misc]
    """Profiling is switched off for this modality: it runs no encoder."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        return ""

    def get_dummy_mm_data(self, seq_len: int, mm_counts: Mapping[str, int], mm_options: object) -> dict[str, Any]:
        return {}


class _UserTokens:
    """What is added to each base class. Plain, and first in each MRO: a Protocol there would swallow __init__."""

    model: Any

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str | None:
        return None

    def get_language_model(self) -> Any:
        return self

    def embed_multimodal(self, **kwargs: object) -> Any:
        raise RuntimeError("user tokens need no encoder")

    def embed_input_ids(
        self,
        input_ids: torch.Tensor,
        multimodal_embeddings: Any = None,
        *,
        is_multimodal: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Embeddings [n, H] of a batch's tokens, user tokens in their places."""
        embeds: torch.Tensor = self.model.embed_input_ids(input_ids)
        if not multimodal_embeddings or is_multimodal is None:
            return embeds
        merged: torch.Tensor = _merge_multimodal_embeddings(embeds, multimodal_embeddings, is_multimodal)
        return merged


def __getattr__(name: str) -> Any:
    """The class of that name in ARCHITECTURES, made when vLLM builds it: each is vLLM's own with the place added."""
    for architecture, ours in ARCHITECTURES.items():
        if ours == name:
            base = ModelRegistry.models[architecture].load_model_cls()
            made = type(name, (_UserTokens, base, SupportsMultiModal), {"__module__": __name__})
            register = MULTIMODAL_REGISTRY.register_processor(_Unused, info=_Info, dummy_inputs=_NoDummies)
            globals()[name] = register(made)
            return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
