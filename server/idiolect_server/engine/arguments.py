"""What an operator passes on to vLLM, written as for `vllm serve`, and checked by vLLM's own parser."""

import argparse
import shlex
from typing import Any, NoReturn

from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.utils.argparse_utils import FlexibleArgumentParser

from idiolect_server.errors import SettingsError

SETTINGS = {
    "model": "IDIOLECT_MODEL",
    "max_model_len": "IDIOLECT_MAX_MODEL_LEN",
    "max_num_seqs": "IDIOLECT_MAX_NUM_SEQS",
    "dtype": "IDIOLECT_DTYPE",
    "tensor_parallel_size": "IDIOLECT_TENSOR_PARALLEL_SIZE",
    "gpu_memory_utilization": "IDIOLECT_GPU_MEMORY",
    "kv_cache_dtype": "IDIOLECT_KV_CACHE_DTYPE",
    "quantization": "IDIOLECT_QUANTIZATION",
    "reasoning_parser": "IDIOLECT_REASONING_PARSER",
    "enable_lora": "IDIOLECT_ADAPTER",
    "enable_prompt_embeds": "IDIOLECT_INJECTION",
}
"""Arguments that have a setting of ours."""
OURS = {
    "convert",
    "disable_log_stats",
    "enable_prefix_caching",
    "generation_config",
    "hf_config_path",
    "hf_overrides",
    "io_processor_plugin",
    "language_model_only",
    "logits_processors",
    "logprobs_mode",
    "max_logprobs",
    "model_impl",
    "override_generation_config",
    "reasoning_parser_plugin",
    "runner",
    "scheduler_cls",
    "scheduling_policy",
    "served_model_name",
    "skip_mm_profiling",
    "skip_tokenizer_init",
    "structured_outputs_config",
    "trust_remote_code",
}
"""How a user's tokens, replies and votes come out right depends on these, and on those that begin so:"""
OUR_PREFIXES = (
    *("mm_", "limit_mm", "enable_mm", "interleave_mm"),
    *("lora_", "max_lora", "max_cpu_lora"),
    *("tokenizer", "revision", "code_", "worker_", "data_parallel"),
)


class _Parser(FlexibleArgumentParser):  # type: ignore[misc]  # vLLM's parser has no types
    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"IDIOLECT_VLLM_ARGS: {message}", hint="as `vllm serve --help=all` lists them")


def passed_on(text: str) -> dict[str, Any]:
    """vLLM's engine arguments in `text`, by name; such as {"seed": 1} for "--seed 1".

    Raises SettingsError for what vLLM does not know, for a value that it does not take, and for what the server sets.
    """
    if not text.strip():
        return {}
    parser = AsyncEngineArgs.add_cli_args(_Parser(prog="IDIOLECT_VLLM_ARGS", add_help=False, allow_abbrev=False))
    for action in parser._actions:
        action.default = argparse.SUPPRESS  # so that only what was given is found
    try:
        words = shlex.split(text)
    except ValueError as error:
        parser.error(str(error))
    given: dict[str, Any] = vars(parser.parse_args(words))
    for name in given:
        if name in SETTINGS:
            parser.error(f"{name} has a setting of its own, {SETTINGS[name]}")
        if name in OURS or name.startswith(OUR_PREFIXES):
            parser.error(f"{name} is for the server to set")
    return given
