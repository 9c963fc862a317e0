"""python -m training fit RUN.yaml --out DIR | evaluate RUN.yaml --out DIR | export RUN.yaml --out DIR --bundle DIR"""

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
        "fit": "train a run, or resume it",
        "evaluate": "preference accuracy on the run's test file, written to evaluation.json",
        "export": "write the run's bundle",
    }.items():
        command = commands.add_parser(name, help=summary)
        command.add_argument("run", type=Path, help="run file (YAML)")
        command.add_argument("--out", type=Path, required=True, help="run folder: checkpoint, log, evaluation")
        command.add_argument("--alpha", type=float, help="override alpha; 0 trains pooled DPO with the same budget")
        if name == "export":
            command.add_argument("--bundle", type=Path, required=True, help="folder to write the bundle to")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        _run(args)
    except IdiolectError as error:
        sys.exit(f"{error.code}: {error.message}" + (f" ({error.hint})" if error.hint else ""))


def _run(args: argparse.Namespace) -> None:
    # Imported late: --help should not wait for torch.
    from training.evaluate import evaluate
    from training.export import export
    from training.fit import fit, restore

    run = RunConfig.read(args.run)
    if args.alpha is not None:
        run = run.model_copy(update={"alpha": args.alpha})
    if args.command == "fit":
        fit(run, args.out)
        return
    policy, user_rows = restore(run, args.out)
    if args.command == "evaluate":
        result = evaluate(run, policy, user_rows, run.test)
        text = json.dumps(result, indent=2)
        (args.out / "evaluation.json").write_text(text + "\n")
        logging.info(text)
    else:
        bundle = export(run, policy, user_rows, args.bundle)
        logging.info("bundle %s at %s", bundle.bundle_id, args.bundle)


if __name__ == "__main__":
    main()
