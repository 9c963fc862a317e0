"""python -m idiolect_training fit RUN.yaml: from data to a checked bundle; `evaluate` and `export` redo a part.

`study` runs several files with several seeds, a pooled baseline beside them, and writes a report.
"""

import argparse
import json
import logging
import os
import sys
from pathlib import Path

from idiolect.errors import IdiolectError
from idiolect_training.config import RunConfig


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m idiolect_training", description="The Idiolect trainer.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, summary in {
        "fit": "train a run, or resume it; then evaluate and export it",
        "evaluate": "measure on held-out comparisons, written to evaluation.json",
        "export": "write the run's bundle",
    }.items():
        command = commands.add_parser(name, help=summary)
        command.add_argument("run", type=Path, help="run file (YAML)")
        command.add_argument("--out", type=Path, help="run folder: checkpoint, log, evaluation (default runs/RUN)")
        command.add_argument("--alpha", type=float, help="override alpha; 0 trains the pooled baseline, same budget")
        if name != "evaluate":
            command.add_argument("--bundle", type=Path, help="folder to write the bundle to (default bundle/ in --out)")
            command.add_argument("--allow-loops", action="store_true", help="export even if users' replies loop")
    command = commands.add_parser("study", help="fit and evaluate runs with several seeds beside a pooled baseline")
    command.add_argument("run", type=Path, nargs="+", help="run files (YAML), one a method")
    command.add_argument("--out", type=Path, help="folder of the runs and of the report (default runs/FIRST-study)")
    command.add_argument("--seeds", type=int, default=3, help="how many seeds, from 0 (default 3)")
    command = commands.add_parser("judge", help="ask a language model whom the replies of an evaluated run suit")
    command.add_argument("run", type=Path, help="run file (YAML) with `generate`")
    command.add_argument("--out", type=Path, help="run folder (default runs/RUN)")
    command.add_argument("--url", required=True, help="base URL of an OpenAI-compatible endpoint, such as .../v1")
    command.add_argument("--model", required=True, help="the endpoint's name of the judge")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        {"study": _study, "judge": _judge}.get(args.command, _run)(args)
    except IdiolectError as error:
        sys.exit(f"{error.code}: {error.message}" + (f" ({error.hint})" if error.hint else ""))


def _run(args: argparse.Namespace) -> None:
    # Imported late: --help should not wait for torch.
    from accelerate import PartialState

    from idiolect_training.export import export
    from idiolect_training.fit import fit, restore
    from idiolect_training.language import check_loops
    from idiolect_training.study import read_evaluation, write_evaluation

    run = RunConfig.read(args.run)
    if args.alpha is not None:
        run = run.model_copy(update={"alpha": args.alpha})
    out: Path = args.out or Path("runs") / args.run.stem
    if args.command == "fit":
        fit(run, out)
        if not PartialState().is_main_process:
            return
    policy, user_rows = restore(run, out)
    if args.command != "export":
        logging.info(json.dumps(write_evaluation(run, out, policy, user_rows), indent=2))
    if args.command != "evaluate":
        if run.generate is not None and not args.allow_loops:
            check_loops(read_evaluation(out)["language"], run.generate.max_looping)
        folder = args.bundle or out / "bundle"
        logging.info("bundle %s at %s", export(run, policy, user_rows, folder).bundle_id, folder)


def _study(args: argparse.Namespace) -> None:
    from idiolect_training.study import study

    methods = {path.stem: RunConfig.read(path) for path in args.run}
    out: Path = args.out or Path("runs") / f"{args.run[0].stem}-study"
    study(methods, range(args.seeds), out, title=out.name)
    logging.info("report at %s", out / "report.md")


def _judge(args: argparse.Namespace) -> None:
    from idiolect_training.judge import judge, read_replies

    run = RunConfig.read(args.run)
    out: Path = args.out or Path("runs") / args.run.stem
    votes, _ = run.data()
    key = os.environ.get("OPENAI_API_KEY", "none")  # local endpoints want none
    found = judge(read_replies(out / "replies.jsonl"), votes, args.url, args.model, key)
    text = json.dumps({"judge": args.model, "users": found}, indent=2)
    (out / "judge.json").write_text(text + "\n")
    logging.info(text)


if __name__ == "__main__":
    main()
