"""One request of any protocol, as vLLM's layer works on it: what is ours of it, for the two places where we step in."""

from collections.abc import AsyncGenerator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from idiolect_server.engine.structured.constraint import Constraint
from idiolect_server.prompt import UserTokens


@dataclass
class Turn:
    """Whose request it is, and what has come of it so far."""

    user_tokens: UserTokens | None
    """None is the model without them."""
    profile: str | None = None
    frequency_penalty: float | None = None
    """Where the protocol has no field for one."""
    bound: Constraint | None = None
    """What the reply must look like."""
    is_tried: bool = False
    is_placed: bool = False
    failure: Exception | None = None
    """What the engine raised, which vLLM's layer tells in words of its own."""
    replies: list[AsyncGenerator[Any, None]] = field(default_factory=list)
    """What the engine writes, to be left when the caller leaves: vLLM's layer closes what is around them only."""


current: ContextVar[Turn] = ContextVar("turn")
"""vLLM's call chain has no argument for it."""
