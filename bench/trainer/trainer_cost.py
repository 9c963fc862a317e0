"""make trainer-cost (B6): what a million users cost the trainer, and its speed beside TRL's DPOTrainer.

Step time with 1,000,000 users over 10, and tokens per second over TRL's, are ratios of neighbouring measurements in one
process, taken in turns (A B A B). Memory is what a fresh process grows by. Writes
docs/results/trainer_cost.{json,png,svg} and line B6.
"""

import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from bench.learning.attribute_users import COMMON, write_data
from bench.results import provenance, record
from idiolect_training.config import RunConfig
from idiolect_training.evaluate.report import save
from idiolect_training.export.bundle import export
from idiolect_training.fit.batch import Pair, shuffled, tokenize
from idiolect_training.fit.loop import build_optimizer, train_step
from idiolect_training.fit.policy import Policy
from idiolect_training.users.user_rows import Rows
from tests.live import ROOT

RUNS = ROOT / "runs" / "trainer_cost"
OUT = ROOT / "docs" / "results"
COMMAND = "make trainer-cost"
FEW, MANY = 10, 1_000_000
BATCH_PAIRS = 8
STEPS = 2
"""Of one call of TRL's trainer, and as many of ours beside it."""
PAIRED_STEPS, PAIRED_CALLS = 21, 5
MODELS: dict[str, dict[str, Any]] = {
    "cluster": {"kind": "cluster", "n_user_tokens": 4, "n_clusters": 16},
    "individual": {"kind": "individual", "n_user_tokens": 4},
}
Timed = Callable[[], float]
"""Does the same work as its rival, and says how many seconds it took."""


def paired(one: Timed, other: Timed, rounds: int) -> dict[str, Any]:
    """Ratios one / other of seconds, in turns, each first in every second round; the first round warms up."""
    ratios = []
    for number in range(rounds + 1):
        if number % 2:
            first, second = one(), other()
        else:
            second, first = other(), one()
        if number:
            ratios.append(first / second)
    return {"median": round(median(ratios), 4), "rounds": [round(ratio, 4) for ratio in ratios]}


def our_step(run: RunConfig, n_users: int) -> tuple[Timed, list[Pair]]:
    """An update for pairs of users drawn from all `n_users`; prompts and replies are always the same."""
    preferences, _ = run.data()
    policy = Policy(run, n_users)
    layout = policy.layout
    rng = np.random.default_rng(0)
    _, pairs = tokenize(preferences, policy.tokenizer, layout, {}, run.max_prompt_tokens, run.max_reply_tokens)
    pairs = [replace(pair, row=int(rng.integers(1, n_users + 1))) for pair in pairs]
    reference = policy.reference(pairs, BATCH_PAIRS)
    optimizer = build_optimizer(run, policy)
    batches = list(shuffled(pairs, BATCH_PAIRS, torch.Generator().manual_seed(0)))[:STEPS]
    turns = enumerate(itertools.cycle(batches), start=1)

    def step() -> float:
        number, batch = next(turns)
        began = time.perf_counter()
        train_step(run, policy, optimizer, batch, number, 1000, reference, None)
        return time.perf_counter() - began

    return step, [pair for batch in batches for pair in batch]


def trl_steps(run: RunConfig, pairs: Sequence[Pair], folder: Path) -> Timed:
    """The same batches through TRL's DPOTrainer: same LoRA, precision and reference log-probabilities known before."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    from idiolect_training.demo_model import demo_model

    tokenizer = AutoTokenizer.from_pretrained(demo_model())
    text = {
        "prompt": [tokenizer.decode(pair.prompt_ids) for pair in pairs],
        # TRL adds the end-of-turn token itself.
        "chosen": [tokenizer.decode(pair.chosen_ids[:-1]) for pair in pairs],
        "rejected": [tokenizer.decode(pair.rejected_ids[:-1]) for pair in pairs],
    }
    lora = LoraConfig(
        r=run.lora.rank,
        lora_alpha=run.lora.alpha,
        target_modules=list(run.lora.target_modules),
        task_type="CAUSAL_LM",
    )

    class Clock(TrainerCallback):  # type: ignore[misc]
        seconds = 0.0
        began = 0.0

        def on_step_begin(self, *_: object, **__: object) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *_: object, **__: object) -> None:
            self.seconds += time.perf_counter() - self.began

    clock = Clock()
    config = DPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=BATCH_PAIRS,
        max_steps=STEPS,
        max_length=run.max_prompt_tokens + run.max_reply_tokens,
        precompute_ref_log_probs=True,
        use_cpu=not torch.cuda.is_available(),
        bf16=False,
        fp16=False,
        gradient_checkpointing=False,
        beta=run.beta,
        learning_rate=run.lora_lr,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
        # The batches keep the order in which ours come: like lengths together.
        train_sampling_strategy="sequential",
    )
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(demo_model(), dtype=torch.float32),
        args=config,
        train_dataset=Dataset.from_dict(text),
        processing_class=tokenizer,
        peft_config=lora,
        callbacks=[clock],
    )

    def steps() -> float:
        before = clock.seconds
        trainer.train()
        return clock.seconds - before

    return steps


def grown_mib(n_users: int, n_touched: int, width: int) -> float:
    """Growth in MiB of a fresh process's resident memory, when `n_touched` of `n_users` rows are trained."""
    code = f"from bench.trainer.trainer_cost import touch; touch({n_users}, {n_touched}, {width})"
    return float(subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True))


