"""How vLLM is set up, on whatever hardware; and that an engine ends with its server, however it was started."""

import dataclasses
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from vllm import envs
from vllm.engine.arg_utils import AsyncEngineArgs

from idiolect.bundle import Bundle
from idiolect_server.engine import arguments, launch
from idiolect_server.engine.base import Adapter, EngineConfig
from idiolect_server.engine.injection import INJECTIONS, build_injection
from idiolect_server.errors import SettingsError
from tests.parts.architectures import tiny


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in launch.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(name, "")  # so that what is set here is undone
        monkeypatch.delenv(name)


@pytest.fixture
def live(demo_bundle: Bundle, model_path: Path) -> EngineConfig:
    assert demo_bundle.adapter_path is not None
    return EngineConfig(str(model_path), Adapter(demo_bundle.bundle_id, demo_bundle.adapter_path))


@pytest.mark.usefixtures("environment")
def test_processes_are_spawned_and_nothing_is_compiled_at_run_time(model_path: Path):
    launch.engine_args(EngineConfig(str(model_path)))
    assert os.environ["VLLM_WORKER_MULTIPROC_METHOD"] == "spawn"
    assert os.environ["VLLM_USE_FLASHINFER_SAMPLER"] == "0"
    assert os.environ["VLLM_USE_DEEP_GEMM"] == "0"


def test_every_switch_of_kernels_that_are_compiled_at_run_time_was_looked_at():
    """vLLM takes FlashInfer's others only where it finds an nvcc or their binaries. A new name here: look again."""
    switches = {
        name for name in envs.environment_variables if re.search("USE_.*(FLASHINFER|DEEP_GEMM)|FLASHINFER$", name)
    }
    assert switches == {
        "VLLM_USE_FLASHINFER_SAMPLER",
        "VLLM_USE_DEEP_GEMM",
        "VLLM_MOE_USE_DEEP_GEMM",  # only beside the one before
        "VLLM_USE_DEEP_GEMM_E8M0",
        "VLLM_USE_DEEP_GEMM_TMA_ALIGNED_SCALES",
        "VLLM_BLOCKSCALE_FP8_GEMM_FLASHINFER",  # where has_flashinfer() says so
        "VLLM_ALLREDUCE_USE_FLASHINFER",  # likewise
        "VLLM_ALLREDUCE_USE_FLASHINFER_PCIE_IPC",
        "VLLM_USE_FLASHINFER_MOE_INT4",  # off
    }


def test_what_vllm_refuses_of_a_model_is_a_settings_error(live: EngineConfig):
    with pytest.raises(SettingsError, match=r"refuses .*heads \(9\) must be divisible by tensor parallel size \(2\)"):
        launch.start_vllm(launch.engine_args(EngineConfig(live.model, tensor_parallel_size=2)))


