"""A tiny random model with the demo model's tokenizer, for tests in which the weights do not matter."""

import json
import shutil
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from idiolect.bundle import Bundle
from idiolect_training.config import RunConfig
from idiolect_training.export.bundle import export
from idiolect_training.fit.loop import fit
from idiolect_training.fit.policy import Policy


def tiny_model(path: Path, tokenizer_from: Path, hidden_size: int = 16) -> Path:
    """`hidden_size` of at least 64 makes heads that vLLM has kernels for."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=hidden_size,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    for file in tokenizer_from.iterdir():
        if file.name.startswith(("tokenizer", "chat_template", "special_tokens")):
            shutil.copy(file, path / file.name)
    return path


def tiny_run(folder: Path, model: Path, **changes: object) -> RunConfig:
    """Two users who want opposite things of six prompts."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(6):
        yes, no = f"yes {number}", f"no way {number} at all"
        rows.append({"user_id": "short", "prompt": f"Question {number}?", "chosen": yes, "rejected": no})
        rows.append({"user_id": "long", "prompt": f"Question {number}?", "chosen": no, "rejected": yes})
    data = folder / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {
        "train": data,
        "test": data,
        "model": str(model),
        "user_model": {"kind": "individual", "n_user_tokens": 2},
        "lora": {"rank": 2, "alpha": 4},
        "alpha": 0.7,
        "lora_lr": 1e-2,
        "user_lr": 5e-2,
        "row_lr": 5e-2,
        "log_with": (),
        "epochs": 2,
        "batch_pairs": 4,
        "warmup_steps": 1,
        "checkpoint_steps": 2,
    }
    return RunConfig.model_validate(values | changes)


USERS = {"long": 1, "short": 2}


def tiny_bundle(folder: Path, tokenizer_from: Path) -> tuple[Bundle, Path, Policy]:
    """A bundle of cluster users with a question bank, which vLLM can serve; its base model, and its policy."""
    model = tiny_model(folder / "model", tokenizer_from, hidden_size=64)
    user_model = {"kind": "cluster", "n_user_tokens": 2, "n_clusters": 3}
    changes = {"epochs": 15, "beta": 1.0, "row_lr": 0.2, "bank": {"n_questions": 4}}
    changes |= {"cluster_names": ("brief", "plain", "chatty")}
    run = tiny_run(folder / "run", model, user_model=user_model, **changes)
    policy = fit(run, folder / "out")
    return export(run, policy, USERS, folder / "bundle"), model, policy
