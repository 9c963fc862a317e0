"""The engine seam: start vLLM on a base model and an adapter, generate for placed prompts, score, close."""

import asyncio
import json
import os
import sys
import uuid
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import torch
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.exceptions import GenerationError
from vllm.lora.request import LoRARequest
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind
from vllm.usage.usage_lib import UsageContext
from vllm.utils.ompmultiprocessing import OMPProcessManager
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.executor.uniproc_executor import UniProcExecutor

from idiolect_server import metrics
from idiolect_server.engine.conversation import Conversations
from idiolect_server.engine.injection import InjectionName, Placed, build_injection
from idiolect_server.errors import EngineDead, GenerationFailed, PromptTooLong

FEW_CORES = 2
CPU_STEP_TOKENS = 512
"""Of all requests together. While a long prompt is computed, everybody else's next token waits for the step to end."""
INTEL_OPENMP = Path(sys.prefix) / "lib" / "libiomp5.so"
"""Comes with vLLM for x86, which takes PyTorch's own OpenMP if it is not told (docs/engine.md)."""
LOW_PRIORITY = 10
"""Of prompts that nobody waits for; vLLM computes smaller numbers first, and replies have 0."""


DType = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class EngineConfig:
    """What one engine serves.

    `adapter` is a PEFT folder, None when the model carries its adapter merged. `dtype` None is float32 on a CPU, and
    the model's own on a GPU.
    """

    model: str
    adapter: Path | None = None
    bundle_id: str = ""
    injection: InjectionName = "passthrough"
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    dtype: DType | None = None


@dataclass(frozen=True)
class Sampling:
    """How one reply is drawn. `temperature` 0 is greedy."""

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: Sequence[str] = field(default=())
    frequency_penalty: float = 0.0


@dataclass(frozen=True)
class Chunk:
    """New text of a reply, and the counts so far. `finish_reason` is set on the last chunk."""

    text: str
    token_ids: Sequence[int]
    finish_reason: str | None
    n_prompt_tokens: int
    n_cached_tokens: int


def is_cpu() -> bool:
    """Whether the installed vLLM runs on the CPU."""
    return bool(current_platform.is_cpu())


class Engine:
    """vLLM with user tokens. One adapter, one engine, any number of users."""

    def __init__(self, llm: AsyncLLM, config: EngineConfig) -> None:
        self.llm = llm
        self.config = config
        self._injection = build_injection(config.injection)
        self._dtype: torch.dtype = llm.model_config.dtype
        self.tokenizer = llm.renderer.tokenizer
        self.conversations = Conversations(self.tokenizer)
        self.max_model_len: int = llm.model_config.max_model_len
        self.vocab_size: int = llm.model_config.get_vocab_size()
        self._n_scored = 0
        self.lora_request: LoRARequest | None = None
        if config.adapter is not None:
            # vLLM caches adapters by this id, and keys KV on name and path: a new bundle is new in all three.
            number = int(config.bundle_id[:7], 16) + 1
            self.lora_request = LoRARequest(f"bundle-{config.bundle_id}", number, str(config.adapter))

    @classmethod
    async def start(cls, config: EngineConfig) -> Self:
        """Load the weights and be ready (about 40 s on two CPU cores)."""
        # In a thread: it takes half a minute and more, in which health must answer and Redis be filled.
        return cls(await asyncio.to_thread(lambda: start_vllm(engine_args(config))), config)

    def engine_input(self, placed: Placed) -> Any:
        """vLLM's input for a placed prompt."""
        return self._injection.engine_input(placed, self._dtype)

    async def generate(
        self, placed: Placed, sampling: Sampling, request_id: str, *, stream: bool = False
    ) -> AsyncGenerator[Chunk, None]:
        """The reply as one chunk, or chunk by chunk as it is made; leaving the generator aborts it.

        Raises PromptTooLong before the first chunk, EngineDead when the engine is gone.
        """
        room = self.max_model_len - placed.n_tokens
        if room < 1:
            raise PromptTooLong(
                f"the prompt has {placed.n_tokens} tokens, the model takes {self.max_model_len} with the reply"
            )
        params = SamplingParams(
            max_tokens=min(sampling.max_tokens, room),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed,
            stop=list(sampling.stop),
            frequency_penalty=sampling.frequency_penalty,
            # A task woken for each token costs the host more than the token's own work.
            output_kind=RequestOutputKind.DELTA if stream else RequestOutputKind.FINAL_ONLY,
        )
        metrics.REQUESTS.labels("reply").inc()
        try:
            async for output in self.llm.generate(
                self.engine_input(placed), params, request_id, lora_request=self.lora_request
            ):
                reply = output.outputs[0]
                yield Chunk(
                    text=reply.text,
                    token_ids=reply.token_ids,
                    finish_reason=reply.finish_reason,
                    n_prompt_tokens=placed.n_tokens,
                    n_cached_tokens=output.num_cached_tokens or 0,
                )
        except EngineDeadError as error:
            raise EngineDead("the engine has stopped") from error
        except (ValueError, GenerationError) as error:
            raise GenerationFailed(f"the engine refused or failed this request: {error}") from error

    async def score_reply(self, placed: Placed, reply: str) -> list[float]:
        """Log-probability of each token of `reply` and of the end of the turn after it, as the trainer takes them.

        At low priority. Raises PromptTooLong, EngineDead, GenerationFailed.
        """
        ids = [*self.tokenizer(reply, add_special_tokens=False)["input_ids"], self.tokenizer.eos_token_id]
        whole = Placed([*placed.token_ids, *ids], placed.offset, placed.user_tokens)
        if whole.n_tokens >= self.max_model_len:
            raise PromptTooLong(f"prompt and reply have {whole.n_tokens} tokens, the model takes {self.max_model_len}")
        try:
            return await self.score(whole, len(placed.token_ids), f"score-{uuid.uuid4().hex}")
        except EngineDeadError as error:
            raise EngineDead("the engine has stopped") from error
        except (ValueError, GenerationError) as error:
            raise GenerationFailed(f"the engine refused or failed this request: {error}") from error

    async def score(self, placed: Placed, start: int, request_id: str) -> list[float]:
        """Log-probability of each token of `placed.token_ids[start:]` given all before it.

        `start` must lie behind the user tokens (start >= offset).
        """
        params = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0)
        metrics.REQUESTS.labels("score").inc()
        last = None
        self._n_scored += 1
        try:
            async for output in self.llm.generate(
                self.engine_input(placed), params, request_id, lora_request=self.lora_request, priority=LOW_PRIORITY
            ):
                last = output
        finally:
            self._n_scored -= 1
        assert last is not None
        assert last.prompt_logprobs is not None
        shift = placed.n_tokens - len(placed.token_ids)
        scored = last.prompt_logprobs[start + shift :]
        return [entry[token].logprob for entry, token in zip(scored, placed.token_ids[start:], strict=True) if entry]

    @property
    def n_replies(self) -> int:
        """How many replies are being written now, through whichever API."""
        return int(self.llm.output_processor.get_num_unfinished_requests()) - self._n_scored

    @property
    def alive(self) -> bool:
        return not self.llm.errored

    def close(self) -> None:
        self.conversations.close()
        self.llm.shutdown()


