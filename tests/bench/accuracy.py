"""make accuracy: held-out preference accuracy of the demo run beside pooled DPO with the same budget.

Collects what `python -m training evaluate` wrote for both runs into docs/results/accuracy.json.
"""

import json
import sys

from tests.live import ROOT
from tests.record import provenance

OUT = ROOT / "docs" / "results" / "accuracy.json"


def main() -> None:
    runs = {name: ROOT / "runs" / folder for name, folder in (("prlhf", "demo"), ("pooled", "pooled"))}
    result: dict[str, object] = dict(provenance("make train accuracy"))
    for name, folder in runs.items():
        evaluation = json.loads((folder / "evaluation.json").read_text())
        run = json.loads((folder / "run.json").read_text())
        n_steps = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])["step"]
        result[name] = {"alpha": run["alpha"], "n_steps": n_steps, **evaluation}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(result, indent=2) + "\n")
    sys.stdout.write("".join(f"{name}: {result[name]['accuracy']['mean']}\n" for name in runs))


if __name__ == "__main__":
    main()
