"""Does a release serve? Asked of the engine with a short prompt before anybody else's request, and before ready."""

import asyncio
import math
import uuid

import numpy as np

from idiolect.bundle import Bundle
from idiolect.errors import BaseModelMismatch, IdiolectError
from idiolect.user_model import Array
from idiolect_server.engine.base import Adapter, Engine, Sampling
from idiolect_server.errors import BundleUnservable
from idiolect_server.prompt import UserTokens

PROMPT, REPLY = "Hello", "Hello there."
N_TOKENS = 2
TIMEOUT_S = 300.0
"""For one user: a first prompt may compile kernels, and eight billion weights on two cores take seconds a token."""


def check_widths(engine: Engine, bundle: Bundle) -> None:
    """Before any prompt with the bundle's tokens: rows of another width end vLLM's engine.

    Raises BaseModelMismatch.
    """
    base = bundle.manifest.base_model
    if base.hidden_size != engine.hidden_size:
        raise BaseModelMismatch(
            f"user tokens of bundle {bundle.bundle_id} have {base.hidden_size} numbers, "
            f"token embeddings of the model being served {engine.hidden_size}"
        )


async def probe(engine: Engine, bundle: Bundle, adapter: Adapter | None) -> None:
    """One greedy reply and one scored reply, with the generic user and with the trained one whose code is largest.

    Past Admission: these are nobody's prompts, and must neither wait for others nor be counted among them.

    Raises BundleUnservable, which says what was seen, when a log-probability is none or the engine does not answer.
    """
    for who, code in _users(bundle).items():
        try:
            async with asyncio.timeout(TIMEOUT_S):
                seen = await _fault(engine, bundle, code, adapter)
        except TimeoutError:
            seen = f"no reply of {N_TOKENS} tokens within {TIMEOUT_S:g} s"
        except IdiolectError as error:
            seen = error.message
        if seen:
            raise BundleUnservable(
                f"bundle {bundle.bundle_id} cannot be served on this engine: with {who}, {seen}",
                hint="the engine's own errors are in the log above; another IDIOLECT_DTYPE or IDIOLECT_ADAPTER may do",
            )


def _users(bundle: Bundle) -> dict[str, Array]:
    """The generic code, and the trained one with the largest number: the first to overflow."""
    users = {"the generic user": bundle.user_model.generic_code}
    if len(bundle.codes):
        users["a trained user"] = bundle.codes[int(np.abs(bundle.codes).max(axis=1).argmax())]
    return users


async def _fault(engine: Engine, bundle: Bundle, code: Array, adapter: Adapter | None) -> str:
    """What is wrong with a reply and a score; empty when nothing is. Raises IdiolectError."""
    layout = bundle.manifest.layout
    tokens = UserTokens(bundle.user_model.user_tokens(code), bundle.bundle_id)
    placed = await engine.conversations.place([{"role": "user", "content": PROMPT}], layout, tokens)
    sampling = Sampling(max_tokens=N_TOKENS, end_id=layout.end_id)
    chunks = [c async for c in engine.generate(placed, sampling, f"probe-{uuid.uuid4().hex}", adapter=adapter)]
    if not chunks or chunks[-1].finish_reason is None:
        return "a reply did not end"
    logps = await engine.score_reply(placed, REPLY, layout, adapter)
    if not logps or not all(math.isfinite(logp) and logp <= 0 for logp in logps):
        return f"log-probabilities of a reply are {logps}"
    return ""