def engine_args(config: EngineConfig) -> AsyncEngineArgs:
    """How vLLM is set up; docs/engine.md says why. Sets vLLM's environment variables too."""
    if is_cpu():
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB: 20,000 tokens of the demo model
        if len(os.sched_getaffinity(0)) <= FEW_CORES:
            # vLLM keeps one core for its scheduler, which hardly needs it: here that would be half the machine, and
            # replies took 1.4 to 1.5 times as long (SmolLM2-135M, one caller and sixteen, by hand).
            os.environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")
        if INTEL_OPENMP.exists():
            os.environ.setdefault("LD_PRELOAD", str(INTEL_OPENMP))  # heeded by the engine's process, not by this one
    modules = None
    if config.adapter is not None:
        modules = json.loads((config.adapter / "adapter_config.json").read_text())["target_modules"]
    architecture = _architecture(config.model)
    lora = {"enable_lora": True, "max_loras": 1, "max_lora_rank": _lora_rank(config)} if modules else {}
    return AsyncEngineArgs(
        model=config.model,
        max_model_len=config.max_model_len,
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=max(CPU_STEP_TOKENS, config.max_num_seqs or 0) if is_cpu() else None,
        # The CPU default of 128 would find no shared prefix in a short prompt; 32 is the least it takes.
        block_size=32 if is_cpu() else None,
        enable_prefix_caching=True,
        # Compiling takes a minute and more at the first start, and gains a tenth to a sixth.
        enforce_eager=is_cpu(),
        dtype=config.dtype or ("float32" if is_cpu() else "auto"),
        generation_config="vllm",  # no sampling defaults (such as penalties) from the model's own files
        disable_log_stats=True,
        scheduling_policy="priority",
        # The scheduler's process computes the model itself. On a CPU vLLM would start a worker for that, which spins on
        # the cores that compute while it waits. By the name "uni" vLLM refuses it there, since OpenMP is set up for
        # workers only; start_vllm does that.
        distributed_executor_backend=UniProcExecutor if is_cpu() else None,
        **lora,
        **build_injection(config.injection).engine_args(architecture, modules),
    )


def start_vllm(arguments: AsyncEngineArgs) -> AsyncLLM:
    """vLLM's engine, up and ready."""
    # As `vllm serve` starts it: otherwise vLLM takes none of its own settings for the hardware, and computes a long
    # prompt on an H100 in steps of 2,048 tokens instead of 8,192.
    context = UsageContext.OPENAI_API_SERVER
    config = arguments.create_engine_config(context)
    # The threads of the process that computes the model, as vLLM sets them up for a worker. Does nothing on a GPU.
    with OMPProcessManager(config).configure_omp_envs(rank=0, local_rank=0):
        return AsyncLLM.from_vllm_config(config, usage_context=context, disable_log_stats=arguments.disable_log_stats)


def _architecture(model: str) -> str:
    from transformers import AutoConfig

    return str(AutoConfig.from_pretrained(model).architectures[0])


def _lora_rank(config: EngineConfig) -> int:
    """The smallest rank that vLLM has kernels for and that holds the adapter's."""
    assert config.adapter is not None
    rank = int(json.loads((config.adapter / "adapter_config.json").read_text())["r"])
    return next(size for size in (8, 16, 32, 64, 128, 256, 320, 512) if size >= rank)
