"""What a reply must look like: one form for all in which vLLM takes it, bounded before anything reads it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from vllm.v1.structured_output.utils import choice_as_grammar, grammar_is_likely_lark

from idiolect_server.engine.structured.pattern import (
    MAX_GRAMMAR_CHARS,
    MAX_NESTING,
    TooLarge,
    grammar_size,
    pattern_size,
    rests,
)
from idiolect_server.errors import ConstraintRefused

Kind = Literal["json", "regex", "grammar", "structural_tag"]

MAX_SCHEMA_CHARS = 32_768
MAX_VALUES = 4096
MAX_COUNT = 4096
"""Of minItems, maxLength and the like."""
MAX_EXPANDED = 16_384
"""Such counts, and sizes of patterns, multiplied where they stand in one another and summed up."""
MAX_PATTERNS = 256
MAX_CHOICES, MAX_CHOICE_CHARS = 512, 1024
KINDS = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")
_COUNTS = {f"{end}{what}" for end in ("min", "max") for what in ("Items", "Length", "Properties", "Contains", "")}
_PATTERNS = {"pattern", "regex"}
_GRAMMARS = {"grammar", "ebnf"}


@dataclass(frozen=True)
class Constraint:
    """As vLLM's xgrammar takes it."""

    kind: Kind
    text: str
    patterns: tuple[str, ...] = ()
    """The regular expressions in it, and what is left of them from each loose place on: random replies that try it may
    not come to all of them."""

    @property
    def digest(self) -> str:
        return hashlib.sha256(f"{self.kind}:{self.text}".encode()).hexdigest()


def constraint(response_format: object, structured_outputs: object) -> Constraint | None:
    """That of a request, which has at most one. Raises ConstraintRefused."""
    asked = _of_format(response_format)
    if structured_outputs is not None:
        if asked is not None:
            raise ConstraintRefused("give response_format or structured_outputs, not both")
        asked = _object(structured_outputs, "structured_outputs")
        if unknown := sorted(asked.keys() - set(KINDS)):
            raise ConstraintRefused(f"structured_outputs: {unknown[0][:64]} is not supported")
    if asked is None:
        return None
    given = [(name, value) for name, value in asked.items() if value is not None]
    if len(given) != 1:
        raise ConstraintRefused(f"structured_outputs wants exactly one of {', '.join(KINDS)}")
    name, value = given[0]
    try:
        found = _bounded(name, value)
        found.text.encode()
    except UnicodeEncodeError:
        raise ConstraintRefused(f"{name}: not Unicode: half of a surrogate pair") from None
    except TooLarge as error:
        raise ConstraintRefused(f"{name}: {error}") from None
    return found


def _of_format(asked: object) -> dict[str, Any] | None:
    """OpenAI's response_format as vLLM's structured_outputs."""
    if asked is None:
        return None
    given = _object(asked, "response_format")
    match given.get("type"):
        case "text":
            return None
        case "json_object":
            return {"json_object": True}
        case "json_schema":
            named = _object(given.get("json_schema"), "response_format.json_schema")
            return {"json": _object(named.get("schema"), "response_format.json_schema.schema")}
        case "structural_tag":
            return {"structural_tag": given}
    raise ConstraintRefused("response_format.type is text, json_object, json_schema or structural_tag")


