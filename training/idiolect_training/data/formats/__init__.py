"""Published forms of preference data, each read into the same list of Preference. docs/data.md describes them."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from idiolect_training.data.formats import anthropic_persona, feedback, llmfao, p_soups, prism, tldr, ukp_convarg
from idiolect_training.data.lines import BadLines
from idiolect_training.data.preferences import Preference, read_preferences
from idiolect_training.errors import BadPreference

Format = Literal["jsonl", "tldr", "p_soups", "prism", "llmfao", "ukp_convarg", "anthropic_persona", "feedback"]
Reader = Callable[[Path, BadLines], list[Preference]]

FORMATS: dict[Format, Reader] = {
    "jsonl": read_preferences,
    "tldr": tldr.read,
    "p_soups": p_soups.read,
    "prism": prism.read,
    "llmfao": llmfao.read,
    "ukp_convarg": ukp_convarg.read,
    "anthropic_persona": anthropic_persona.read,
    "feedback": feedback.read,
}


def read_format(name: Format, path: Path, bad_lines: BadLines = "stop") -> list[Preference]:
    """All comparisons at `path`, which holds the form `name`. Raises BadPreference, also when there are none."""
    preferences = FORMATS[name](path, bad_lines)
    if not preferences:
        raise BadPreference(f"{path}: no comparison in it")
    return preferences
