"""The training loop: a personalized preference loss, LoRA and user model learnt jointly. Reads top to bottom.

With several processes (accelerate launch) each takes its share of every batch. All of them draw the same batches and
apply the same summed gradients, so weights and users' rows stay equal without being sent.
"""

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import Tensor

from idiolect.trained_votes import TrainedVotes, digest
from idiolect_training.config import RunConfig
from idiolect_training.data.lines import some
from idiolect_training.data.preferences import Preference, index_users
from idiolect_training.data.split import split
from idiolect_training.demo_model import cache_dir
from idiolect_training.errors import BadPreference, CheckpointMismatch, Diverged
from idiolect_training.fit.batch import Pair, shuffled, tokenize
from idiolect_training.fit.checkpoint import load_checkpoint, read_trained_votes, save_checkpoint
from idiolect_training.fit.loss import mix, nll_loss, pair_margins, preference_loss, reply_lengths, tie_loss
from idiolect_training.fit.policy import Policy
from idiolect_training.fit.run_log import Curve
from idiolect_training.progress import Progress
from idiolect_training.users.cluster_start import cluster_logits, cluster_words

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.safetensors"
BEST = "best.safetensors"
RUN = "run.json"
USERS = "users.json"
EXPLODED = 20.0
"""A loss this many times that of the first step (or of 1, if that is more) ends the run."""


