"""How vLLM's CUDA wheel would be set up, asked of the wheel itself on two pretended GPUs. Skips where it is absent."""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.gpu.models import RANK, TARGET_MODULES, write_shape
from tests.live import ROOT

EXPECTED = {
    "runner": "v2",
    "graphs": "FULL_AND_PIECEWISE",
    "eager": False,
    "start_method": "spawn",
    "flashinfer_sampler": False,
    "flashinfer_kernels": False,
    "deep_gemm": False,
    "prefix_caching": True,
    "block_size": 16,
    "tokens_per_step": 8192,
    "policy": "priority",
    "async_scheduling": True,
    "dtype": "torch.bfloat16",
}
MIXED_SEQUENCES = 128
"""Of 4,096 tokens of 4,096 numbers in two bytes: 32 MiB each, and 4 GiB in all."""


def cuda_python() -> str | None:
    """A Python with vLLM's CUDA wheel: this one, or the one that CUDA_PYTHON names."""
    try:
        importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        return os.environ.get("CUDA_PYTHON")
    return sys.executable


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> list[dict[str, Any]]:
    python = cuda_python()
    if python is None:
        pytest.skip(
            "no vLLM for CUDA here: `IDIOLECT_GPU=1 docker/install.sh .venv-cuda serve-gpu` (4 GB), then "
            "`CUDA_PYTHON=.venv-cuda/bin/python`"
        )
    folder = write_shape(tmp_path_factory.mktemp("shape"), model_path)
    # As in the image: no nvcc.
    environment = {"PATH": f"{Path(python).parent}:/usr/bin:/bin", "CUDA_HOME": "/nonexistent", "HOME": str(folder)}
    command = [python, "-m", "bench.gpu.pretended", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_the_configuration_of_each_way_to_serve(found: list[dict[str, Any]], evidence) -> None:
    """U1: both injections, adapter live and merged, one GPU and two."""
    ways = {(made["injection"], made["live"], made["tensor_parallel_size"]) for made in found[:8]}
    assert len(ways) == 8
    for made in found:
        mixed, live, n_gpus = made["injection"] == "mixed", made["live"], made["tensor_parallel_size"]
        assert made == made | EXPECTED
        assert made["architecture"] == ("LlamaForCausalLM" if mixed else "LlamaWithUserTokens")
        assert made["max_num_seqs"] == (MIXED_SEQUENCES if mixed else 1024)
        assert made["largest_graph"] == (2 * MIXED_SEQUENCES if mixed else 512)
        assert made["executor"] == ("mp" if n_gpus * made["pipeline_parallel_size"] > 1 else "uni")
        assert made["lora_modules"] == (sorted(TARGET_MODULES) if live else None)
        assert made["lora_rank"] == (RANK if live else None)
    evidence("U1", {"configurations_as_expected": len(ways)}, environment="CUDA_PYTHON=.venv-cuda/bin/python ")


def test_what_a_gpu_host_sets_is_in_the_configuration(found: list[dict[str, Any]]) -> None:
    plain, knobs = found[0], found[-1]
    assert (plain["memory_share"], plain["kv_cache_dtype"], plain["quantization"]) == (0.92, "auto", None)
    assert (knobs["memory_share"], knobs["kv_cache_dtype"], knobs["quantization"]) == (0.5, "fp8", "fp8_per_tensor")
    assert knobs["pipeline_parallel_size"] == 2


def test_the_images_ask_for_the_driver_that_the_wheel_needs(found: list[dict[str, Any]]) -> None:
    """NVIDIA's table of CUDA toolkits: 13.0 and what follows it within 13 run with a driver of 580 or newer."""
    assert found[0]["cuda"] == "13.0"
    for image in ("server", "training"):
        assert "NVIDIA_REQUIRE_CUDA=cuda>=13.0" in (ROOT / "docker" / f"{image}.Dockerfile").read_text()
    assert "| driver | 580 or newer" in (ROOT / "docs" / "deploy.md").read_text()
