"""Whether texts can fit into the model at all, before a template or a tokenizer works on all of them."""

from collections.abc import Iterator, Sequence
from typing import Any

from idiolect.prompt.chat import encode
from idiolect_server.errors import PromptTooLong

PIECE_CHARACTERS = 8
"""Of a piece, for each token that the model takes: more than all but the plainest texts have."""
SEAM_TOKENS = 8
"""How many fewer tokens two pieces may have in one text than apart."""


class Ruler:
    """What a model's length is in characters."""

    def __init__(self, tokenizer: Any, max_model_len: int) -> None:
        self.max_model_len = max_model_len
        longest = max(map(len, tokenizer.get_vocab()))
        self.max_characters = max_model_len * longest
        """No text of more can fit, whatever it says."""
        self.piece = max_model_len * PIECE_CHARACTERS
        """Texts of fewer characters cost little enough to be encoded without a look at them."""

    def check(self, texts: Sequence[str]) -> None:
        """By characters alone. Raises PromptTooLong."""
        n_characters = sum(map(len, texts))
        if n_characters > self.max_characters:
            raise PromptTooLong(
                f"the prompt has {n_characters} characters, the model takes {self.max_model_len} tokens with the reply"
            )

    def needs_measuring(self, texts: Sequence[str]) -> bool:
        return sum(map(len, texts)) > self.piece

    def measure(self, texts: Sequence[str], tokenizer: Any) -> None:
        """Piece by piece, only until there are too many tokens. Raises PromptTooLong."""
        n_tokens = 0
        for piece in self._pieces(texts):
            n_tokens += max(0, len(encode(piece, tokenizer)) - SEAM_TOKENS)
            if n_tokens > self.max_model_len:
                raise PromptTooLong(
                    f"the prompt has more than {n_tokens} tokens, the model takes {self.max_model_len} with the reply"
                )

    def _pieces(self, texts: Sequence[str]) -> Iterator[str]:
        for text in texts:
            for start in range(0, len(text), self.piece):
                yield text[start : start + self.piece]
