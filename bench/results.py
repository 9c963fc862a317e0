"""Measured values, kept for good: one line of JSON per measurement, appended, with what is needed to repeat it."""

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.catalogue import find

ROOT = Path(__file__).parent.parent
HISTORY = ROOT / "bench" / "history.jsonl"

Row = dict[str, Any]
"""id, value, goals and whether they are met (both absent where a line is only reported), command, machine, commit,
date."""


def machine() -> str:
    """Processor, cores, memory and GPU of this machine, in words."""
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    n_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    processor = names[0] if names else platform.machine()
    return f"{processor}, {os.cpu_count()} cores, {n_bytes / 2**30:.0f} GiB, {_gpu()}"


def _gpu() -> str:
    if shutil.which("nvidia-smi") is None:
        return "no GPU"
    asked = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False)
    return "; ".join(found.stdout.strip().splitlines()) if found.returncode == 0 and found.stdout.strip() else "no GPU"


def commit() -> str:
    """The commit that is checked out; `+` when the tree differs from it."""
    head = subprocess.check_output(["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, text=True).strip()
    dirty = subprocess.check_output(["git", "status", "--porcelain", "-uno"], cwd=ROOT, text=True)
    results = ("docs/", "bench/history.jsonl", "README.md")
    return head + ("+" if [line for line in dirty.splitlines() if not line[3:].startswith(results)] else "")


def provenance(command: str) -> dict[str, str]:
    return {
        "command": command,
        "machine": machine(),
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def record(line_id: str, value: Mapping[str, Any], command: str | None = None) -> Row:
    """Append what line `line_id` of the catalogue (such as A4) has measured now.

    `command` is what measured it, where that is not the experiment's own. Raises KeyError, NoSuchMeasure.
    """
    experiment, line = find(line_id)
    row: Row = {"id": line_id, "value": value}
    if line.goals:
        row |= {"goals": [str(goal) for goal in line.goals], "met": all(goal.met(value) for goal in line.goals)}
    row |= provenance(command or experiment.command)
    with HISTORY.open("a") as file:
        file.write(json.dumps(row) + "\n")
    return row


def history() -> list[Row]:
    """Every measurement, the oldest first."""
    return [json.loads(line) for line in HISTORY.read_text().splitlines()]


def latest(rows: Iterable[Row]) -> dict[str, Row]:
    """The newest measurement of each line."""
    return {row["id"]: row for row in rows}
