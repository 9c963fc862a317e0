"""How vLLM is set up and started; docs/engine.md says why."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from pydantic import ValidationError
from transformers import AutoConfig
from vllm.config.cache import CacheDType
from vllm.config.structured_outputs import StructuredOutputsConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.model_executor.layers.quantization import QuantizationMethods
from vllm.platforms import current_platform
from vllm.reasoning import ReasoningParserManager
from vllm.triton_utils import HAS_TRITON
from vllm.usage.usage_lib import UsageContext
from vllm.utils.ompmultiprocessing import OMPProcessManager
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.executor.uniproc_executor import UniProcExecutor

from idiolect_server.engine.arguments import passed_on
from idiolect_server.engine.base import EngineConfig
from idiolect_server.engine.injection import build_injection
from idiolect_server.engine.protocol.json_calls import known_parsers
from idiolect_server.errors import SettingsError

FEW_CORES = 2
CPU_STEP_TOKENS = 512
"""Of all requests together. While a long prompt is computed, everybody else's next token waits for the step to end."""
MIXED_BYTES = 4 << 30
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
"""What configs of mixture-of-experts call their number."""
INTEL_OPENMP = Path(sys.prefix) / "lib" / "libiomp5.so"
"""Comes with vLLM for x86, which takes PyTorch's own OpenMP if it is not told (docs/engine.md)."""


def is_cpu() -> bool:
    """Whether the installed vLLM runs on the CPU."""
    return bool(current_platform.is_cpu())


ENVIRONMENT = {
    # As `vllm serve` has it. vLLM's own default on a GPU is fork: of a process with an event loop, threads, sockets
    # and a lock on the data folder, all of which its engine would hold after the server was killed.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    # These are compiled when they are first used, by an nvcc that an image for serving does not have, and vLLM does not
    # look for one before it takes them. Without them it samples with Triton, and multiplies FP8 blocks with CUTLASS.
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
    "VLLM_USE_DEEP_GEMM": "0",
}
"""What vLLM is told unless the operator says otherwise."""


def engine_args(config: EngineConfig) -> AsyncEngineArgs:
    """How vLLM is set up; docs/engine.md says why. Sets vLLM's environment variables too. Raises SettingsError."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    _check("kv_cache_dtype", config.kv_cache_dtype, get_args(CacheDType))
    _check("quantization", config.quantization, get_args(QuantizationMethods))
    _check("tool_call_parser", config.tool_call_parser, known_parsers())
    _check("reasoning_parser", config.reasoning_parser, ReasoningParserManager.list_registered())
    if is_cpu():
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB: 20,000 tokens of the demo model
        if len(os.sched_getaffinity(0)) <= FEW_CORES:
            # vLLM keeps one core for its scheduler, which hardly needs it: here that would be half the machine, and
            # replies took 1.4 to 1.5 times as long (SmolLM2-135M, one caller and sixteen, by hand).
            os.environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")
            # Nor is any thread bound to a core: beside whoever has that core the others wait for it (`make busy-host`).
            os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        if INTEL_OPENMP.exists():
            os.environ.setdefault("LD_PRELOAD", str(INTEL_OPENMP))  # heeded by the engine's process, not by this one
    model = AutoConfig.from_pretrained(config.model)
    max_num_seqs = _max_num_seqs(config, model)
    arguments = dict(
        model=config.model,
        max_model_len=config.max_model_len,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max(CPU_STEP_TOKENS, max_num_seqs or 0) if is_cpu() else None,
        # The CPU default of 128 would find no shared prefix in a short prompt; 32 is the least it takes.
        block_size=32 if is_cpu() else None,
        enable_prefix_caching=True,
        # Compiling takes a minute and more at the first start, and gains a tenth to a sixth.
        enforce_eager=is_cpu(),
        # vLLM's kernels for quantized weights want what the weights were quantized from, also on a CPU.
        dtype=config.dtype or ("float32" if is_cpu() and not hasattr(model, "quantization_config") else "auto"),
        generation_config="vllm",  # no sampling defaults (such as penalties) from the model's own files
        disable_log_stats=False,  # /metrics has them
        scheduling_policy="priority",
        # The scheduler's process computes the model itself. On a CPU vLLM would start a worker for that, which spins on
        # the cores that compute while it waits. By the name "uni" vLLM refuses it there, since OpenMP is set up for
        # workers only; start_vllm does that.
        distributed_executor_backend=UniProcExecutor if is_cpu() else None,
        # Others, which vLLM falls back to, write repetitions out in the server's own process. What xgrammar does not
        # take is refused.
        structured_outputs_config=StructuredOutputsConfig(
            # What a reply must look like holds behind what the model thinks.
            backend="xgrammar",
            reasoning_parser=config.reasoning_parser or "",
        ),
        tensor_parallel_size=config.tensor_parallel_size,
        **({} if config.gpu_memory is None or is_cpu() else {"gpu_memory_utilization": config.gpu_memory}),
        **({} if config.kv_cache_dtype is None else {"kv_cache_dtype": config.kv_cache_dtype}),
        **({} if config.quantization is None else {"quantization": config.quantization}),
        **_lora_args(config, model),
        **build_injection(config.injection).engine_args(model.architectures[0]),
    )
    return AsyncEngineArgs(**{**arguments, **passed_on(config.vllm_args)})


def start_vllm(arguments: AsyncEngineArgs) -> AsyncLLM:
    """vLLM's engine, up and ready. Raises SettingsError when vLLM refuses what it is asked for."""
    # As `vllm serve` starts it: otherwise vLLM takes none of its own settings for the hardware, and computes a long
    # prompt on an H100 in steps of 2,048 tokens instead of 8,192.
    context = UsageContext.OPENAI_API_SERVER
    # vLLM only warns when its library does not load, and fails later, in another process and other words.
    current_platform.import_kernels()
    if is_cpu() and not hasattr(torch.ops._C, "init_cpu_memory_env"):
        raise SettingsError("vLLM's library for the CPU does not load", hint="install libnuma (Debian: libnuma1)")
    try:
        config = arguments.create_engine_config(context)
    except ValueError as error:  # pydantic's, whose text begins with how many there were and where
        reason = (
            "; ".join(found["msg"] for found in error.errors()) if isinstance(error, ValidationError) else str(error)
        )
        raise SettingsError(f"vLLM refuses these settings for this model: {reason}") from error
    # The threads of the process that computes the model, as vLLM sets them up for a worker. Does nothing on a GPU.
    with OMPProcessManager(config).configure_omp_envs(rank=0, local_rank=0):
        return AsyncLLM.from_vllm_config(config, usage_context=context, disable_log_stats=arguments.disable_log_stats)


