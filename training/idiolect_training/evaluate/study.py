"""Several methods, several seeds, and always a pooled baseline with as many updates beside them.

`idiolect study RUN.yaml [RUN.yaml ...]`: a method is a run file, named by it. What is done is not
done again, so an interrupted study goes on where it was.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from idiolect_training.config import RunConfig, upgraded
from idiolect_training.errors import CheckpointMismatch, NotEvaluated
from idiolect_training.evaluate.evaluate import evaluate
from idiolect_training.evaluate.report import summary, write_report
from idiolect_training.fit.loop import RUN, fit, restore
from idiolect_training.fit.policy import Policy
from idiolect_training.fit.run_log import read_curve

log = logging.getLogger(__name__)

EVALUATION = "evaluation.json"
REPLIES = "replies.jsonl"
STUDY = "study.json"
POOLED = "pooled"

Evaluation = dict[str, Any]


def write_evaluation(run: RunConfig, out: Path, policy: Policy, user_rows: dict[str, int]) -> Evaluation:
    """evaluation.json in the run folder, and replies.jsonl if the run wants replies."""
    evaluation, replies = evaluate(run, policy, user_rows)
    if replies:
        lines = (json.dumps(asdict(reply), ensure_ascii=False) for reply in replies)
        (out / REPLIES).write_text("".join(f"{line}\n" for line in lines))
    (out / EVALUATION).write_text(json.dumps(evaluation, indent=2) + "\n")
    return evaluation


def read_evaluation(out: Path) -> Evaluation:
    """What `write_evaluation` wrote. Raises NotEvaluated."""
    try:
        evaluation: Evaluation = json.loads((out / EVALUATION).read_text())
    except (OSError, ValueError) as error:
        raise NotEvaluated(f"{out / EVALUATION}: {error}", hint="run `evaluate` first") from error
    return evaluation


def measure(run: RunConfig, out: Path) -> Evaluation:
    """Fit `run` into the folder `out` and evaluate it, unless that is done.

    Raises as `fit` does, and CheckpointMismatch when what is done there is another run.
    """
    if (out / EVALUATION).is_file():
        done = upgraded(json.loads((out / RUN).read_text()))
        if any(done.get(name) != value for name, value in run.portable().items()):
            raise CheckpointMismatch(f"{out} holds the evaluation of another run", hint="use a new --out folder")
        return read_evaluation(out)
    fit(run, out)
    return write_evaluation(run, out, *restore(run, out))


def study(methods: Mapping[str, RunConfig], seeds: Sequence[int], out: Path, title: str) -> dict[str, list[Evaluation]]:
    """Evaluations of each method with each seed. Runs are kept at `out`/METHOD-SEED, the report is written to `out`.

    Unless one of the methods is called so, `pooled` is the first method's baseline.
    """
    first = next(iter(methods.values()))
    every = {**methods} if POOLED in methods else {**methods, POOLED: first.pooled()}
    found: dict[str, list[Evaluation]] = {name: [] for name in every}
    for seed in seeds:
        for name, run in every.items():
            log.info("%s, seed %d", name, seed)
            found[name].append(measure(run.model_copy(update={"seed": seed}), out / f"{name}-{seed}"))
    (out / STUDY).write_text(json.dumps(summary(found), indent=2) + "\n")
    curves = {name: [read_curve(out / f"{name}-{seed}") for seed in seeds] for name in every}
    write_report(found, curves, out, title)
    return found
