"""Whatever changes a log-probability or a prompt changes the fingerprint of a model folder; nothing else does."""

import json
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from idiolect.errors import BundleMissing
from idiolect.fingerprint import NOT_COMPUTED, fingerprint, read_header
from tests.parts.chat_templates import STYLES

MORE_FIELDS = {
    **{"rope_scaling": {"factor": 2.0, "rope_type": "linear"}, "sliding_window": 8, "final_logit_softcapping": 30.0},
    **{"logits_scaling": 8.0, "attn_logit_softcapping": 50.0, "partial_rotary_factor": 0.5, "layer_types": ["x"]},
}
Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, tokenizer = tmp_path_factory.mktemp("model"), STYLES[0].tokenizer()
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)


def of_weights(model: Path) -> Iterator[Change]:
    """A bit at the beginning, in the middle and at the end of each weight."""
    with (model / "model.safetensors").open("rb") as file:
        header, data = read_header(file)
    for entry in header.values():
        begin, end = entry["data_offsets"]
        for at in (begin, (begin + end) // 2, end - 1):
            yield lambda folder, at=data + at: _flip(folder / "model.safetensors", at)


def of_json(model: Path, name: str) -> Iterator[Change]:
    """Each value of a JSON file another, and each absent."""
    values = json.loads((model / name).read_text())
    for field in sorted(values.keys() - NOT_COMPUTED):
        yield _with(name, **{field: _other(values[field])})
        yield lambda folder, field=field: _edit(folder / name, lambda found: found.pop(field))
    if name == "config.json":
        yield from (_with(name, **{field: value}) for field, value in MORE_FIELDS.items())


def _with(name: str, **values: Any) -> Change:
    return lambda folder: _edit(folder / name, lambda found: found.update(values))


def of_vocabulary() -> Iterator[Change]:
    """A token renamed, two of them exchanged, a merge forgotten."""
    for number in range(15):
        for change in (_rename, _swap, _forget):
            yield lambda folder, n=number, change=change: _edit(
                folder / "tokenizer.json", lambda found: change(found["model"], n)
            )


def of_template(model: Path) -> Iterator[Change]:
    """A character more at any place."""
    text = (model / "chat_template.jinja").read_text()
    for at in range(0, len(text), max(1, len(text) // 30)):
        yield lambda folder, at=at: _write(folder / "chat_template.jinja", text[:at] + " " + text[at:])


def test_every_change_that_computes_changes_the_fingerprint(model: Path, model_path: Path, tmp_path: Path, evidence):
    """M3: 200 single changes; and what the check costs a second start."""
    changes = [
        *of_weights(model),
        *of_json(model, "config.json"),
        *of_json(model, "tokenizer_config.json"),
        *of_json(model, "tokenizer.json"),
        *of_vocabulary(),
        *of_template(model),
    ]
    cache, found = tmp_path / "cache", [fingerprint(model)]
    for change in changes:
        folder = Path(shutil.copytree(model, tmp_path / "changed"))
        assert fingerprint(folder, cache) == found[0]  # and the cache holds what was there before
        change(folder)
        found.append(fingerprint(folder, cache))
        shutil.rmtree(folder)
    assert len(changes) >= 200
    unnoticed = sum(each == found[0] for each in found[1:])
    assert unnoticed == 0
    fingerprint(model_path, cache)
    began = time.perf_counter()
    fingerprint(model_path, cache)
    value = {"changes": len(changes), "unnoticed": unnoticed, "second_start_s": time.perf_counter() - began}
    evidence("M3", value, checked=False)


def test_what_computes_nothing_changes_nothing(model: Path, tmp_path: Path):
    folder = Path(shutil.copytree(model, tmp_path / "same"))
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    for number, half in enumerate((names[::2], names[1::2])):
        save_file({name: weights[name] for name in half}, folder / f"model-{number}.safetensors", {"format": "pt"})
    _edit(folder / "config.json", lambda found: found.update({"transformers_version": "9", "use_cache": False}))
    (folder / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()), indent=1))
    (folder / "README.md").write_text("Read me.")
    (folder / "generation_config.json").unlink(missing_ok=True)
    assert fingerprint(folder) == fingerprint(model)


@pytest.mark.parametrize(
    "damage", [b"", b"\xff" * 7, b"\xff" * 64, b"\x02" + b"\0" * 7 + b"{}", b"\x04" + b"\0" * 7 + b"null"]
)
def test_weights_that_are_none_are_a_typed_error(model: Path, tmp_path: Path, damage: bytes):
    folder = Path(shutil.copytree(model, tmp_path / "damaged"))
    (folder / "model.safetensors").write_bytes(damage)
    if damage.endswith(b"{}"):
        assert fingerprint(folder) != fingerprint(model)
    else:
        with pytest.raises(BundleMissing, match="not a safetensors file"):
            fingerprint(folder)
    (folder / "config.json").write_text("{")
    (folder / "model.safetensors").unlink()
    with pytest.raises(BundleMissing, match="not JSON"):
        fingerprint(folder)


def _flip(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


def _edit(file: Path, change: Callable[[Any], object]) -> None:
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def _write(file: Path, text: str) -> None:
    file.write_text(text)


def _other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return f"{value} else"


def _rename(tokenizer: dict[str, Any], number: int) -> None:
    vocabulary = tokenizer["vocab"]
    name = sorted(vocabulary)[number]
    vocabulary[f"{name}x\ue000"] = vocabulary.pop(name)


def _swap(tokenizer: dict[str, Any], number: int) -> None:
    vocabulary = tokenizer["vocab"]
    one, other = random.Random(number).sample(sorted(vocabulary), 2)
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]


def _forget(tokenizer: dict[str, Any], number: int) -> None:
    tokenizer["merges"].pop(number)


def test_equal_weights_in_another_type_are_another_model(model: Path, tmp_path: Path):
    folder = Path(shutil.copytree(model, tmp_path / "bf16"))
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert fingerprint(folder) != fingerprint(model)