def _check(setting: str, value: str | None, known: Sequence[str]) -> None:
    """Raises SettingsError for a name that this vLLM does not have."""
    if value is not None and value not in known:
        raise SettingsError(f"{setting} is {value!r}, vLLM knows {', '.join(known)}")


def _max_num_seqs(config: EngineConfig, model: Any) -> int | None:
    """Mixed injection keeps the embeddings of a whole prompt on the GPU until its reply ends, which vLLM's profiling of
    memory does not see: at most MIXED_BYTES of them.
    """
    if config.injection != "mixed" or is_cpu():
        return config.max_num_seqs
    longest = config.max_model_len or model.max_position_embeddings
    fitting: int = max(1, MIXED_BYTES // (2 * longest * model.hidden_size))
    return min(config.max_num_seqs or fitting, fitting)


def _lora_args(config: EngineConfig, model: Any) -> dict[str, Any]:
    """On the adapter's own modules only: elsewhere vLLM would run its kernels at each step for nothing.

    Without them, vLLM's V1 runner dies on the first request of mixed injection, too: it wraps the embedding layer for
    LoRA and then embeds only some rows of the batch.
    """
    if config.adapter is None:
        return {}
    if config.dtype == "float32" and not is_cpu():
        raise SettingsError("vLLM serves no live adapter in float32 on a GPU", hint="set IDIOLECT_ADAPTER=merged")
    if not HAS_TRITON and any(getattr(model, name, None) for name in EXPERTS):
        # It starts, and its engine dies on the first request.
        raise SettingsError(
            "vLLM serves mixture-of-experts with a live adapter by Triton only, which is not there on a CPU",
            hint="set IDIOLECT_ADAPTER=merged",
        )
    return {
        "enable_lora": True,
        # vLLM's kernels for a CPU take "no adapter", which is -1, for the last place: there it stays empty.
        "max_loras": config.max_adapters + is_cpu(),
        "max_lora_rank": _lora_rank(config),
        "lora_target_modules": list(_peft(config)["target_modules"]),
    }


def _peft(config: EngineConfig) -> dict[str, Any]:
    """The adapter's own config."""
    assert config.adapter is not None
    peft: dict[str, Any] = json.loads((config.adapter.path / "adapter_config.json").read_text())
    return peft


def _lora_rank(config: EngineConfig) -> int:
    """The smallest rank that vLLM has kernels for and that holds the adapter's."""
    rank = int(_peft(config)["r"])
    return next(size for size in (8, 16, 32, 64, 128, 256, 320, 512) if size >= rank)
