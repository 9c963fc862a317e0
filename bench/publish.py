"""A study's report and numbers -> docs/results/NAME/, with what is needed to measure them again."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from bench.results import provenance
from tests.live import ROOT

RESULTS = ROOT / "docs" / "results"


def publish(name: str, runs: Path, facts: Mapping[str, object], command: str) -> None:
    """Copy report.md and its plots from the study folder `runs`; study.json gets `facts` and provenance."""
    target = RESULTS / name
    target.mkdir(parents=True, exist_ok=True)
    for file in [*runs.glob("*.png"), *runs.glob("*.svg")]:
        shutil.copy(file, target)
    source = provenance(command)
    model = "SmolLM2-135M-Instruct, float32"
    line = f"`{source['command']}`. {source['machine']}; {model}; commit {source['commit']}; {source['date']}."
    (target / "report.md").write_text((runs / "report.md").read_text() + f"\n{line}\n")
    methods = json.loads((runs / "study.json").read_text())
    result = {**facts, "methods": methods, "model": model, **source}
    (target / "study.json").write_text(json.dumps(result, indent=2) + "\n")
