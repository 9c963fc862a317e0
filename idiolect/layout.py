"""Where the user tokens sit in a tokenized prompt: the only statement of that rule.

Does not tokenize. Trainer and server both call `Layout.offset` on the token ids that the chat template gave.
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from idiolect.errors import LayoutError

Placement = Literal["after_system", "after_bos"]


class Layout(BaseModel):
    """The placement of user tokens, kept in the bundle so that serving repeats what training did.

    `after_system` puts them before the first occurrence of `anchor`, the tokens that open a user turn, so that
    a system prompt shared by all users is one shared prefix of the KV cache. `after_bos` is the placement of
    arXiv 2402.05133: right after the first token if that is `bos_id`, else at the very start.

    >>> layout = Layout(placement="after_system", anchor=(1, 9), bos_id=1)
    >>> layout.offset([1, 7, 5, 2, 1, 9, 6, 2])     # system turn is [1 7 5 2], user turn opens with [1 9]
    4
    >>> Layout(placement="after_bos", anchor=(1, 9), bos_id=1).offset([1, 7, 5, 2, 1, 9, 6, 2])
    1
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    placement: Placement
    anchor: tuple[int, ...] = Field(min_length=1, max_length=64, strict=False)
    bos_id: int | None = None

    def offset(self, token_ids: Sequence[int]) -> int:
        """The position at which the first user token goes, 0 <= offset <= len(token_ids).

        Raises LayoutError when `after_system` finds no user turn.
        """
        if self.placement == "after_bos":
            return 1 if token_ids and token_ids[0] == self.bos_id else 0
        start = -1
        while True:
            try:
                start = token_ids.index(self.anchor[0], start + 1)
            except ValueError:
                break
            if tuple(token_ids[start : start + len(self.anchor)]) == self.anchor:
                return start
        raise LayoutError(
            "the prompt has no user turn, so there is no place for user tokens",
            hint="send at least one message with role 'user'",
        )