def _bounded(name: str, value: object) -> Constraint:
    """Raises ConstraintRefused, TooLarge."""
    match name, value:
        case "json_object", True:
            return Constraint("json", '{"type": "object"}')
        case "json" | "structural_tag", str() | dict():
            parsed = _parsed(value) if isinstance(value, str) else value
            text = _dumped(parsed)
            walk = _Walk()
            walk.through(_object(parsed, name))
            return Constraint(cast(Kind, name), text, tuple(dict.fromkeys(walk.patterns)))
        case "regex", str(pattern) if "\0" not in pattern:
            return Constraint("regex", pattern, tuple(dict.fromkeys(rests(pattern))))
        case "grammar", str(grammar) if grammar.strip():
            if grammar_is_likely_lark(grammar[:MAX_GRAMMAR_CHARS]):
                raise ConstraintRefused("grammar: only EBNF is taken, with rules written as name ::= ...")
            grammar_size(grammar)
            return Constraint("grammar", grammar)
        case "choice", [*texts] if texts and all(isinstance(each, str) and each for each in texts):
            choices = cast(list[str], texts)
            if len(choices) > MAX_CHOICES or sum(map(len, choices)) > MAX_GRAMMAR_CHARS:
                raise TooLarge(f"at most {MAX_CHOICES} texts of {MAX_GRAMMAR_CHARS} characters together")
            if max(map(len, choices)) > MAX_CHOICE_CHARS:
                raise TooLarge(f"a text may have {MAX_CHOICE_CHARS} characters")
            return Constraint("grammar", choice_as_grammar(choices))
    raise ConstraintRefused(f"structured_outputs.{name} is empty or of the wrong type")


def _parsed(text: str) -> object:
    if len(text) > MAX_SCHEMA_CHARS:
        raise TooLarge(f"at most {MAX_SCHEMA_CHARS} characters")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ConstraintRefused("structured_outputs: the text is no JSON") from None


def _dumped(value: object) -> str:
    try:
        text = json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        raise ConstraintRefused("a schema may not hold infinite numbers, nor be nested that deeply") from None
    if len(text) > MAX_SCHEMA_CHARS:
        raise TooLarge(f"a schema may have {MAX_SCHEMA_CHARS} characters")
    return text


def _object(value: object, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConstraintRefused(f"{name} must be an object")
    return value


@dataclass
class _Walk:
    """Through all that is in a schema or a structural tag, wherever it may stand. Raises TooLarge."""

    n_values: int = 0
    n_expanded: int = 0
    patterns: list[str] = field(default_factory=list)

    def through(self, value: object, times: int = 1, depth: int = 1) -> None:
        self.n_values += 1
        if depth > MAX_NESTING:
            raise TooLarge(f"objects and lists may stand in one another {MAX_NESTING} times")
        if self.n_values > MAX_VALUES:
            raise TooLarge(f"at most {MAX_VALUES} values")
        if isinstance(value, list):
            for each in value:
                self.through(each, times, depth + 1)
        elif isinstance(value, dict):
            times *= _count(value)
            for name, each in value.items():
                if isinstance(each, str):
                    self._text(name, each, times)
                elif name == "patternProperties" and isinstance(each, dict):
                    for pattern in each:
                        self._pattern(pattern, times)
                self.through(each, times, depth + 1)
            self._expand(times if times > 1 else 0)

    def _text(self, name: str, text: str, times: int) -> None:
        if name in _PATTERNS:
            self._pattern(text, times)
        elif name in _GRAMMARS:
            self._expand(grammar_size(text) * times)

    def _pattern(self, pattern: str, times: int) -> None:
        self._expand(pattern_size(pattern) * times)
        self.patterns += [pattern, *rests(pattern)]
        if len(self.patterns) > MAX_PATTERNS:
            raise TooLarge(f"at most {MAX_PATTERNS} regular expressions and repetitions in them")

    def _expand(self, size: int) -> None:
        self.n_expanded += size
        if self.n_expanded > MAX_EXPANDED:
            raise TooLarge(f"counts and patterns make more than {MAX_EXPANDED} when they are written out")


def _count(value: Mapping[str, Any]) -> int:
    """How often what is in an object may be repeated at most, by its own counts. Raises TooLarge."""
    counts = [value[name] for name in _COUNTS & value.keys() if isinstance(value[name], int | float)]
    most = max(counts, default=1)
    if most > MAX_COUNT:
        raise TooLarge(f"minItems, maxLength and other counts may be {MAX_COUNT}")
    return max(int(most), 1)
