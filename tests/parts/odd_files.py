"""Data files as editors, spreadsheets, shells and other programs leave them, and what is to become of each."""

import json
from typing import NamedTuple

GOOD = {"user_id": "ada", "prompt": "Caf\u00e9?", "chosen": "Oui \u2615", "rejected": "Non"}
CHAT = {"user_id": "zoe", "chosen": "a", "rejected": "b", "messages": [{"role": "user", "content": "Hi"}]}
BOM = b"\xef\xbb\xbf"


class Odd(NamedTuple):
    content: bytes
    kept: int
    bad: int = 0
    reason: str = ""
    """What the error, or the log, says; of a file that is refused whole, `kept` and `bad` are 0."""


def line(value: object, end: str = "\n") -> bytes:
    return (json.dumps(value, ensure_ascii=False) + end).encode()


def text(*values: object) -> str:
    return b"".join(line(value) for value in values).decode()


def among_good(bad: bytes, reason: str) -> Odd:
    """One odd line between two good ones."""
    return Odd(line(GOOD) + bad.removesuffix(b"\n") + b"\n" + line(CHAT), kept=2, bad=1, reason=reason)


def field(reason: str, **changes: object) -> Odd:
    """One good line with another value, between two good ones."""
    return among_good(json.dumps({**GOOD, **changes}).encode(), reason)


G, C = line(GOOD), line(CHAT)
HALF = len(C) // 2
TWO = text(GOOD, CHAT)
LONG = 200_000

