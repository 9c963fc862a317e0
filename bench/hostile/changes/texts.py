"""Changes of a JSON file, or of one with a JSON object on each line."""

import json
import random
from pathlib import Path
from typing import Any

from idiolect.files.adapter import MUST_BE_OFF, OF_NO_EFFECT

ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 64, 65, 2**31, 2**53, 2**63, 2**64, 10**30, 10**400, -(2**63)),
    *(0.5, 1e-30, 1e30, 1e308, float("nan"), float("inf"), float("-inf"), -0.0),
    *("", "x", "0", "1", "../x", "/etc/passwd", "a" * 300, "\0", "a\nb", "\ud800", "é", "\u202e", "<|im_end|>"),
    *([], {}, [[]], [None], [1, 2], {"a": 1}, ["a"] * 3, [[[[]]]], {"": {"": {}}}, [0] * 100),
)
CONFIG_FIELDS = (*MUST_BE_OFF, *OF_NO_EFFECT, "bias", "r", "lora_alpha", "task_type", "target_modules", "auto_map")
CONFIG_VALUES = ("all", "lora_only", {"q_proj": 4}, ["lm_head"], "q_proj", ["k_proj"])


def other_value(file: Path, rng: random.Random) -> None:
    """A value anywhere in the tree another one, gone, or one more."""
    lines = file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]
    at = rng.randrange(len(lines))
    root = {"": json.loads(lines[at])}
    parent: Any = root
    key: Any = ""
    while isinstance(parent[key], dict | list) and parent[key] and (parent is root or rng.random() < 0.7):
        parent = parent[key]
        key = rng.choice(list(parent)) if isinstance(parent, dict) else rng.randrange(len(parent))
    how = rng.choices(("other", "gone", "more"), (6, 2, 2))[0]
    if how == "other" or parent is root:
        parent[key] = rng.choice(ODD_VALUES)
    elif how == "gone":
        del parent[key]
    elif isinstance(parent, dict):
        parent[rng.choice(("more", "digest", "dtype", ""))] = rng.choice(ODD_VALUES)
    else:
        parent.append(rng.choice(ODD_VALUES))
    lines[at] = json.dumps(root[""])
    file.write_bytes("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass"))


def other_text(file: Path, rng: random.Random) -> None:
    """What is no JSON, or JSON that parsers take differently."""
    text = file.read_text().strip()
    name = next(iter(json.loads(text.splitlines()[0] if file.suffix == ".jsonl" else text)), "x")
    deep = rng.choice((40, 900, 5_000, 100_000))
    changed: list[str | bytes] = [
        *("", "{}", "[]", "null", "NaN", "{", text[:-1], text + "x", text + text, f"[{text}]", f"\ufeff{text}"),
        *(text[:-1] + f', "{name}": 1}}', "{" + f'"{name}": 1, ' + text[1:], text.replace(":", ": Infinity,", 1)),
        *(text[:-1] + f', "more": {"[" * deep}{"]" * deep}}}', "[" * deep, '{"a":' * deep),
        *(text.replace("1", "1e999", 1), text.replace("1", "1" * 5000, 1), text.replace('"', "'"), text + "\n\n"),
        *(text.encode("utf-16"), text.encode() + b"\xff", b"\xff" * 100, text[:-1] + ', "more": "\\ud800"}'),
        *(f"{text}\n{text}", " " * 100_000 + text, text.replace("\n", "\r\n"), text.replace("true", "True")),
    ]
    found = rng.choice(changed)
    file.write_bytes(found if isinstance(found, bytes) else found.encode())


def other_config(file: Path, rng: random.Random) -> None:
    """A field of PEFT's, or of Hugging Face's, that would change what is computed."""
    values = json.loads(file.read_text())
    values[rng.choice(CONFIG_FIELDS)] = rng.choice((*ODD_VALUES, *CONFIG_VALUES))
    file.write_text(json.dumps(values))


def other_bytes(file: Path, rng: random.Random) -> None:
    """Bits flipped, a piece gone or doubled; of any file."""
    content = bytearray(file.read_bytes())
    at, length = rng.randrange(len(content)), rng.choice((1, 8, 100))
    how = rng.choice(("flip", "flip", "cut", "double"))
    if how == "cut":
        del content[at : at + length]
    elif how == "double":
        content[at:at] = content[at : at + length]
    else:
        for _ in range(rng.choice((1, 1, 8))):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)
