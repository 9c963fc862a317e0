"""python -m bench list | check | run NAME | table: the experiments, their verdicts, one of them, the page."""

import argparse
import runpy
import sys

from bench.catalogue import EXPERIMENTS
from bench.clients.page import pages
from bench.verdicts import PAGE, page, verdicts


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="every experiment: its lines, minutes, needs")
    commands.add_parser("check", help="recompute every verdict; fails and names the lines that are missed")
    commands.add_parser("table", help="write the verdicts into docs/results.md, and the tables of clients")
    runs = {experiment.name: experiment for experiment in EXPERIMENTS if experiment.module}
    commands.add_parser("run", help="run one experiment").add_argument("name", choices=sorted(runs))
    args = parser.parse_args()
    if args.command == "list":
        for experiment in EXPERIMENTS:
            needs = f", needs {experiment.needs}" if experiment.needs else ""
            sys.stdout.write(f"{experiment.name}: {experiment.command}, {experiment.minutes:g} minutes{needs}\n")
            for line in experiment.lines:
                sys.stdout.write(f"    {line.id}  {line.question}\n")
    elif args.command == "table":
        for path, text in {PAGE: page(), **pages()}.items():
            path.write_text(text)
    elif args.command == "run":
        module = runs[args.name].module
        assert module is not None
        sys.argv = [module]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        found = verdicts()
        for verdict in found:
            if verdict.missed:
                assert verdict.row is not None
                worst = ", ".join(
                    f"{goal} (measured {goal.worst(verdict.row['value']):.4g})" for goal in verdict.missed
                )
                sys.stdout.write(f"{verdict.line.id} missed: {worst}\n")
        n_missed = sum(bool(verdict.missed) for verdict in found)
        unmeasured = [verdict.line.id for verdict in found if verdict.row is None]
        sys.stdout.write(f"{len(found)} lines, {n_missed} missed, not measured: {', '.join(unmeasured) or 'none'}\n")
        return 1 if n_missed else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
