"""The engine as vLLM's protocols see it: with one bundle's adapter, printable replies, and prompts of ours only."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from vllm.exceptions import GenerationError
from vllm.lora.request import LoRARequest
from vllm.outputs import RequestOutput
from vllm.sampling_params import SamplingParams, StructuredOutputsParams
from vllm.v1.engine.async_llm import AsyncLLM

from idiolect.text import printable
from idiolect_server.engine.protocol.turn import Turn, current

Outputs = AsyncGenerator[RequestOutput, None]


class ReplyingEngine:
    """Everything else of it is vLLM's."""

    def __init__(self, llm: AsyncLLM, lora_request: LoRARequest | None) -> None:
        self._llm, self._lora_request = llm, lora_request

    def __getattr__(self, name: str) -> Any:
        return getattr(self._llm, name)

    def generate(self, prompt: Any, params: SamplingParams, request_id: str, **rest: Any) -> Outputs:
        """vLLM's, of the current turn, whatever name the request gave the model.

        What reaches the engine is exactly what was tried (`structured/`), not what a protocol makes of it.
        """
        turn = current.get()
        assert turn.is_placed
        assert turn.is_tried
        bound = turn.bound
        params.structured_outputs = None if bound is None else StructuredOutputsParams(**{bound.kind: bound.text})
        rest["lora_request"] = self._lora_request
        reply = _printable(self._llm.generate(prompt, params, request_id, **rest), turn)
        turn.replies.append(reply)
        return reply


async def _printable(outputs: Outputs, turn: Turn) -> Outputs:
    """What the model writes, without control characters, before vLLM makes content, reasoning and tool calls of it:
    it may come back in a history.
    """
    try:
        async with aclosing(outputs):
            async for output in outputs:
                for completion in output.outputs:
                    if completion.finish_reason == "error":
                        raise GenerationError("the engine failed this request")
                    completion.text = printable(completion.text)
                yield output
    except Exception as error:
        turn.failure = error
        raise
