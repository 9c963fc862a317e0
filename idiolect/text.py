"""Text that people and models write, as it is accepted everywhere: not empty, and without control characters."""

import unicodedata
from typing import Annotated

from pydantic import AfterValidator, StringConstraints


def is_printable(text: str) -> bool:
    """Whether there is no control character in it, tab and line breaks apart: they carry nothing and break prompts."""
    return not any(unicodedata.category(char) == "Cc" and char not in "\t\n\r" for char in text)


def _printable(text: str) -> str:
    if not is_printable(text):
        raise ValueError("control characters are not allowed")
    return text


Text = Annotated[str, StringConstraints(min_length=1), AfterValidator(_printable)]
