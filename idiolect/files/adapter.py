"""The LoRA of a bundle as a PEFT folder: a config that asks for W + (alpha / r) B A and nothing else, and its pairs."""

import re
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from idiolect.errors import BundleCorrupt, BundleShapeMismatch
from idiolect.files.document import brief, first_fault, parse
from idiolect.files.folder import ADAPTER_CONFIG, ADAPTER_TENSORS, Folder
from idiolect.files.tensors import Tensors, read_tensors
from idiolect.user_model import LARGEST

OTHER_ARITHMETIC = "the weights would be other ones than W + (alpha / r) B A"
OTHER_MODULES = "every pair has one rank and one alpha, and only linear layers have pairs"
TRAINING_ONLY = "it changes how training begins, and the base model with it"
MUST_BE_OFF = {
    **dict.fromkeys(("use_dora", "use_rslora", "use_qalora", "lora_bias", "fan_in_fan_out"), OTHER_ARITHMETIC),
    **dict.fromkeys(("alora_invocation_tokens", "use_bdlora", "arrow_config", "kasa_config"), OTHER_ARITHMETIC),
    **dict.fromkeys(("rank_pattern", "alpha_pattern", "modules_to_save", "target_parameters"), OTHER_MODULES),
    **dict.fromkeys(("trainable_token_indices", "exclude_modules", "layers_to_transform"), OTHER_MODULES),
    **dict.fromkeys(("layers_pattern", "layer_replication", "ensure_weight_tying"), OTHER_MODULES),
    **dict.fromkeys(("megatron_config", "monteclora_config", "velora_config"), OTHER_ARITHMETIC),
    **dict.fromkeys(("corda_config", "eva_config", "loftq_config", "lora_ga_config"), TRAINING_ONLY),
    **dict.fromkeys(("auto_mapping", "revision"), TRAINING_ONLY),
}
"""What PEFT writes beside what is read here. Only as null, false or empty, and why not otherwise."""
OF_NO_EFFECT = ("megatron_core", "peft_version", "qalora_group_size", "init_lora_weights")
"""Written by PEFT whether or not they mean anything; short text, a number or true."""
NAME = re.compile(r"base_model\.model\.([A-Za-z0-9_.]{1,256})\.lora_([AB])\.weight")
TYPES = ("F32", "F16", "BF16")


class AdapterConfig(BaseModel):
    """`adapter_config.json`, without what must be off."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    peft_type: Literal["LORA"] = "LORA"
    task_type: Literal["CAUSAL_LM"] | None = None
    base_model_name_or_path: str | None = Field(default=None, max_length=1024)
    """For people: which model it is, the manifest says."""
    r: int
    lora_alpha: float
    lora_dropout: float = Field(default=0.0, ge=0, le=1)
    """Of training."""
    target_modules: list[str]
    bias: Literal["none"] = "none"
    inference_mode: bool = True


def read_adapter(files: Folder, rank: int, alpha: float, target_modules: tuple[str, ...]) -> Tensors:
    """Tensors by PEFT's names: for each adapted layer A [rank, in] and B [out, rank].

    Raises BundleCorrupt, BundleShapeMismatch when they are not what the manifest says, or not fit for float16.
    """
    config = _config(parse(files.read(ADAPTER_CONFIG), ADAPTER_CONFIG))
    stated = {"r": rank, "lora_alpha": alpha, "target_modules": sorted(target_modules)}
    found = {"r": config.r, "lora_alpha": config.lora_alpha, "target_modules": sorted(config.target_modules)}
    for name, value in stated.items():
        if found[name] != value:
            ours, theirs = brief(str(value)), brief(str(found[name]))
            raise BundleShapeMismatch(f"{ADAPTER_CONFIG}: {name} is {theirs}, the manifest has {ours}")
    tensors = read_tensors(files.read(ADAPTER_TENSORS), ADAPTER_TENSORS)
    pairs = _pairs(tensors, target_modules)
    for module, pair in pairs.items():
        _check_pair(module, pair, rank, alpha)
    return tensors


def _config(values: dict[str, Any]) -> AdapterConfig:
    """Raises BundleCorrupt."""
    kept = dict(values)
    for name, reason in MUST_BE_OFF.items():
        if kept.pop(name, None) not in (None, False, [], {}):
            raise BundleCorrupt(f"{ADAPTER_CONFIG}: {name} is not served: {reason}")
    for name in OF_NO_EFFECT:
        value = kept.pop(name, None)
        if not (value is None or isinstance(value, bool | int) or (isinstance(value, str) and len(value) <= 64)):
            raise BundleCorrupt(f"{ADAPTER_CONFIG}: {name} is neither a short text nor a number")
    try:
        return AdapterConfig.model_validate(kept)
    except ValidationError as error:
        raise BundleCorrupt(f"{ADAPTER_CONFIG}: {first_fault(error)}") from error


def _pairs(tensors: Tensors, target_modules: tuple[str, ...]) -> dict[str, dict[str, NDArray[Any]]]:
    """A and B of each layer. Raises BundleShapeMismatch for other tensors, half a pair, a module without any."""
    pairs: dict[str, dict[str, NDArray[Any]]] = {}
    for name, tensor in tensors.items():
        found = NAME.fullmatch(name)
        if found is None or not any(f".{found[1]}".endswith(f".{module}") for module in target_modules):
            raise BundleShapeMismatch(f"{ADAPTER_TENSORS}: {brief(name)} is of none of the target modules")
        pairs.setdefault(found[1], {})[found[2]] = tensor
    if half := [module for module, pair in pairs.items() if len(pair) != 2]:
        raise BundleShapeMismatch(f"{ADAPTER_TENSORS}: {brief(half[0])} has half a pair")
    for module in target_modules:
        if not any(f".{layer}".endswith(f".{module}") for layer in pairs):
            raise BundleShapeMismatch(f"{ADAPTER_TENSORS}: has nothing for {brief(module)}")
    return pairs


def _check_pair(module: str, pair: dict[str, NDArray[Any]], rank: int, alpha: float) -> None:
    where = f"{ADAPTER_TENSORS}: {brief(module)}"
    a, b = pair["A"], pair["B"]
    if not (a.ndim == b.ndim == 2 and a.shape[0] == b.shape[1] == rank and a.size and b.size):
        raise BundleShapeMismatch(f"{where} has A {list(a.shape)} and B {list(b.shape)}, of rank {rank}")
    if not (a.dtype == b.dtype and a.dtype.itemsize <= 4 and a.dtype.kind in "fV"):
        raise BundleShapeMismatch(f"{where} is {a.dtype} and {b.dtype}, expected one of {', '.join(TYPES)}")
    # No entry of (alpha / r) B A is larger than this.
    a_most, b_most = (np.abs(each.astype(np.float64)) for each in (a, b))
    change = alpha / rank * float(b_most.max(axis=0) @ a_most.max(axis=1))
    if max(a_most.max(), b_most.max(), change) > LARGEST:
        raise BundleCorrupt(f"{where} has numbers, or adds numbers, beyond {LARGEST:g}: too large for float16")
