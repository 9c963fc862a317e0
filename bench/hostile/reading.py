"""What other readers say of a bundle that ours has taken: Python's json, safetensors' own library, plain arithmetic.

A change that is taken is harmless by these rules, not by a list: both readers read the same; the bundle has another id
exactly when something of it is another that replies depend on; and every user's tokens, and what the adapter adds, are
finite numbers of float16.
"""

import json
from itertools import pairwise
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from idiolect.bundle import Bundle
from idiolect.files.folder import ADAPTER_CONFIG, ADAPTER_TENSORS, BASIS, TABLE, TRAINED_VOTES, USERS
from idiolect.votes import Votes

FOR_PEOPLE = ("created", "training", "cluster_names", "also_serves")
SEALS = ("digest", "bundle_id")


def harm(taken: Bundle, original: Bundle) -> str:
    """What is wrong with a changed bundle that `Bundle.read` has taken; empty when nothing is."""
    ours = json.loads(taken.manifest.model_dump_json())
    theirs = json.loads((taken.path / "manifest.json").read_bytes())
    if theirs.get("decoding") is not None:
        theirs["decoding"] = {"frequency_penalty": 0.0} | theirs["decoding"]
    if _stated(ours) != _stated(_without(theirs, set(SEALS))):
        return "the manifest reads otherwise"
    before = json.loads(original.manifest.model_dump_json())
    same = _without(ours, set(FOR_PEOPLE)) == _without(before, set(FOR_PEOPLE))
    if (taken.bundle_id == original.bundle_id) != same:
        return "the id does not tell what is different"
    return _of_tensors(taken) or _of_numbers(taken)


def _stated(value: Any) -> Any:
    """Without what is null, which may as well be absent."""
    if isinstance(value, dict):
        return {name: _stated(each) for name, each in value.items() if each is not None}
    return [_stated(each) for each in value] if isinstance(value, list) else value


def _without(values: dict[str, object], names: set[str]) -> dict[str, object]:
    return {name: value for name, value in values.items() if name not in names}


def _of_tensors(taken: Bundle) -> str:
    """Whether safetensors' library reads the same tensors."""
    model = taken.user_model
    basis, users = load_file(taken.path / BASIS), load_file(taken.path / USERS)
    pairs: list[tuple[Any, Any]] = [
        (basis["basis"], model.basis),
        (basis["generic_code"], model.generic_code),
        (users["codes"], taken.codes),
    ]
    offsets, names = users["id_offsets"], users["id_bytes"].tobytes()
    ids = [names[a:b].decode() for a, b in pairwise(offsets)]
    if taken.bank is not None:
        table = load_file(taken.path / TABLE)
        pairs += [(table[name], getattr(taken.bank, name)) for name in ("slopes", "offsets", "mean", "covariance")]
    if taken.trained_votes is not None:
        pairs += [(load_file(taken.path / TRAINED_VOTES)["votes"], taken.trained_votes.digests)]
    if taken.adapter_path is not None:
        adapter, ours = load_file(taken.path / ADAPTER_TENSORS), taken.adapter()
        pairs += [(adapter[name], ours[name]) for name in adapter]
    same = all(a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b) for a, b in pairs)
    return "" if same and ids == list(taken.user_ids) else "the tensors read otherwise"


def _of_numbers(taken: Bundle) -> str:
    """Whether all that the engine is given is finite in float16."""
    model, bank = taken.user_model, taken.bank
    codes = [model.generic_code, *taken.codes]
    if bank is not None:
        codes.append(bank.code(model, bank.prior(model).infer(bank.table, bank.likelihood)))
        codes.append(bank.code(model, bank.prior(model).infer(Votes.none(len(bank.mean)), bank.likelihood)))
    for code in codes:
        tokens = model.user_tokens(code)
        if tokens.shape != (model.n_user_tokens, taken.manifest.base_model.hidden_size) or not _fits(tokens):
            return "a user's tokens are not finite in float16"
    if taken.manifest.weights.kind == "adapter":
        config = json.loads((taken.path / ADAPTER_CONFIG).read_bytes())
        adapter = taken.adapter()
        for name, a in adapter.items():
            if ".lora_A." in name:
                added = adapter[name.replace(".lora_A.", ".lora_B.")].astype(np.float64) @ a
                if not _fits(config["lora_alpha"] / config["r"] * added):
                    return "the adapter adds what is not finite in float16"
    return ""


def _fits(numbers: np.ndarray) -> bool:
    with np.errstate(over="ignore"):
        return bool(np.isfinite(numbers.astype(np.float16)).all())
