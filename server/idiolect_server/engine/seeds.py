"""Seeded requests on a CPU: what vLLM draws and throws away is not drawn.

While a prompt is computed in parts, vLLM draws a token for it after each part, throws it away, and takes the draw back
by moving the offset of the request's generator. Generators of a CPU have no offset: vLLM 0.32 raises, and the engine
ends with everybody's requests. Here the state of such a generator is put back instead, so that a seeded reply does not
depend on the parts, which depend on the company, either.
"""

from functools import wraps
from typing import Any

import numpy as np


def put_generators_back() -> None:
    """Have vLLM's model runner for CPUs do so. May run more than once."""
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    sample, keep_books = CPUModelRunner._sample, CPUModelRunner._bookkeeping_sync
    if hasattr(sample, "__wrapped__"):
        return

    @wraps(sample)
    def _sample(self: Any, *args: Any, **kwargs: Any) -> Any:
        states = {place: generator.get_state() for place, generator in _unready(self).items()}
        drawn = sample(self, *args, **kwargs)
        for place, state in states.items():
            self.input_batch.generators[place].set_state(state)
        return drawn

    @wraps(keep_books)
    def _bookkeeping_sync(self: Any, *args: Any, **kwargs: Any) -> Any:
        held = _unready(self)
        for place in held:
            del self.input_batch.generators[place]
        try:
            return keep_books(self, *args, **kwargs)
        finally:
            self.input_batch.generators.update(held)

    CPUModelRunner._sample, CPUModelRunner._bookkeeping_sync = _sample, _bookkeeping_sync


def _unready(runner: Any) -> dict[int, Any]:
    """Generators of the requests whose prompts are not whole yet, by their place in the batch."""
    batch = runner.input_batch
    places = np.nonzero(runner.discard_request_mask.np[: batch.num_reqs])[0].tolist()
    return {place: batch.generators[place] for place in places if place in batch.generators}
