"""The fingerprint of a model folder: it changes with whatever changes a log-probability or a prompt."""

import hashlib
import json
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from idiolect.errors import BundleMissing

TOKENIZER = ("tokenizer*.json", "vocab*", "merges.txt", "added_tokens.json", "special_tokens_map.json")
TOKENIZER_BYTES = ("tokenizer.model", "*.spm", "spiece.model", "*.tiktoken", "chat_template*", "chat_templates/*")
NOT_COMPUTED = {
    *(
        "_name_or_path",
        "name_or_path",
        "transformers_version",
        "_commit_hash",
        "tokenizer_file",
        "special_tokens_map_file",
    ),
    *("use_cache", "output_attentions", "output_hidden_states", "return_dict", "id2label", "label2id", "auto_map"),
}
"""Fields of config.json and of the tokenizer's files that change no number and no prompt."""
CACHE = "fingerprints"
BLOCK_BYTES = 1 << 22


def fingerprint(path: Path, cache_dir: Path | None = None) -> str:
    """SHA-256 (hex) over every weight, the config, the tokenizer and the chat template.

    Weights count by name, type, shape and all their bytes, however they are spread over files. With `cache_dir`, files
    of weights that did not change since the last time (by size, inode, times) are not read again. Raises BundleMissing.
    """
    shards = sorted(path.glob("*.safetensors"))
    digest = hashlib.sha256()
    for line in sorted(line for shard in shards for line in _tensors_once(shard, cache_dir)):
        digest.update(line.encode())
    digest.update(_values(path / "config.json").encode())
    for pattern in TOKENIZER:
        for file in sorted(path.glob(pattern)):
            digest.update(f"{file.name}\n{_values(file) if file.suffix == '.json' else _bytes(file)}\n".encode())
    for pattern in TOKENIZER_BYTES:
        for file in sorted(path.glob(pattern)):
            digest.update(f"{file.relative_to(path)}\n{_bytes(file)}\n".encode())
    return digest.hexdigest()


def _tensors_once(shard: Path, cache_dir: Path | None) -> list[str]:
    if cache_dir is None:
        return list(_tensors(shard))
    found = shard.resolve().stat()
    state = f"{shard.resolve()} {found.st_size} {found.st_ino} {found.st_mtime_ns} {found.st_ctime_ns}"
    kept = cache_dir / CACHE / f"{hashlib.sha256(state.encode()).hexdigest()[:32]}.json"
    with suppress(OSError, ValueError):
        lines: list[str] = json.loads(kept.read_text())
        return lines
    lines = list(_tensors(shard))
    with suppress(OSError):  # a folder that cannot be written to costs time only
        kept.parent.mkdir(parents=True, exist_ok=True)
        (new := kept.with_suffix(".new")).write_text(json.dumps(lines))
        new.replace(kept)
    return lines


def _tensors(shard: Path) -> Iterator[str]:
    """One line for each tensor of a file: its name, type, shape and the digest of its data."""
    with shard.open("rb") as file:
        try:
            header, data = read_header(file)
            entries = sorted(header.items(), key=lambda item: int(item[1]["data_offsets"][0]))
        except (struct.error, ValueError, KeyError, TypeError, AttributeError, MemoryError, OverflowError) as error:
            raise BundleMissing(f"{shard}: not a safetensors file") from error
        for name, entry in entries:
            begin, end = entry["data_offsets"]
            file.seek(data + begin)
            digest, left = hashlib.sha256(), end - begin
            while left > 0 and (block := file.read(min(BLOCK_BYTES, left))):
                digest.update(block)
                left -= len(block)
            yield json.dumps([name, entry["dtype"], entry["shape"], digest.hexdigest()])


def read_header(file: BinaryIO) -> tuple[dict[str, dict[str, Any]], int]:
    """Tensor entries of an open safetensors file, and where its data begins."""
    (length,) = struct.unpack("<Q", file.read(8))
    header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return header, 8 + length


def _values(file: Path) -> str:
    """A JSON file's values, without those that compute nothing, however it is formatted."""
    try:
        values: Any = json.loads(file.read_bytes())
    except ValueError as error:
        raise BundleMissing(f"{file}: not JSON: {error}") from error
    if isinstance(values, dict):
        values = {name: value for name, value in values.items() if name not in NOT_COMPUTED}
    return json.dumps(values, sort_keys=True)


def _bytes(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
