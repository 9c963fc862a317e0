"""What a run file can be asked for: to be trained, evaluated, exported, studied with others, or judged.

Each takes the run file and the run's folder `out`, runs/NAME unless given; `alpha` overrides the run's. Results are
files, and lines in the log. Raises IdiolectError. torch is imported only once the run can begin.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idiolect_training.config import RunConfig
from idiolect_training.errors import BadRunConfig

if TYPE_CHECKING:
    from idiolect_training.fit.policy import Policy

log = logging.getLogger(__name__)

SHOWN_USERS = 12
"""An evaluation of more is logged without its users."""


def train(file: Path, out: Path | None, bundle: Path | None, alpha: float | None, allow_loops: bool) -> None:
    """From data to a checked bundle; what is done already is not done again."""
    run, out = _read(file, out, alpha)
    check_files(run)
    from accelerate import PartialState

    from idiolect_training.fit.loop import fit, restore

    fit(run, out)
    if PartialState().is_main_process:
        policy, user_rows = restore(run, out)
        _evaluate(run, out, policy, user_rows)
        _export(run, out, policy, user_rows, bundle, allow_loops)


def evaluate(file: Path, out: Path | None, alpha: float | None) -> None:
    """evaluation.json of a trained run."""
    run, out = _read(file, out, alpha)
    check_files(run)
    from idiolect_training.fit.loop import restore

    _evaluate(run, out, *restore(run, out))


def export(file: Path, out: Path | None, bundle: Path | None, alpha: float | None, allow_loops: bool) -> None:
    """The bundle of an evaluated run. Raises LoopingReplies unless `allow_loops`."""
    run, out = _read(file, out, alpha)
    from idiolect_training.fit.loop import restore

    _export(run, out, *restore(run, out), bundle, allow_loops)


def study(files: Sequence[Path], out: Path | None, n_seeds: int) -> None:
    """Each run file is a method, named by it; report.md."""
    methods = {file.stem: RunConfig.read(file) for file in files}
    for run in methods.values():
        check_files(run)
    from idiolect_training.evaluate import study as studies

    out = out or Path("runs") / f"{files[0].stem}-study"
    studies.study(methods, range(n_seeds), out, title=out.name)
    log.info("report at %s", out / "report.md")


def judge(file: Path, out: Path | None, url: str, model: str, key: str) -> None:
    """judge.json: what a language model says of the replies."""
    run, out = _read(file, out, None)
    check_files(run)
    from idiolect_training.evaluate import judge as judging
    from idiolect_training.evaluate.study import REPLIES

    votes, _ = run.data()
    found = judging.judge(judging.read_replies(out / REPLIES), votes, url, model, key)
    text = json.dumps({"judge": model, "users": found}, indent=2)
    (out / "judge.json").write_text(text + "\n")
    log.info(text)


def check_files(run: RunConfig) -> None:
    """Raises BadRunConfig for data that the run names and that is not there: at once, not after a model is loaded."""
    prompts = None if run.generate is None else run.generate.prompts
    for name, path in (("train", run.train), ("test", run.test), ("generate.prompts", prompts)):
        if path is not None and not path.exists():
            raise BadRunConfig(f"{name}: {path}: no such file or folder", hint="paths are relative to the run file")


def summary(evaluation: dict[str, Any]) -> str:
    """An evaluation as the log shows it: without one entry a user when there are many."""
    if len(evaluation["users"]) <= SHOWN_USERS:
        return json.dumps(evaluation, indent=2)
    shown = evaluation | {"users": f"{len(evaluation['users'])}, each in evaluation.json"}
    return json.dumps(shown, indent=2)


def _read(file: Path, out: Path | None, alpha: float | None) -> tuple[RunConfig, Path]:
    run = RunConfig.read(file)
    return run if alpha is None else run.model_copy(update={"alpha": alpha}), out or Path("runs") / file.stem


def _evaluate(run: RunConfig, out: Path, policy: "Policy", user_rows: dict[str, int]) -> None:
    from idiolect_training.evaluate.study import write_evaluation

    log.info(summary(write_evaluation(run, out, policy, user_rows)))


def _export(
    run: RunConfig, out: Path, policy: "Policy", user_rows: dict[str, int], bundle: Path | None, allow_loops: bool
) -> None:
    from idiolect_training.evaluate.language import check_loops
    from idiolect_training.evaluate.study import read_evaluation
    from idiolect_training.export.bundle import export as write_bundle
    from idiolect_training.fit.loop import trained_votes

    if run.generate is not None and not allow_loops:
        check_loops(read_evaluation(out)["language"], run.generate.max_looping)
    folder = bundle or out / "bundle"
    written = write_bundle(run, policy, user_rows, folder, trained_votes(run, out))
    log.info("bundle %s at %s", written.bundle_id, folder)
