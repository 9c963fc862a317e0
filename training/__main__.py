"""python -m training fit RUN.yaml [--out DIR]: from data to a checked bundle; `evaluate`, `export` redo a part."""

import argparse
import json
import logging
import sys
from pathlib import Path

from idiolect.errors import IdiolectError
from training.config import RunConfig


def main() -> None:
    parser = argparse.ArgumentParser(prog="training", description="The Idiolect trainer.")
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
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        _run(args)
    except IdiolectError as error:
        sys.exit(f"{error.code}: {error.message}" + (f" ({error.hint})" if error.hint else ""))


def _run(args: argparse.Namespace) -> None:
    # Imported late: --help should not wait for torch.
    from accelerate import PartialState

    from training.evaluate import evaluate
    from training.export import export
    from training.fit import fit, restore

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
        text = json.dumps(evaluate(run, policy, user_rows), indent=2)
        (out / "evaluation.json").write_text(text + "\n")
        logging.info(text)
    if args.command != "evaluate":
        folder = args.bundle or out / "bundle"
        logging.info("bundle %s at %s", export(run, policy, user_rows, folder).bundle_id, folder)


if __name__ == "__main__":
    main()