@pytest.mark.usefixtures("environment")
def test_the_operators_own_variables_stay(model_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VLLM_USE_FLASHINFER_SAMPLER", "1")
    launch.engine_args(EngineConfig(str(model_path)))
    assert os.environ["VLLM_USE_FLASHINFER_SAMPLER"] == "1"


@pytest.mark.parametrize("injection", INJECTIONS)
def test_lora_is_on_the_adapters_modules_only(live: EngineConfig, injection):
    args = launch.engine_args(EngineConfig(live.model, live.adapter, injection=injection))
    assert args.lora_target_modules == ["q_proj", "k_proj", "v_proj", "o_proj"]
    assert launch.engine_args(EngineConfig(live.model, injection=injection)).enable_lora is False


def test_what_a_gpu_host_sets_reaches_vllm(live: EngineConfig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(launch, "is_cpu", lambda: False)
    config = EngineConfig(
        live.model, tensor_parallel_size=2, gpu_memory=0.5, kv_cache_dtype="fp8", quantization="fp8", dtype="bfloat16"
    )
    args = launch.engine_args(config)
    found = (args.tensor_parallel_size, args.gpu_memory_utilization, args.kv_cache_dtype, args.quantization)
    assert found == (2, 0.5, "fp8", "fp8")
    assert args.enforce_eager is False


def test_prompts_of_mixed_injection_fit_the_gpu_beside_what_vllm_counts(
    live: EngineConfig, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(launch, "is_cpu", lambda: False)
    found = [
        launch.engine_args(EngineConfig(live.model, injection="mixed", max_model_len=8192, max_num_seqs=n)).max_num_seqs
        for n in (None, 1024, 16)
    ]
    assert found == [455, 455, 16]  # 8,192 tokens of 576 numbers in two bytes are 9 MiB
    assert launch.engine_args(EngineConfig(live.model, max_num_seqs=1024)).max_num_seqs == 1024


@pytest.mark.parametrize("wrong", ["kv_cache_dtype", "quantization", "tool_call_parser", "reasoning_parser"])
def test_what_vllm_does_not_know_is_refused(live: EngineConfig, wrong: str):
    with pytest.raises(SettingsError, match=f"{wrong} is .*, vLLM knows "):
        launch.engine_args(EngineConfig(live.model, **{wrong: "fp9"}))


def test_further_arguments_are_vllms_own(live: EngineConfig):
    words = "--pipeline-parallel-size 2 --max_num_batched_tokens=4096 --no-async-scheduling --compilation-config.mode 0"
    args = launch.engine_args(EngineConfig(live.model, vllm_args=words))
    assert (args.pipeline_parallel_size, args.max_num_batched_tokens, args.async_scheduling) == (2, 4096, False)
    assert args.compilation_config.mode == 0


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("--no-such-thing", "unrecognized arguments: --no-such-thing"),
        ("--pipeline-parallel 2", "unrecognized arguments"),
        ("--pipeline-parallel-size two", "invalid int value: 'two'"),
        ("--pipeline-parallel-size", "expected one argument"),
        ("stray", "unrecognized arguments: stray"),
        ("--seed '1", "No closing quotation"),
        ("--compilation-config {", "compilation-config"),
        ("--tensor-parallel-size 2", "IDIOLECT_TENSOR_PARALLEL_SIZE"),
        ("-tp 2", "IDIOLECT_TENSOR_PARALLEL_SIZE"),
        ("--hf-overrides {}", "hf_overrides is for the server to set"),
        ("--logprobs-mode raw_logits", "logprobs_mode is for the server to set"),
        ("--mm-processor-cache-gb 1", "mm_processor_cache_gb is for the server to set"),
        ("--data-parallel-size 2", "data_parallel_size is for the server to set"),
    ],
)
def test_further_arguments_that_cannot_be_passed_on(live: EngineConfig, words: str, why: str):
    with pytest.raises(SettingsError, match=f"IDIOLECT_VLLM_ARGS: .*{re.escape(why)}"):
        launch.engine_args(EngineConfig(live.model, vllm_args=words))


def test_every_argument_that_is_refused_is_one_of_vllms():
    fields = {field.name for field in dataclasses.fields(AsyncEngineArgs)}
    assert arguments.OURS | arguments.SETTINGS.keys() <= fields
    assert all(any(name.startswith(prefix) for name in fields) for prefix in arguments.OUR_PREFIXES)


@pytest.mark.parametrize("injection", INJECTIONS)
def test_what_vllm_computes_otherwise_than_the_trainer_is_refused(injection: str):
    with pytest.raises(SettingsError, match="Cohere2ForCausalLM"):
        build_injection(injection).engine_args("Cohere2ForCausalLM")


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe"])
def test_experts_with_a_live_adapter_are_refused_where_no_triton_is(
    tmp_path: Path, live: EngineConfig, model_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    model = str(tiny(tmp_path / "model", kind, model_path))
    monkeypatch.setattr(launch, "HAS_TRITON", False)
    with pytest.raises(SettingsError, match="mixture-of-experts with a live adapter by Triton only") as refused:
        launch.engine_args(EngineConfig(model, live.adapter))
    assert refused.value.hint == "set IDIOLECT_ADAPTER=merged"
    launch.engine_args(EngineConfig(model))
    monkeypatch.setattr(launch, "HAS_TRITON", True)
    assert launch.engine_args(EngineConfig(model, live.adapter)).enable_lora


def test_a_live_adapter_in_float32_is_refused_on_a_gpu(live: EngineConfig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(launch, "is_cpu", lambda: False)
    with pytest.raises(SettingsError, match="no live adapter in float32"):
        launch.engine_args(EngineConfig(live.model, live.adapter, dtype="float32"))


def test_a_library_of_vllms_that_does_not_load_is_said(live: EngineConfig, monkeypatch: pytest.MonkeyPatch):
    args = launch.engine_args(live)
    monkeypatch.setattr(launch, "torch", SimpleNamespace(ops=SimpleNamespace(_C=object())))
    with pytest.raises(SettingsError, match="library for the CPU does not load"):
        launch.start_vllm(args)
