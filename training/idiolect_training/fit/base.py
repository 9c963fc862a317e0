"""The base model as the trainer computes with it: its architecture, its masks, and logits that are its own.

Families differ in what they do beside decoder and head: Granite and Cohere scale their logits, Gemma 2 caps them,
Mistral and others attend within a window. Here the model's own forward computes all of that; only the hidden states
that nobody asked about are dropped before the head, since the vocabulary is the widest matrix of a small model.
"""

import json
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from idiolect.architectures import SERVED_OTHERWISE
from idiolect_training.errors import BaseModelUnsupported
from idiolect_training.fit.batch import Batch


class Window(Enum):
    """Which layers attend within `sliding_window` tokens, where the model's config has such a number."""

    NONE = "none"
    ALL = "all layers"
    SOME = "those of layer_types"


TRAINED = {
    "CohereForCausalLM": Window.NONE,
    "GemmaForCausalLM": Window.NONE,
    "Gemma2ForCausalLM": Window.SOME,
    "Gemma3ForCausalLM": Window.SOME,
    "GraniteForCausalLM": Window.NONE,
    "LlamaForCausalLM": Window.NONE,
    "MistralForCausalLM": Window.ALL,
    "MixtralForCausalLM": Window.ALL,
    "OlmoForCausalLM": Window.NONE,
    "Olmo2ForCausalLM": Window.NONE,
    "PhiForCausalLM": Window.NONE,
    "Phi3ForCausalLM": Window.ALL,
    "Qwen2ForCausalLM": Window.SOME,
    "Qwen3ForCausalLM": Window.SOME,
    "Qwen3MoeForCausalLM": Window.ALL,
    "Starcoder2ForCausalLM": Window.ALL,
}
"""Architecture of the base model's config -> its windows, as transformers' forward has them; docs/training.md."""


def read_config(folder: Path) -> Any:
    """transformers' config of the model in a folder. Raises BaseModelUnsupported, before any weight is read."""
    try:
        architectures = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures") or [
            "none"
        ]
    except (OSError, ValueError, AttributeError) as error:
        raise BaseModelUnsupported(f"{folder}: config.json cannot be read: {error}") from error
    name = architectures[0]
    if name not in TRAINED:
        why = ": vLLM computes it otherwise, so it could not be served as it was trained"
        raise BaseModelUnsupported(
            f"{folder}: the architecture {name} cannot be trained{why if name in SERVED_OTHERWISE else ''}",
            hint="these can: " + ", ".join(name.removesuffix("ForCausalLM") for name in sorted(TRAINED)),
        )
    return AutoConfig.from_pretrained(folder)


def load(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    """The model in a folder. Raises BaseModelUnsupported."""
    config = read_config(folder)
    # The kernels of sdpa leave out the cap that Gemma 2 puts on attention scores.
    attention = "eager" if getattr(config, "attn_logit_softcapping", None) else "sdpa"
    return AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=dtype, attn_implementation=attention)


def masks(model: PreTrainedModel, batch: Batch) -> Tensor | dict[str, Tensor]:
    """What each token of the batch sees, as the model takes it: [B, 1, L, L], or one for each type of layer.

    A window is one of positions, not of places in the row: `rejected` stands behind `chosen`, but continues the prompt.
    """
    config = model.config
    kind = TRAINED[config.architectures[0]]
    visible = batch.visible()
    if kind is Window.NONE or getattr(config, "sliding_window", None) is None:
        return _as_taken(model, visible)
    distance = batch.positions[:, None, :, None] - batch.positions[:, None, None, :]
    near = _as_taken(model, visible & (distance < config.sliding_window))
    return near if kind is Window.ALL else {"full_attention": _as_taken(model, visible), "sliding_attention": near}


def _as_taken(model: PreTrainedModel, visible: Tensor) -> Tensor:
    """Eager attention adds its mask to the scores; a bool would be added as a number."""
    if model.config._attn_implementation != "eager":
        return visible
    hidden = torch.finfo(model.dtype).min
    return torch.zeros_like(visible, dtype=model.dtype).masked_fill(~visible, hidden)


def logits_at(model: PreTrainedModel, row: Tensor, place: Tensor, **inputs: Any) -> tuple[Tensor, ModelOutput]:
    """The model's own logits [N, V] in float32 at N (row, place) of its inputs, and the whole output of its forward.

    Everything after the decoder is done by position in all of TRAINED, so N positions may pass for one sequence.
    """

    def pick(_module: torch.nn.Module, _inputs: object, output: ModelOutput) -> ModelOutput:
        output.last_hidden_state = output.last_hidden_state[row, place][None]
        return output

    hook = model.get_decoder().register_forward_hook(pick)
    try:
        output = model(**inputs, use_cache=False)
    finally:
        hook.remove()
    # squeeze, since the gradient of an index would be a copy as wide as the vocabulary.
    return output.logits.squeeze(0).float(), output
