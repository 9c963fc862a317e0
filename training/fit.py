"""The training loop: P-DPO with LoRA and user tokens learnt jointly. Reads top to bottom."""

import hashlib
import json
import logging
import time
from pathlib import Path

import torch
from tqdm import tqdm

from training.batch import chat_layout, shuffled, tokenize
from training.checkpoint import load_checkpoint, save_checkpoint
from training.config import RunConfig
from training.errors import NonFiniteLoss
from training.loss import dpo_loss, draw_rows, margins, nll_loss
from training.policy import Policy
from training.preferences import index_users, read_preferences

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.safetensors"
RUN = "run.json"
USERS = "users.json"
LOG = "log.jsonl"


def fit(run: RunConfig, out: Path) -> Policy:
    """Train `run` into the folder `out`, resuming from its checkpoint if there is one.

    Raises BadPreference, CheckpointMismatch, NonFiniteLoss.
    """
    # 1. Data: who said what, and which row each user has.
    preferences = read_preferences(run.train)
    user_rows = index_users(preferences)
    identity = run.portable() | {"train_sha256": hashlib.sha256(run.train.read_bytes()).hexdigest()}

    # 2. Weights: base model frozen, one LoRA and the user table trained.
    policy = Policy(run, n_users=len(user_rows))
    layout = chat_layout(policy.tokenizer, run.placement)
    pairs = tokenize(preferences, policy.tokenizer, layout, user_rows, run.max_prompt_tokens, run.max_reply_tokens)
    lora, users = policy.lora_parameters(), policy.user_parameters()
    parameters = lora | users
    optimizer = torch.optim.AdamW(
        [
            {"params": list(lora.values()), "lr": run.lora_lr},
            {"params": list(users.values()), "lr": run.user_lr},
        ],
        weight_decay=0.0,
    )
    n_steps = run.epochs * -(-len(pairs) // run.batch_pairs)
    base_lrs = [group["lr"] for group in optimizer.param_groups]
    log.info(
        "%d pairs, %d users, %d steps, %d LoRA and %d user parameters",
        len(pairs), len(user_rows), n_steps, *(sum(p.numel() for p in ps.values()) for ps in (lora, users)),
    )  # fmt: skip

    # 3. The reference never changes: score every pair once.
    reference = policy.score(pairs, None, 2 * run.batch_pairs, "reference")

    # 4. Steps. Every draw derives from the seed and the epoch or step, so a resumed run equals a straight one.
    done = 0
    checkpoint = out / CHECKPOINT
    if checkpoint.is_file():
        done = load_checkpoint(checkpoint, identity, parameters, optimizer)
        log.info("resumed at step %d", done)
    # Only now: a refused run must leave the folder as it was.
    out.mkdir(parents=True, exist_ok=True)
    (out / RUN).write_text(json.dumps(identity, indent=2, sort_keys=True) + "\n")
    (out / USERS).write_text(json.dumps(user_rows, indent=2) + "\n")
    policy.model.train()
    step, began = 0, time.monotonic()
    bar = tqdm(total=n_steps, initial=done, desc="fit")
    with (out / LOG).open("a") as lines:
        for epoch in range(run.epochs):
            order = torch.Generator().manual_seed(1_000_003 * run.seed + epoch)
            for batch in shuffled(pairs, run.batch_pairs, order):
                step += 1
                if step <= done:
                    continue
                scale = _schedule(step, n_steps, run.warmup_steps)
                for group, lr in zip(optimizer.param_groups, base_lrs, strict=True):
                    group["lr"] = lr * scale

                draw = torch.Generator().manual_seed(-1_000_003 * run.seed - step)
                rows = draw_rows(torch.tensor([pair.row for pair in batch]), run.alpha, draw)
                ref = reference[[pair.index for pair in batch]].to(policy.device)
                chosen, rejected = policy.pair_logps(batch, rows)
                margin = margins(chosen, rejected, ref[:, 0], ref[:, 1])
                n_chosen = torch.tensor([len(pair.chosen_ids) for pair in batch], device=policy.device)
                nll = nll_loss(chosen, n_chosen)
                loss = dpo_loss(margin, run.beta) + run.nll_weight * nll
                if not torch.isfinite(loss):
                    raise NonFiniteLoss(f"loss is {loss.item()} at step {step}", hint="lower the learning rates")
                optimizer.zero_grad()
                loss.backward()
                norm = torch.nn.utils.clip_grad_norm_(lora.values(), 1.0)
                optimizer.step()

                bar.update()
                bar.set_postfix(loss=f"{loss.item():.3f}")
                record = {
                    "step": step,
                    "loss": round(loss.item(), 5),
                    "nll": round(nll.item(), 5),
                    "accuracy": float((margin > 0).float().mean()),
                    "lora_grad_norm": round(float(norm), 4),
                    "elapsed_s": round(time.monotonic() - began, 1),
                }
                lines.write(json.dumps(record) + "\n")
                lines.flush()
                if step % run.checkpoint_steps == 0 or step == n_steps:
                    save_checkpoint(checkpoint, step, identity, parameters, optimizer)
    bar.close()
    policy.model.eval()
    return policy


def restore(run: RunConfig, out: Path) -> tuple[Policy, dict[str, int]]:
    """The trained policy and user rows of a run folder, for `evaluate` and `export`."""
    user_rows: dict[str, int] = json.loads((out / USERS).read_text())
    policy = Policy(run, n_users=len(user_rows))
    parameters = policy.lora_parameters() | policy.user_parameters()
    identity = run.portable() | {"train_sha256": json.loads((out / RUN).read_text())["train_sha256"]}
    load_checkpoint(out / CHECKPOINT, identity, parameters, None)
    policy.model.eval()
    return policy, user_rows


def _schedule(step: int, n_steps: int, warmup_steps: int) -> float:
    """Linear warm-up, then linear decay to a tenth."""
    if step <= warmup_steps:
        return step / warmup_steps
    return 1.0 - 0.9 * (step - warmup_steps) / max(1, n_steps - warmup_steps)