# In one piece, so that a run reads from top to bottom.
def fit(run: RunConfig, out: Path) -> Policy:  # noqa: C901
    """Train `run` into the folder `out`, resuming from its checkpoint if there is one.

    Raises BadPreference, BadRunConfig, BaseModelUnsupported, CheckpointMismatch, Diverged.
    """
    # 1. Data: who said what, and which row each user has.
    preferences, _ = run.data()
    user_rows = index_users(preferences)
    content = json.dumps([preference.model_dump() for preference in preferences])
    identity = run.portable() | {"train_sha256": hashlib.sha256(content.encode()).hexdigest()}

    # 2. Weights: base model frozen, one LoRA and the user model trained.
    chief = PartialState().is_main_process
    policy = Policy(run, len(user_rows), out if run.user_rows == "file" else None)
    layout = policy.layout
    watch = run.early_stop
    held: list[Preference] = []
    if watch is not None:
        # By another draw than the test's: with the same one, whoever is left is never held out.
        preferences, held = split(preferences, "prompt", watch.share, -1 - run.seed)
        held = [preference for preference in held if preference.kind != "tie"]
        if not held:
            raise BadPreference("early_stop: every vote that is held out is a tie: there is no choice to be predicted")
    limits = run.max_prompt_tokens, run.max_reply_tokens, run.bad_lines
    (preferences, pairs), (_, watched) = (
        tokenize(part, policy.tokenizer, layout, user_rows, *limits) for part in (preferences, held)
    )
    rows, weights = torch.tensor([pair.row for pair in pairs]), torch.tensor([pair.weight for pair in pairs])
    counts = torch.bincount(rows, weights, minlength=len(user_rows) + 1)
    if idle := [user_id for user_id, row in user_rows.items() if not counts[row]]:
        log.warning("%d users have no comparison left, and stay generic: %s", len(idle), some(idle))
    policy.rows.shrink(counts, run.prior)
    votes = np.array([digest(preference.user_id, *preference.answer) for preference in preferences], np.uint64)
    trained = np.zeros(len(votes), bool)
    lora, shared = policy.lora_parameters(), policy.user_parameters()
    optimizer = build_optimizer(run, policy)
    n_steps = run.epochs * -(-len(pairs) // run.batch_pairs)
    log.info(
        "%d pairs, %d users, %d steps, %d LoRA and %d shared user parameters, %d numbers per user",
        len(pairs), len(user_rows), n_steps,
        *(sum(p.numel() for p in ps.values()) for ps in (lora, shared)), policy.rows.width,
    )  # fmt: skip

    # 3. The reference, once it is proved to be the model's own, never changes: every pair is scored once, or not even
    # once if the cache has it.
    policy.prove(pairs)
    reference = policy.reference(pairs, 2 * run.batch_pairs)
    watched_reference = policy.reference(watched, 2 * run.batch_pairs)

    # 4. Steps. Every draw derives from the seed and the epoch or step, so a resumed run equals a straight one.
    done = 0
    if run.user_model.kind == "cluster" and run.user_model.start == "votes":
        trained[:] = True
    if (out / CHECKPOINT).is_file():
        done = load_checkpoint(out / CHECKPOINT, identity, lora | shared, policy.rows, optimizer)
        log.info("resumed at step %d", done)
    elif run.user_model.kind == "cluster" and run.user_model.start == "votes":
        clusters, cache = run.user_model.n_clusters, cache_dir() / "features.sqlite"
        logits = cluster_logits(preferences, user_rows, clusters, run.seed, run.model, cache)
        policy.rows.place(logits)
        policy.place_clusters(cluster_words(preferences, user_rows, logits, policy))
    # Only now: a refused run must leave the folder as it was.
    out.mkdir(parents=True, exist_ok=True)
    if chief:
        (out / RUN).write_text(json.dumps(identity, indent=2, sort_keys=True) + "\n")
        (out / USERS).write_text(json.dumps(user_rows, indent=2) + "\n")
    with (
        Curve(out, run.log_with if chief else (), done, chief) as curve,
        Progress("fit", n_steps, done) as progress,
    ):
        for step, batch in _batches(run, pairs):
            trained[_trained_places(run, batch, step)] = True
            if step <= done:
                continue
            if watch is not None and curve.stale(watch.patience):
                log.info("stopped early before step %d: best accuracy %.3f", step, curve.best)
                break
            began = time.monotonic()
            outcome, norm = train_step(run, policy, optimizer, batch, step, n_steps, reference, curve.first_loss)

            record = {
                "step": step,
                "loss": round(outcome.loss, 5),
                "nll": round(outcome.nll, 5),
                "accuracy": outcome.accuracy,
                "lora_grad_norm": round(norm, 4),
            }
            if watch is not None and (step % watch.every_steps == 0 or step == n_steps):
                record["held_out_accuracy"] = _accuracy(run, policy, watched, watched_reference)
                if chief and record["held_out_accuracy"] > curve.best:
                    save_checkpoint(out / BEST, step, identity, lora | shared, policy.rows, optimizer, votes[trained])
            n_tokens = sum(pair.n_tokens for pair in batch)
            curve.add(record, tokens_per_s=n_tokens / (time.monotonic() - began))
            progress.advance(n_tokens, loss=outcome.loss)
            if chief and (step % run.checkpoint_steps == 0 or step == n_steps):
                save_checkpoint(out / CHECKPOINT, step, identity, lora | shared, policy.rows, optimizer, votes[trained])
    PartialState().wait_for_everyone()
    if watch is not None:
        load_checkpoint(out / BEST, identity, lora | shared, policy.rows, None)
    policy.model.eval()
    return policy


def build_optimizer(run: RunConfig, policy: Policy) -> torch.optim.Optimizer:
    """AdamW over LoRA and the embeddings that users share; their own rows are updated by themselves."""
    lora, shared = list(policy.lora_parameters().values()), list(policy.user_parameters().values())
    groups = [{"params": lora, "lr": run.lora_lr}, {"params": shared, "lr": run.user_lr}]
    return torch.optim.AdamW(groups, weight_decay=0.0)


def train_step(
    run: RunConfig,
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    batch: Sequence[Pair],
    step: int,
    n_steps: int,
    reference: Tensor,
    first_loss: float | None,
) -> tuple["_Outcome", float]:
    """One update of LoRA, shared embeddings and the batch's rows: what happened, and the norm of the LoRA gradient.

    `reference` [n, 2] is that of all training pairs. Raises Diverged.
    """
    scale = _schedule(step, n_steps, run.warmup_steps)
    for group, lr in zip(optimizer.param_groups, (run.lora_lr, run.user_lr), strict=True):
        group["lr"] = lr * scale
    outcome = _step(run, policy, batch, step, reference)
    norm = torch.nn.utils.clip_grad_norm_(policy.lora_parameters().values(), 1.0)
    shared = [parameter.grad.sum() for parameter in policy.user_parameters().values()]
    _check(outcome, [norm, *shared], step, first_loss or outcome.loss)
    optimizer.step()
    policy.rows.update(outcome.rows, outcome.row_gradient, run.row_lr * scale)
    return outcome, float(norm)


@dataclass(frozen=True)
class _Outcome:
    """What one batch gave, summed over its terms and processes: the gradients of shared weights are in place."""

    loss: float
    nll: float
    accuracy: float
    rows: Tensor
    """Distinct user rows of the batch, [U]."""
    row_gradient: Tensor
    """[U, width]."""


def _step(run: RunConfig, policy: Policy, batch: Sequence[Pair], step: int, reference: Tensor) -> _Outcome:
    """Forward and backward over this process's terms of the batch, a micro-batch at a time."""
    state = PartialState()
    places, term_rows, weights = _terms(run, batch, step)
    weights = weights * torch.tensor([pair.weight for pair in batch])[places]
    chosen = (weights * ~torch.tensor([pair.tied for pair in batch])[places]).sum().clamp(min=1e-9)
    distinct, where = term_rows.unique(return_inverse=True)
    leaf = policy.rows.gather(distinct).to(policy.device).requires_grad_()
    shared = [*policy.lora_parameters().values(), *policy.user_parameters().values()]
    for parameter in shared:
        parameter.grad = torch.zeros_like(parameter)
    policy.model.train()

    sums = torch.zeros(3, device=policy.device)  # loss, nll, pairs that rank right
    mine = torch.arange(len(places))[state.process_index :: state.num_processes]
    for micro in mine.split(run.micro_batch_pairs or len(places)):
        pairs = [batch[place] for place in places[micro]]
        here, weight = where[micro].to(policy.device), weights[micro].to(policy.device)
        logps = policy.pair_logps(pairs, policy.users(leaf[here]))
        margin = pair_margins(run, pairs, logps, reference[[pair.index for pair in pairs]].to(policy.device))
        tied = torch.tensor([pair.tied for pair in pairs], device=policy.device)
        # Of a tie nobody said that either reply is good.
        nll = nll_loss(logps[:, 0], reply_lengths(pairs)[:, 0].to(policy.device)) * ~tied
        choice = preference_loss(margin, run.objective, run.beta, run.label_smoothing)
        loss = torch.where(tied, tie_loss(margin, run.beta), choice) + run.nll_weight * nll
        total = (weight * loss).sum() / len(batch)
        total.backward()
        with torch.no_grad():
            sums += torch.stack(
                [total, (weight * nll).sum() / len(batch), (weight * (margin > 0) * ~tied).sum() / chosen]
            )
    gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
    if state.num_processes > 1:
        for parameter in shared:
            parameter.grad = reduce(parameter.grad, "sum")
        gradient, sums = reduce(gradient, "sum"), reduce(sums, "sum")
    loss_sum, nll_sum, n_right = sums.tolist()
    return _Outcome(loss_sum, nll_sum, round(n_right, 5), distinct, gradient.cpu())


def _terms(run: RunConfig, batch: Sequence[Pair], step: int) -> tuple[Tensor, Tensor, Tensor]:
    """What `mix` makes of a step's batch."""
    draw = torch.Generator().manual_seed(-1_000_003 * run.seed - step) if run.alpha_mix == "draw" else None
    return mix(torch.tensor([pair.row for pair in batch]), run.alpha, draw)


def _trained_places(run: RunConfig, batch: Sequence[Pair], step: int) -> list[int]:
    """Places, among all training pairs, of those that train their user's own row in a step, not the generic one."""
    places, rows, _ = _terms(run, batch, step)
    return [batch[place].index for place in places[rows > 0].tolist()]


def _check(outcome: _Outcome, gradients: Sequence[Tensor], step: int, first_loss: float) -> None:
    """Raises Diverged before a bad step touches a weight, so that the last checkpoint stays good."""
    finite = bool(torch.isfinite(torch.stack(list(gradients))).all() and torch.isfinite(outcome.row_gradient).all())
    if not finite or not outcome.loss <= EXPLODED * max(1.0, first_loss):  # a NaN loss is not
        raise Diverged(
            f"loss is {outcome.loss:g} at step {step}, {first_loss:g} at the first"
            + ("" if finite else "; a gradient is not finite"),
            hint="lower the learning rates; the checkpoint before is kept",
        )


def restore(run: RunConfig, out: Path) -> tuple[Policy, dict[str, int]]:
    """The trained policy and user rows of a run folder, for `evaluate` and `export`. Raises CheckpointMismatch."""
    try:
        user_rows: dict[str, int] = json.loads((out / USERS).read_text())
        train_sha256 = json.loads((out / RUN).read_text())["train_sha256"]
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointMismatch(f"{out}: not a run folder: {error}", hint="run fit first") from error
    policy = Policy(run, len(user_rows), out if run.user_rows == "file" else None)
    identity = run.portable() | {"train_sha256": train_sha256}
    load_checkpoint(_kept(run, out), identity, policy.lora_parameters() | policy.user_parameters(), policy.rows, None)
    policy.model.eval()
    return policy, user_rows


def trained_votes(run: RunConfig, out: Path) -> TrainedVotes | None:
    """The votes that trained the user codes of a run folder: not those that were held out, or drawn for the generic
    user alone. None where there are none, or an earlier version trained.
    """
    return read_trained_votes(_kept(run, out))


def _kept(run: RunConfig, out: Path) -> Path:
    """The checkpoint that is evaluated and exported."""
    return out / (CHECKPOINT if run.early_stop is None else BEST)


def _batches(run: RunConfig, pairs: Sequence[Pair]) -> Iterator[tuple[int, list[Pair]]]:
    """(step, batch) of the whole run, steps from 1."""
    step = 0
    for epoch in range(run.epochs):
        order = torch.Generator().manual_seed(1_000_003 * run.seed + epoch)
        for batch in shuffled(pairs, run.batch_pairs, order):
            step += 1
            yield step, batch


def _accuracy(run: RunConfig, policy: Policy, pairs: Sequence[Pair], reference: Tensor) -> float:
    """Share of pairs whose owner's tokens rank `chosen` higher."""
    policy.model.eval()
    logps = policy.score(pairs, [pair.row for pair in pairs], 2 * run.batch_pairs, "held out")
    return round(float((pair_margins(run, pairs, logps, reference) > 0).float().mean()), 5)


def _schedule(step: int, n_steps: int, warmup_steps: int) -> float:
    """Linear warm-up, then linear decay to a tenth."""
    if step <= warmup_steps:
        return step / warmup_steps
    return 1.0 - 0.9 * (step - warmup_steps) / max(1, n_steps - warmup_steps)
