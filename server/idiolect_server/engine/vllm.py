"""vLLM behind the seam: user tokens in, replies and log-probabilities out."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from vllm import SamplingParams
from vllm.exceptions import GenerationError
from vllm.lora.request import LoRARequest
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from idiolect.prompt.chat import stop_ids
from idiolect.prompt.layout import Layout
from idiolect_server.admission import Capacity
from idiolect_server.engine.base import Adapter, Chunk, EngineConfig, Sampling
from idiolect_server.engine.conversation import Conversations
from idiolect_server.engine.injection import build_injection
from idiolect_server.engine.launch import engine_args, start_vllm
from idiolect_server.engine.openai import OpenAI
from idiolect_server.engine.structured.nursery import Nursery
from idiolect_server.errors import EngineDead, GenerationFailed, PromptTooLong
from idiolect_server.prompt import Placed

LOW_PRIORITY = 10
"""Of prompts that nobody waits for; vLLM computes smaller numbers first, and replies have 0."""

CLOSE_S = 1.0


class VllmEngine:
    """vLLM with user tokens: one engine, any number of users, the adapters that its config has room for."""

    def __init__(self, llm: AsyncLLM, config: EngineConfig) -> None:
        self.llm = llm
        self.config = config
        self._injection = build_injection(config.injection)
        self._dtype: torch.dtype = llm.model_config.dtype
        self.tokenizer = llm.renderer.tokenizer
        if config.chat_template is not None:
            self.tokenizer.chat_template = config.chat_template  # every prompt of ours is rendered by it, too
        self.max_model_len: int = llm.model_config.max_model_len
        self.conversations = Conversations(self.tokenizer, self.max_model_len)
        self._nursery = (
            Nursery(llm.model_config.tokenizer, llm.model_config.get_vocab_size())
            if config.structured_outputs
            else None
        )
        self.vocab_size: int = llm.model_config.get_vocab_size()
        self.hidden_size: int = llm.model_config.get_hidden_size()
        n_replies, cache = llm.vllm_config.scheduler_config.max_num_seqs, llm.vllm_config.cache_config
        n_tokens = (cache.num_gpu_blocks or 0) * cache.block_size  # of keys and values
        self.capacity = Capacity(n_replies, n_tokens or n_replies * self.max_model_len)

    @classmethod
    async def start(cls, config: EngineConfig) -> Self:
        """Load the weights and be ready (about 40 s on two CPU cores)."""
        # In a thread: it takes half a minute and more, in which health must answer and Redis be filled.
        return cls(await asyncio.to_thread(lambda: start_vllm(engine_args(config))), config)

    def engine_input(self, placed: Placed) -> Any:
        """vLLM's input for a placed prompt."""
        return self._injection.engine_input(placed, self._dtype)

    async def generate(
        self,
        placed: Placed,
        sampling: Sampling,
        request_id: str,
        *,
        adapter: Adapter | None = None,
        stream: bool = False,
    ) -> AsyncGenerator[Chunk, None]:
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
            stop_token_ids=stop_ids(sampling.end_id, self.tokenizer),
            frequency_penalty=sampling.frequency_penalty,
            # A task woken for each token costs the host more than the token's own work.
            output_kind=RequestOutputKind.DELTA if stream else RequestOutputKind.FINAL_ONLY,
        )
        with _mapped():
            async for output in self.llm.generate(
                self.engine_input(placed), params, request_id, lora_request=lora_request(adapter)
            ):
                reply = output.outputs[0]
                yield Chunk(
                    text=reply.text,
                    token_ids=reply.token_ids,
                    finish_reason=reply.finish_reason,
                    n_prompt_tokens=placed.n_tokens,
                    n_cached_tokens=output.num_cached_tokens or 0,
                )

    async def score_reply(
        self, placed: Placed, reply: str, layout: Layout, adapter: Adapter | None = None
    ) -> list[float]:
        ids = await self.conversations.scored(reply, layout)
        whole = Placed([*placed.token_ids, *ids], placed.offset, placed.user_tokens)
        if whole.n_tokens >= self.max_model_len:
            raise PromptTooLong(f"prompt and reply have {whole.n_tokens} tokens, the model takes {self.max_model_len}")
        return await self.score(whole, len(placed.token_ids), f"score-{uuid.uuid4().hex}", adapter)

    async def score(self, placed: Placed, start: int, request_id: str, adapter: Adapter | None = None) -> list[float]:
        """Log-probability of each token of `placed.token_ids[start:]` given all before it.

        `start` must lie behind the user tokens (start >= offset). Raises EngineDead, GenerationFailed.
        """
        params = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0)
        last, lora = None, lora_request(adapter)
        with _mapped():
            async for output in self.llm.generate(
                self.engine_input(placed), params, request_id, lora_request=lora, priority=LOW_PRIORITY
            ):
                last = output
        assert last is not None
        assert last.prompt_logprobs is not None
        shift = placed.n_tokens - len(placed.token_ids)
        scored = last.prompt_logprobs[start + shift :]
        return [entry[token].logprob for entry, token in zip(scored, placed.token_ids[start:], strict=True) if entry]

    async def load_adapter(self, adapter: Adapter) -> None:
        with _mapped():
            await self.llm.add_lora(lora_request(adapter))

    async def unload_adapter(self, adapter: Adapter) -> None:
        request = lora_request(adapter)
        assert request is not None
        with _mapped():
            await self.llm.remove_lora(request.lora_int_id)

    def chat_api(self, layout: Layout, model_name: str, adapter: Adapter | None) -> OpenAI:
        return OpenAI(
            self.llm,
            self.engine_input,
            self.conversations,
            layout,
            model_name,
            lora_request(adapter),
            self._nursery,
            self.config,
        )

    async def beat(self) -> None:
        with _mapped():
            # Any question would do: the engine's loop answers between two steps.
            await self.llm.is_sleeping()

    @property
    def alive(self) -> bool:
        return not self.llm.errored

    def close(self) -> None:
        self.conversations.close()
        if self._nursery is not None:
            self._nursery.close()
        # Its process has nothing to save. One that hangs does not even take notice, and is killed.
        self.llm.shutdown(timeout=CLOSE_S)


def lora_request(adapter: Adapter | None) -> LoRARequest | None:
    """vLLM's name for an adapter. It caches adapters by the number, and keys KV on name and path."""
    if adapter is None:
        return None
    number = int(adapter.bundle_id[:7], 16) + 1
    return LoRARequest(f"bundle-{adapter.bundle_id}", number, str(adapter.path))


@contextmanager
def _mapped() -> Iterator[None]:
    """vLLM's errors as ours."""
    try:
        yield
    except EngineDeadError as error:
        raise EngineDead("the engine has stopped") from error
    except (ValueError, GenerationError) as error:
        raise GenerationFailed(f"the engine refused or failed this request: {error}") from error