ACCEPTED = {
    "plain": Odd(G + C, 2),
    "no last line break": Odd(G + C.rstrip(), 2),
    "byte order mark": Odd(BOM + G + C, 2),
    "byte order marks of files put together": Odd(BOM + G + BOM + C, 2),
    "CRLF": Odd(line(GOOD, "\r\n") + line(CHAT, "\r\n"), 2),
    "CRLF and byte order mark": Odd(BOM + line(GOOD, "\r\n"), 1),
    "mixed line ends": Odd(line(GOOD, "\r\n") + C, 2),
    "blank first line": Odd(b"\n" + G, 1),
    "blank line in the middle": Odd(G + b"\n\n\n" + C, 2),
    "blank last lines": Odd(G + b"\n\n", 1),
    "blank CRLF lines": Odd(G + b"\r\n\r\n" + C, 2),
    "lines of spaces and tabs": Odd(b" \t \n" + G + b"\t\n" + C + b"   ", 2),
    "lines of other white space": Odd(G + "\u00a0\u3000\u2003\n".encode() + C, 2),
    "byte order mark on a blank line": Odd(BOM + b"\n" + G, 1),
    "indented lines": Odd(b"   " + G + b"\t" + C, 2),
    "spaces behind": Odd(G.rstrip() + b"  \t\n" + C, 2),
    "keys in another order": Odd(line(dict(reversed(GOOD.items()))), 1),
    "all escaped": Odd(json.dumps(GOOD).encode(), 1),
    "null for what is absent": Odd(line({**GOOD, "messages": None, "profile": None}), 1),
    "line separator in a text": Odd(line({**GOOD, "chosen": "one\u2028two\u2029three\n\r\tfour"}), 1),
    "emoji, right to left, combining": Odd(line({**GOOD, "chosen": "\U0001f469\u200d\U0001f52c \u05d0 e\u0301"}), 1),
    "one very long line": Odd(line({**GOOD, "chosen": "x" * LONG}) + C, 2),
    "the same line twice": Odd(G + G, 2),
}
REFUSED_WHOLE = {
    "empty": Odd(b"", 0, reason="no usable line"),
    "only a byte order mark": Odd(BOM, 0, reason="no usable line"),
    "only blank lines": Odd(b"\n \r\n\t\n", 0, reason="no usable line"),
    **{
        f"{encoding}{' with' if mark else ' without'} byte order mark": Odd(
            (mark + TWO).encode(encoding), 0, reason=f"encoded as {encoding[:6].upper()}, not as UTF-8"
        )
        for encoding in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
        for mark in ("\ufeff", "")
    },
    "UTF-16 after a blank line": Odd(("\n" + TWO).encode("utf-16-le"), 0, reason="encoded as UTF-16"),
    "UTF-16 with CRLF": Odd(TWO.replace("\n", "\r\n").encode("utf-16"), 0, reason="encoded as UTF-16"),
    "a packed file without .gz": Odd(b"\x1f\x8b\x08\xff\xff", 0, 1, "not UTF-8: byte 0x8b at byte 2"),
    "array on one line": Odd(line([GOOD, CHAT]), 0, 1, "a JSON array, where one object a line"),
    "array over several lines": Odd(json.dumps([GOOD, CHAT], indent=1).encode(), 0, 19, "a JSON array"),
    "object over several lines": Odd(json.dumps(GOOD, indent=1).encode(), 0, 6, "a JSON object over several lines"),
    "table": Odd(b"user_id,prompt,chosen,rejected\nada,Hi,a,b\n", 0, 2, "Invalid JSON"),
    "a page of the web": Odd(b"<!doctype html>\n<p>Not found</p>\n", 0, 2, "Invalid JSON"),
    "a pointer to a large file": Odd(b"version https://git-lfs\nsize 1\n", 0, 2, "Invalid JSON"),
    "line ends of an old Mac": Odd(line(GOOD, "\r") + line(CHAT, "\r"), 0, 1, "trailing characters"),
}
BAD_LINES = {
    "Latin-1": among_good(
        json.dumps({**GOOD, "chosen": "caf\u00e9"}, ensure_ascii=False).encode("latin-1"), "not UTF-8"
    ),
    "Windows-1252 quotes": among_good(G.replace(b"Non", b"\x93Non\x94"), "not UTF-8: byte 0x93"),
    "surrogates as UTF-8": among_good(G.replace(b"Non", b"\xed\xa0\xbd\xed\xb8\x80"), "not UTF-8: byte 0xed"),
    "a character cut in two": among_good(G.replace(b"\xc3\xa9", b"\xc3"), "not UTF-8: byte 0xc3"),
    "a line of UTF-16": among_good(text(GOOD).strip().encode("utf-16-be"), "NUL at byte"),
    "NUL in a line": among_good(G.replace(b"Non", b"N\0n"), "NUL at byte"),
    "NULs where a disk was full": among_good(b"\0" * 100, "NUL at byte 1"),
    "truncated last line": Odd(G + C[:HALF], 1, 1, "Invalid JSON: EOF"),
    "truncated in a character": Odd(C + G[: G.index(b"\xc3") + 1], 1, 1, "not UTF-8: byte 0xc3"),
    "truncated first line": Odd(C[HALF:] + G, 1, 1, "Invalid JSON"),
    "two objects on a line": among_good(G.strip() + C, "trailing characters"),
    "commas behind": among_good(G.strip() + b",", "trailing characters"),
    "a text": among_good(b'"ada"', "Input should be an object"),
    "a number": among_good(b"7", "Input should be an object"),
    "null": among_good(b"null", "Input should be an object"),
    "an array in the middle": among_good(b"[1]", "a JSON array"),
    "single quotes": among_good(str(GOOD).encode(), "Invalid JSON"),
    "a comment": among_good(b"# mine", "Invalid JSON"),
    "end of file of DOS": among_good(b"\x1a", "Invalid JSON"),
    "key given twice": among_good(G.replace(b"{", b'{"chosen": "x", '), "chosen: given twice"),
    "key given twice, the same": among_good(G.replace(b"{", b'{"user_id": "ada", '), "user_id: given twice"),
    "key given twice, once escaped": among_good(G.replace(b"{", b'{"\\u0063hosen": "x", '), "chosen: given twice"),
    "key given twice that no log can print": among_good(b'{"\\ud800": 1, "\\ud800": 2}', "\\ud800: given twice"),
    "key given twice inside": among_good(C.replace(b'{"role"', b'{"content": "x", "role"'), "content: given twice"),
    "NaN": field("chosen: Input should be a valid string", chosen=float("nan")),
    "Infinity": field("prompt: Input should be a valid string", prompt=float("inf")),
    "unknown NaN": field("score: Extra inputs", score=float("nan")),
    "number for a user": field("user_id: Input should be a valid string", user_id=7),
    "number for a prompt": field("prompt: Input should be a valid string", prompt=1.5),
    "list for a reply": field("rejected: Input should be a valid string", rejected=["b"]),
    "object for a reply": field("chosen: Input should be a valid string", chosen={"text": "a"}),
    "truth for a reply": field("chosen: Input should be a valid string", chosen=True),
    "null for a reply": field("chosen: Input should be a valid string", chosen=None),
    "endless number": among_good(b'{"user_id": ' + b"9" * 10_000 + b"}", "number out of range"),
    "too deep": among_good(b'{"a":' * 100_000, "recursion limit"),
    "lone surrogate": field("line: Invalid JSON", chosen="\ud83d"),
    "escaped NUL": field("chosen: Value error, control characters", chosen="a\0"),
    "control character": field("rejected: Value error, control characters", rejected="\x1b[31mNo"),
    "empty reply": field("chosen: String should have at least 1 character", chosen=""),
    "replies that are equal": field("chosen equals rejected", rejected=GOOD["chosen"]),
    "no prompt": field("either prompt or messages", prompt=None),
    "prompt and messages": field("either prompt or messages", messages=CHAT["messages"]),
    "messages as text": field("messages: ", prompt=None, messages="Hi"),
    "role of nobody": field("messages.0.role", prompt=None, messages=[{"role": "bot", "content": "Hi"}]),
    "no user turn": field("no user turn", prompt=None, messages=[{"role": "system", "content": "Hi"}]),
    "unknown field": field("mood: Extra inputs", mood="x"),
    "key in capitals": among_good(G.replace(b"chosen", b"Chosen"), "chosen: Field required"),
    "space in a key": among_good(G.replace(b'"chosen"', b'"chosen "'), "chosen: Field required"),
    "user that looks like a path": field("user_id: Value error, a user id cannot end", user_id="team/profile"),
    "user of 257 characters": field("user_id: String should have at most 256", user_id="a" * 257),
    "user on two lines": field("user_id: Value error, control characters", user_id="a\nb"),
}
ODD = ACCEPTED | REFUSED_WHOLE | BAD_LINES
