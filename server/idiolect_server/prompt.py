"""What a request is made of before an engine sees it: token ids, and where a user's soft tokens stand among them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from idiolect.user_model import Array


@dataclass(frozen=True, eq=False)
class UserTokens:
    """Checked soft tokens of one user, float32 [T_u, H], and what identifies them to the KV cache.

    `bundle_id` is part of the identity: equal numbers under another bundle never share cached keys and values.
    """

    rows: Array
    bundle_id: str

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.bundle_id.encode() + self.rows.tobytes()).hexdigest()


@dataclass(frozen=True)
class Placed:
    """A tokenized prompt and where its user tokens go; `user_tokens` None is a plain prompt."""

    token_ids: Sequence[int]
    offset: int = 0
    user_tokens: UserTokens | None = None

    @property
    def n_tokens(self) -> int:
        return len(self.token_ids) + (0 if self.user_tokens is None else len(self.user_tokens.rows))
