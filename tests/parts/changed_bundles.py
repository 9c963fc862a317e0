"""A bundle changed in one place: what was done, to which kind of bundle, and the error that must be raised in words.

`originals` of bench/hostile/bundles.py are what is changed.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from bench.hostile.changes.tensors import read_safetensors, write_safetensors
from idiolect.errors import BundleCorrupt, BundleError, BundleMissing, BundleShapeMismatch
from idiolect.files.folder import (
    ADAPTER_CONFIG,
    ADAPTER_TENSORS,
    BASIS,
    MANIFEST,
    MODEL_CONFIG,
    TABLE,
    TRAINED_VOTES,
    USERS,
)
from idiolect.user_model import LARGEST

Change = Callable[[Path], object]
A, B = (f"base_model.model.model.layers.0.self_attn.q_proj.lora_{side}.weight" for side in "AB")
WEIGHTS = "model/model.safetensors"


def numbers(name: str, tensor: str, change: Callable[[Any], Any]) -> Change:
    """A tensor of a file through `change`; None takes it away."""

    def do(bundle: Path) -> None:
        tensors = load_file(bundle / name)
        tensors[tensor] = change(tensors.get(tensor))
        save_file({n: np.ascontiguousarray(t) for n, t in tensors.items() if t is not None}, bundle / name)

    return do


def one(value: float) -> Callable[[Any], Any]:
    def put(tensor: Any) -> Any:
        tensor.flat[0] = value
        return tensor

    return put


def header(name: str, tensor: str, **fields: Any) -> Change:
    def do(bundle: Path) -> None:
        entries, data = read_safetensors(bundle / name)
        entries[tensor] |= fields
        write_safetensors(bundle / name, entries, data)

    return do


def values(name: str, *path: Any, to: Any) -> Change:
    """A value in a JSON file another one."""

    def do(bundle: Path) -> None:
        root = json.loads((bundle / name).read_text())
        inner = root
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = to
        (bundle / name).write_text(json.dumps(root))

    return do


def text(name: str, change: Callable[[str], str]) -> Change:
    return lambda bundle: (bundle / name).write_text(change((bundle / name).read_text()))


def ids(*user_ids: str) -> Change:
    def do(bundle: Path) -> None:
        encoded = [user_id.encode() for user_id in user_ids]
        offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        packed = {"id_bytes": np.frombuffer(b"".join(encoded), np.uint8), "id_offsets": offsets}
        save_file(load_file(bundle / USERS) | packed, bundle / USERS)

    return do


def extra(name: str) -> Change:
    def do(bundle: Path) -> None:
        (bundle / name).parent.mkdir(exist_ok=True)
        (bundle / name).write_bytes(b"x")

    return do


def link(name: str, to: str = "") -> Change:
    """A file or folder moved out of the bundle, and a link in its place; or a link that leads elsewhere."""

    def do(bundle: Path) -> None:
        if not to:
            shutil.move(bundle / name, bundle.parent / "elsewhere")
        (bundle / name).symlink_to(to or bundle.parent / "elsewhere")

    return do


def replaced(name: str, how: Callable[[Path], object]) -> Change:
    return lambda bundle: ((bundle / name).unlink(), how(bundle / name))


def width(bundle: Path) -> None:
    """The case of the crash loop: user tokens of another width than the base model, and a manifest that says so."""
    numbers(BASIS, "basis", lambda basis: basis[:, :, :4])(bundle)
    values(MANIFEST, "user_model", "hidden_size", to=4)(bundle)


CASES: dict[str, tuple[str, Change, type[BundleError], str]] = {
    # Tensors of the user model.
    "user tokens of another width": ("cluster", width, BundleCorrupt, "user_model.hidden_size is 4, base_model"),
    "basis nan": ("cluster", numbers(BASIS, "basis", one(np.nan)), BundleCorrupt, "basis has a number that is not"),
    "basis infinite": ("low_rank", numbers(BASIS, "basis", one(np.inf)), BundleCorrupt, "not finite"),
    "basis too large for float16": ("cluster", numbers(BASIS, "basis", one(1e38)), BundleCorrupt, "float16"),
    "basis without headroom": ("individual", numbers(BASIS, "basis", one(2 * LARGEST)), BundleCorrupt, "float16"),
    "codes too large": ("low_rank", numbers(USERS, "codes", one(1e5)), BundleCorrupt, "too large for float16"),
    "codes and basis too large together": (
        "individual",
        lambda b: (numbers(BASIS, "basis", one(LARGEST - 1))(b), numbers(USERS, "codes", one(LARGEST - 1))(b)),
        *(BundleCorrupt, "too large for float16"),
    ),
    "a generic code of its own": ("low_rank", numbers(BASIS, "generic_code", one(1)), BundleCorrupt, "must be zeros"),
    "generic weights negative": ("cluster", numbers(BASIS, "generic_code", one(-1)), BundleCorrupt, "sum to 1"),
    "basis float64": ("cluster", numbers(BASIS, "basis", np.float64), BundleShapeMismatch, r"basis is F64\[4, 2, 6\]"),
    "basis bfloat16": ("cluster", header(BASIS, "basis", dtype="BF16"), BundleCorrupt, "not those of its shape"),
    "basis of 8 bits": (
        *("cluster", header(BASIS, "basis", dtype="F8_E4M3", shape=[4, 2, 24]), BundleShapeMismatch, "F8_E4M3"),
    ),
    "basis of no type": ("cluster", header(BASIS, "basis", dtype=7), BundleCorrupt, "not described as a tensor"),
    "basis of 2^64 rows": ("cluster", header(BASIS, "basis", shape=[2**64, 6]), BundleCorrupt, "beyond 64 bits"),
    "basis of negative rows": ("cluster", header(BASIS, "basis", shape=[-4, -12]), BundleCorrupt, "not described"),
    "basis transposed": ("cluster", numbers(BASIS, "basis", np.transpose), BundleShapeMismatch, "basis is F32"),
    "no generic code": ("cluster", numbers(BASIS, "generic_code", lambda _: None), BundleShapeMismatch, "holds"),
    "one tensor more": ("cluster", numbers(BASIS, "more", lambda _: np.zeros(1)), BundleShapeMismatch, "holds"),
    "overlapping tensors": (
        *("cluster", header(BASIS, "generic_code", data_offsets=[0, 16]), BundleCorrupt, "does not begin where"),
    ),
    "metadata that are no texts": (
        "cluster",
        lambda b: write_safetensors(
            b / BASIS, read_safetensors(b / BASIS)[0] | {"__metadata__": 1}, read_safetensors(b / BASIS)[1]
        ),
        *(BundleCorrupt, "metadata"),
    ),
    "a truncated file": ("cluster", lambda b: os.truncate(b / USERS, 100), BundleCorrupt, "header"),
    "an empty file": ("cluster", lambda b: os.truncate(b / USERS, 0), BundleCorrupt, "too short"),
    "a byte more": (
        "cluster",
        lambda b: os.truncate(b / USERS, (b / USERS).stat().st_size + 1),
        BundleCorrupt,
        "the file",
    ),
    # Users.
    "an id with NUL": ("cluster", ids("ada", "b\0b", "c"), BundleCorrupt, "no request can name"),
    "an id of two lines": ("cluster", ids("ada", "b\u2028b", "c"), BundleCorrupt, "no request can name"),
    "an id too long": ("cluster", ids("ada", "b" * 257, "c"), BundleCorrupt, "no request can name"),
    "an id like a path": ("cluster", ids("ada", "b/profile", "c"), BundleCorrupt, "no request can name"),
    "an id twice": ("cluster", ids("ada", "ada", "c"), BundleCorrupt, "twice"),
    "an id that is not UTF-8": (
        *("cluster", numbers(USERS, "id_bytes", lambda b: b | 0x80), BundleCorrupt, "not UTF-8"),
    ),
    "offsets backwards": ("cluster", numbers(USERS, "id_offsets", one(9)), BundleCorrupt, "id_offsets"),
    "offsets of 2^63": (
        *("cluster", numbers(USERS, "id_offsets", lambda o: o * 0 + 2**62), BundleCorrupt, "id_offsets"),
    ),
    # The adapter.
    "one nan in lora_B": ("cluster", numbers(ADAPTER_TENSORS, B, one(np.nan)), BundleCorrupt, "lora_B.weight has a"),
    "lora_A infinite": ("individual", numbers(ADAPTER_TENSORS, A, one(-np.inf)), BundleCorrupt, "not finite"),
    "lora_A too large": ("cluster", numbers(ADAPTER_TENSORS, A, one(1e30)), BundleCorrupt, "too large for float16"),
    "a product too large": (
        "cluster",
        lambda b: [numbers(ADAPTER_TENSORS, name, lambda m: m * 0 + 1000)(b) for name in (A, B)],
        *(BundleCorrupt, "adds numbers, beyond 4096"),
    ),
    "lora_B of another rank": (
        *("cluster", numbers(ADAPTER_TENSORS, B, lambda b: b[:, :1]), BundleShapeMismatch, "of rank 2"),
    ),
    "lora_A of whole numbers": (
        *("cluster", numbers(ADAPTER_TENSORS, A, lambda a: a.astype(np.int64)), BundleShapeMismatch, "is int64"),
    ),
    "lora_A float64": ("cluster", numbers(ADAPTER_TENSORS, A, np.float64), BundleShapeMismatch, "is float64"),
    "half a pair": ("cluster", numbers(ADAPTER_TENSORS, A, lambda _: None), BundleShapeMismatch, "half a pair"),
    "a module that is not a target": (
        "cluster",
        numbers(ADAPTER_TENSORS, A.replace("q_proj", "lm_head"), lambda _: np.zeros((2, 6), np.float32)),
        *(BundleShapeMismatch, "lm_head.lora_A.weight is of none of the target modules"),
    ),
    "an adapted embedding": (
        "cluster",
        numbers(ADAPTER_TENSORS, "base_model.model.embed_tokens.lora_embedding_A", lambda _: np.zeros((2, 6))),
        *(BundleShapeMismatch, "none of the target modules"),
    ),
    "a target without tensors": (
        "cluster",
        lambda b: (
            values(MANIFEST, "weights", "target_modules", to=["q_proj", "v_proj"])(b),
            values(ADAPTER_CONFIG, "target_modules", to=["q_proj", "v_proj"])(b),
        ),
        *(BundleShapeMismatch, "nothing for v_proj"),
    ),
    "another rank than the manifest's": (
        *("cluster", values(MANIFEST, "weights", "rank", to=4), BundleShapeMismatch, "r is 2, the manifest has 4"),
    ),
    "another alpha than the manifest's": (
        *("cluster", values(ADAPTER_CONFIG, "lora_alpha", to=400), BundleShapeMismatch, "lora_alpha is 400"),
    ),
    "other modules than the manifest's": (
        *("cluster", values(ADAPTER_CONFIG, "target_modules", to=["k_proj"]), BundleShapeMismatch, "target_modules"),
    ),
    "a pattern for modules": (
        *("cluster", values(ADAPTER_CONFIG, "target_modules", to=".*"), BundleCorrupt, "target_modules"),
    ),
    "a bias": ("cluster", values(ADAPTER_CONFIG, "bias", to="all"), BundleCorrupt, "bias"),
    "another kind of PEFT": ("cluster", values(ADAPTER_CONFIG, "peft_type", to="IA3"), BundleCorrupt, "peft_type"),
    "an unknown field": ("cluster", values(ADAPTER_CONFIG, "use_magic", to=False), BundleCorrupt, "use_magic"),
    "a rank that is true": ("cluster", values(ADAPTER_CONFIG, "r", to=True), BundleCorrupt, "r: "),
    "an adapter config in lists": (
        "cluster",
        text(ADAPTER_CONFIG, lambda t: f"[{t}]"),
        BundleCorrupt,
        "not a JSON obj",
    ),
    # A bundle that carries its model.
    "merged weights nan": ("merged", numbers(WEIGHTS, "embed", one(np.nan)), BundleCorrupt, "embed has a number"),
    "merged weights of no shape": ("merged", header(WEIGHTS, "embed", shape=[50, 7]), BundleCorrupt, "its shape"),
    "a model of another width": ("merged", values(MODEL_CONFIG, "hidden_size", to=8), BundleShapeMismatch, "is 8"),
    "a model of another vocabulary": ("merged", values(MODEL_CONFIG, "vocab_size", to=8), BundleShapeMismatch, "is 8"),
    "no model": ("merged", lambda b: (b / WEIGHTS).unlink(), BundleCorrupt, "names no weights"),
    "both kinds of weights": (
        "merged",
        lambda b: (
            (b / "adapter").mkdir(),
            [(b / name).write_text("{}") for name in (ADAPTER_CONFIG, ADAPTER_TENSORS)],
        ),
        *(BundleCorrupt, "not of the kind of bundle"),
    ),
    # The bank.
    "slopes nan": ("cluster", numbers(TABLE, "slopes", one(np.nan)), BundleCorrupt, "not finite"),
    "slopes too large": ("cluster", numbers(TABLE, "slopes", one(1e300)), BundleCorrupt, "beyond 1e.06"),
    "slopes float32": ("cluster", numbers(TABLE, "slopes", np.float32), BundleShapeMismatch, "slopes is F32"),
    "no noise": ("cluster", numbers(TABLE, "likelihood", lambda t: t * [1, 0, 1, 1]), BundleCorrupt, "likelihood"),
    "no ties": ("cluster", numbers(TABLE, "likelihood", lambda t: np.append(t, 0.0)), BundleCorrupt, "likelihood"),
    "three numbers": ("cluster", numbers(TABLE, "likelihood", lambda t: t[:3]), BundleShapeMismatch, "3 numbers"),
    "six numbers": (
        "cluster",
        numbers(TABLE, "likelihood", lambda t: np.append(t, [1.0, 1.0])),
        BundleShapeMismatch,
        "6 numbers",
    ),
    "half a flag": (
        "cluster",
        numbers(TABLE, "likelihood", lambda t: t * [1, 1, 0, 0] + 0.5),
        BundleCorrupt,
        "likelihood",
    ),
    "no variance": ("cluster", numbers(TABLE, "covariance", lambda c: c * 0), BundleCorrupt, "covariance"),
    "a flat direction": (
        *("cluster", numbers(TABLE, "covariance", lambda c: c * 0 + 1), BundleCorrupt, "direction without variance"),
    ),
    "a bank that nothing announces": (
        "cluster",
        values(MANIFEST, "bank", to=None),
        BundleCorrupt,
        "bank.jsonl: not of",
    ),
    "a question too many": (
        *("cluster", text("bank.jsonl", lambda t: t + t.splitlines()[0] + "\n"), BundleShapeMismatch, "40 lines"),
    ),
    "a question of 300 kB": (
        *("cluster", text("bank.jsonl", lambda t: t.replace("q0", "q" * 300_000)), BundleCorrupt, "a line of more"),
    ),
    "a question with a key twice": (
        "cluster",
        text("bank.jsonl", lambda t: t.replace('"first"', '"second":"c","first"', 1)),
        *(BundleCorrupt, "bank.jsonl:1: .*given twice"),
    ),
    # The votes that codes were trained on.
    "trained votes out of order": (
        *("cluster", numbers(TRAINED_VOTES, "votes", lambda v: v[::-1]), BundleCorrupt, "not in ascending order"),
    ),
    "trained votes with a sign": (
        *(
            "cluster",
            numbers(TRAINED_VOTES, "votes", lambda v: v.astype(np.int64)),
            BundleShapeMismatch,
            "votes is I64",
        ),
    ),
    # The manifest.
    "an anchor beyond the vocabulary": (
        *("cluster", values(MANIFEST, "layout", "anchor", to=[99999999, -5]), BundleCorrupt, "not in the vocabulary"),
    ),
    "a bos that is negative": ("cluster", values(MANIFEST, "layout", "bos_id", to=-1), BundleCorrupt, "bos_id"),
    "n_users as a text": ("cluster", values(MANIFEST, "user_model", "n_users", to="3"), BundleCorrupt, "n_users"),
    "n_users of 2^60": ("cluster", values(MANIFEST, "user_model", "n_users", to=2**60), BundleCorrupt, "n_users"),
    "alpha infinite": ("cluster", text(MANIFEST, lambda t: t.replace("4.0", "1e999")), BundleCorrupt, "too large"),
    "alpha NaN": ("cluster", text(MANIFEST, lambda t: t.replace("4.0", "NaN")), BundleCorrupt, "NaN is no number"),
    "a rank of 10,000": ("cluster", values(MANIFEST, "weights", "rank", to=10_000), BundleCorrupt, "rank"),
    "a module named twice": (
        *("cluster", values(MANIFEST, "weights", "target_modules", to=["q_proj"] * 2), BundleCorrupt, "named twice"),
    ),
    "a name of two lines": ("cluster", values(MANIFEST, "base_model", "name", to="a\nb"), BundleCorrupt, "line breaks"),
    "created at no time": ("cluster", values(MANIFEST, "created", to="yesterday"), BundleCorrupt, "created"),
    "training of 1,000 levels": (
        "cluster",
        text(MANIFEST, lambda t: t.replace('"training": {', '"training": {"x": ' + "[" * 900 + "]" * 900 + ",")),
        *(BundleCorrupt, "nested more than 32 levels"),
    ),
    "training of 300 kB": (
        "cluster",
        values(MANIFEST, "training", "x", to="a" * 300_000),
        BundleCorrupt,
        "larger than",
    ),
    "half a surrogate": ("cluster", values(MANIFEST, "training", "x", to="\ud800"), BundleCorrupt, "surrogates"),
    "a key twice": ("cluster", text(MANIFEST, lambda t: t.replace("{", '{"created": "x",', 1)), BundleCorrupt, "twice"),
    "a file name that leads out": (
        *("cluster", values(MANIFEST, "files", "../x", to={"sha256": "a" * 64, "n_bytes": 1}), BundleCorrupt, "files"),
    ),
    "a manifest in UTF-16": (
        *("cluster", lambda b: (b / MANIFEST).write_text("{}", encoding="utf-16"), BundleCorrupt, "utf-8"),
    ),
    # Files.
    "a pickle": (
        "cluster",
        extra("adapter/adapter_model.bin"),
        BundleCorrupt,
        "adapter_model.bin: no file",
    ),
    "code": ("cluster", extra("adapter/modeling_evil.py"), BundleCorrupt, "modeling_evil.py: no file"),
    "code in the model": ("merged", extra("model/modeling_evil.py"), BundleCorrupt, "no file of a bundle"),
    "a hidden file": ("cluster", extra(".hidden"), BundleCorrupt, "hidden"),
    "a folder more": ("cluster", extra("extra/x.json"), BundleCorrupt, "extra/x.json: no file of a bundle"),
    "an empty folder": ("cluster", lambda b: (b / "extra").mkdir(), BundleCorrupt, "extra: not a regular file"),
    "a linked manifest": ("cluster", link(MANIFEST), BundleCorrupt, "manifest.json: not a regular file"),
    "linked users": ("cluster", link(USERS), BundleCorrupt, "users.safetensors: not a regular file"),
    "a linked adapter": ("cluster", link("adapter"), BundleCorrupt, "adapter: not a regular file"),
    "a linked model": ("merged", link("model"), BundleCorrupt, "model: not a regular file"),
    "a linked folder more": ("cluster", link("extra", to="/etc"), BundleCorrupt, "extra: not a regular file"),
    "a pipe": ("cluster", replaced(USERS, os.mkfifo), BundleCorrupt, "users.safetensors: not a regular file"),
    "a pipe as the manifest": ("cluster", replaced(MANIFEST, os.mkfifo), BundleCorrupt, "not a regular file"),
    "a device": (
        *("cluster", replaced(USERS, lambda f: f.symlink_to("/dev/zero")), BundleCorrupt, "not a regular file"),
    ),
    "a folder as a file": ("cluster", replaced(USERS, Path.mkdir), BundleCorrupt, "users.safetensors: not a regular"),
    "a folder as the manifest": ("cluster", replaced(MANIFEST, Path.mkdir), BundleCorrupt, "not a regular file"),
    "no basis": ("cluster", lambda b: (b / BASIS).unlink(), BundleCorrupt, "names no basis.safetensors"),
    "no adapter config": ("cluster", lambda b: (b / ADAPTER_CONFIG).unlink(), BundleCorrupt, "names no adapter/"),
    "no manifest": ("cluster", lambda b: (b / MANIFEST).unlink(), BundleMissing, "manifest.json"),
}
UNSEALED = (
    *("alpha infinite", "alpha NaN", "a key twice", "a file name that leads out"),
    *("training of 1,000 levels", "half a surrogate", "a manifest in UTF-16"),
)
"""Refused before a digest is looked at; to seal them would write them as others."""