def touch(n_users: int, n_touched: int, width: int) -> None:
    """In the fresh process: prints the growth."""

    def resident_kib() -> int:
        # Not the peak: that of the imports is higher than all that follows.
        (line,) = (row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmRSS"))
        return int(line.split()[1])

    Rows(100, width).update(torch.tensor([1, 2]), torch.ones(2, width), 0.1)  # what the code itself needs
    before = resident_kib()
    rows = Rows(n_users, width)
    chosen = torch.from_numpy(1 + np.random.default_rng(0).choice(n_users, n_touched, replace=False))
    for part in chosen.split(BATCH_PAIRS):
        rows.update(part, torch.ones(len(part), width), 0.1)
    sys.stdout.write(f"{(resident_kib() - before) / 1024:.1f}")


def export_seconds(run: RunConfig) -> float:
    """A bundle with the codes of a million trained users, from the run in memory to the folder on disk."""
    policy = Policy(run, MANY)
    policy.rows.values[1:].normal_()
    user_rows = {f"user-{number}": number for number in range(1, MANY + 1)}
    with tempfile.TemporaryDirectory(dir=RUNS) as folder:
        began = time.perf_counter()
        export(run, policy, user_rows, Path(folder) / "bundle")
        return round(time.perf_counter() - began, 1)


def main() -> None:
    data = write_data(RUNS)
    settings = COMMON | data | {"batch_pairs": BATCH_PAIRS, "log_with": ()}
    runs = {name: RunConfig.model_validate(settings | {"user_model": model}) for name, model in MODELS.items()}
    torch.manual_seed(0)
    users = {}
    for name, run in runs.items():
        (many, _), (few, pairs) = our_step(run, MANY), our_step(run, FEW)
        users[name] = paired(many, few, PAIRED_STEPS)
        sys.stderr.write(f"{name}: {users[name]}\n")
    ours, pairs = our_step(runs["individual"], MANY)
    theirs = trl_steps(runs["individual"], pairs, RUNS / "trl")
    speed = paired(theirs, lambda: sum(ours() for _ in range(STEPS)), PAIRED_CALLS)
    n_tokens = sum(pair.n_tokens for pair in pairs)
    width = 4 * 576
    memory = {
        f"{n_users} users, {n_touched} touched": grown_mib(n_users, n_touched, width)
        for n_users in (10_000, 100_000, 1_000_000)
        for n_touched in (1_000, 4_000)
    }
    result: dict[str, Any] = {
        "seconds_a_step_1m_over_10_users": users,
        "tokens_a_second_over_trl": speed,
        "trl": {"version": __import__("trl").__version__, "pairs": len(pairs), "tokens_of_pairs": n_tokens},
        "resident_growth_mib": memory,
        "numbers_a_user": width,
        "export_1m_users_s": export_seconds(runs["cluster"]),
        **provenance(COMMAND),
    }
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "trainer_cost.json").write_text(json.dumps(result, indent=2) + "\n")
    draw(result)
    value = {
        "seconds_a_step_1m_over_10_users": {name: ratio["median"] for name, ratio in users.items()},
        "tokens_a_second_over_trl": speed["median"],
        "resident_growth_mib": memory,
        "export_1m_users_s": result["export_1m_users_s"],
    }
    record("B6", value)
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def draw(result: dict[str, Any]) -> None:
    figure = Figure(figsize=(9, 3.4))
    left, right = figure.subplots(1, 2)
    ratios = {f"1 M over 10 users,\n{name}": ratio for name, ratio in result["seconds_a_step_1m_over_10_users"].items()}
    ratios["TRL over ours"] = result["tokens_a_second_over_trl"]
    left.boxplot([ratio["rounds"] for ratio in ratios.values()], tick_labels=list(ratios), whis=(0, 100))
    left.axhline(1, color="grey", lw=0.8)
    left.set_ylabel("seconds per step, ratio")
    left.tick_params(axis="x", labelsize=8)
    grown = result["resident_growth_mib"]
    right.bar(range(len(grown)), list(grown.values()))
    right.set_xticks(range(len(grown)), [name.replace(", ", "\n") for name in grown], fontsize=6)
    right.set_ylabel("growth of resident memory, MiB")
    save(figure, OUT / "trainer_cost")


if __name__ == "__main__":
    main()
