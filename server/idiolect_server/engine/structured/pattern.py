"""How large a regular expression or a grammar is when its repetitions are written out, without compiling it."""

import re
from dataclasses import dataclass, field

MAX_PATTERN_CHARS, MAX_GRAMMAR_CHARS = 2048, 16_384
MAX_NESTING = 32
"""Of objects and lists."""
MAX_RULES = 256
"""Of a grammar."""
MAX_GROUPS = 16
"""Parentheses in one another. Native code reads them by recursion."""
MAX_OPEN = 2
"""Repetitions without an end in one another. Each one more multiplies the ways to read the same text."""
MAX_SIZE = 4096
MAX_LOOSE = 64
"""Places at which a reader cannot know whether to go on with a repetition or to leave it: it does both, in each."""

_COUNT = r"\{\d{1,9}(?:,\d{0,9})?\}"
_TOKEN = re.compile(
    rf"""(?P<one>\\.|\[\^?\]?(?:[^\]\\]|\\.)*\])
    |(?P<begin>\((?:\?(?:[:=!]|<[=!]|P?<\w+>))?)
    |(?P<end>\))
    |(?P<repeat>(?:[*+?]|{_COUNT})[?+]?)
    |(?P<other>.)""",
    re.S | re.X,
)
_WORDS = re.compile(r'"(?:[^"\\\n]|\\.)*"|(?:#|//)[^\n]*|[\w.-]+|::=|\s+')
"""Of a grammar: texts, comments, names of rules."""


class TooLarge(ValueError):
    """More than is taken; the message says of what."""


@dataclass
class _Part:
    """What is repeated as one, written out: characters, endless repetitions in one another, loose places."""

    size: int = 0
    open: int = 0
    loose: int = 0

    def repeat(self, count: str) -> bool:
        """By `*`, `+`, `?` or `{2,3}`; whether it is loose now. Raises TooLarge."""
        least, most = _bounds(count)
        times = max(least, most or 0, 1)
        self.size *= times
        self.open += most is None
        self.loose = self.loose * times + (most != least)
        if self.open > MAX_OPEN:
            raise TooLarge(f"repetitions without an end may stand in one another {MAX_OPEN} times")
        self.check()
        return self.loose > 0

    def check(self) -> None:
        if self.size > MAX_SIZE:
            raise TooLarge(f"it has more than {MAX_SIZE} characters when its repetitions are written out")
        if self.loose > MAX_LOOSE:
            raise TooLarge(f"more than {MAX_LOOSE} repetitions of no fixed length, when they are written out")


@dataclass
class _Group(_Part):
    start: int = 0
    last: _Part = field(default_factory=_Part)
    """What a repetition that comes next is of."""
    last_start: int = 0
    rests: list[int] = field(default_factory=list)
    """Where its loose places are, in this alternative."""

    def add(self, part: _Part, start: int) -> None:
        self.size += self.last.size
        self.open = max(self.open, self.last.open)
        self.loose += self.last.loose
        self.last, self.last_start = part, start


def pattern_size(pattern: str) -> int:
    """Characters that a regular expression matches when its repetitions are written out. Raises TooLarge.

    >>> pattern_size("[a-z]{2,8}(-x?){3}")
    14
    """
    return _read(pattern).size


def rests(pattern: str) -> list[str]:
    """What of a regular expression is left from each of its loose places on, in its own group. Raises TooLarge.

    >>> rests("z(a?b)*|[c-y]+")
    ['a?b', '(a?b)*', '[c-y]+']
    """
    return _read(pattern).found


def grammar_size(grammar: str) -> int:
    """As `pattern_size`, of a grammar in EBNF (as GBNF has it), whose rules are not written out. Raises TooLarge."""
    if len(grammar) > MAX_GRAMMAR_CHARS:
        raise TooLarge(f"a grammar may have {MAX_GRAMMAR_CHARS} characters")
    if grammar.count("::=") > MAX_RULES:
        raise TooLarge(f"a grammar may have {MAX_RULES} rules")
    return _Reader(grammar, _WORDS).size


def _read(pattern: str) -> "_Reader":
    if len(pattern) > MAX_PATTERN_CHARS:
        raise TooLarge(f"a regular expression may have {MAX_PATTERN_CHARS} characters")
    return _Reader(pattern, None)


class _Reader:
    """Reads it once, from left to right, with the groups that are open."""

    def __init__(self, text: str, words: re.Pattern[str] | None) -> None:
        self._text, self._groups, self.found = text, [_Group()], list[str]()
        at = 0
        while at < len(text):
            if words is not None and (word := words.match(text, at)):
                self._groups[-1].add(_Part(1), at)
                at = word.end()
            else:
                token = _TOKEN.match(text, at)
                assert token is not None
                self._take(token)
                at = token.end()
        while len(self._groups) > 1:  # not closed: the compiler will say so
            self._close(len(text))
        self._end_alternative(len(text))
        self._groups[0].add(_Part(), at)
        self._groups[0].check()
        self.size = self._groups[0].size

    def _take(self, token: re.Match[str]) -> None:
        group, at = self._groups[-1], token.start()
        match token.lastgroup:
            case "begin":
                self._groups.append(_Group(start=at))
                if len(self._groups) > MAX_GROUPS + 1:
                    raise TooLarge(f"parentheses may stand in one another {MAX_GROUPS} times")
            case "end" if len(self._groups) > 1:
                self._close(at)
            case "repeat":
                if group.last.repeat(token[0]):
                    group.rests.append(group.last_start)
            case _:
                if token[0] == "|":
                    self._end_alternative(at)
                group.add(_Part(1), at)

    def _close(self, at: int) -> None:
        self._end_alternative(at)
        group = self._groups.pop()
        group.add(_Part(), at)
        self._groups[-1].add(_Part(group.size, group.open, group.loose), group.start)

    def _end_alternative(self, at: int) -> None:
        group = self._groups[-1]
        self.found += [self._text[start:at] for start in group.rests]
        group.rests.clear()


def _bounds(count: str) -> tuple[int, int | None]:
    """How often at least, and at most if there is such a number."""
    if count[0] != "{":
        return (count[0] == "+", 1 if count[0] == "?" else None)
    least, comma, most = count[1 : count.index("}")].partition(",")
    return int(least), int(most) if most else None if comma else int(least)
