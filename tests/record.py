"""Keep a measured value with what is needed to measure it again: command, machine, commit, date."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from tests.live import ROOT


def machine() -> str:
    """Processor, cores and memory of this machine, in words."""
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    n_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores, {n_bytes / 2**30:.0f} GiB, no GPU"


def commit() -> str:
    """The commit that is checked out; `+` when the tree differs from it."""
    head = subprocess.check_output(["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, text=True).strip()
    dirty = subprocess.check_output(["git", "status", "--porcelain", "-uno"], cwd=ROOT, text=True).strip()
    return head + ("+" if [line for line in dirty.splitlines() if "docs/" not in line] else "")


def provenance(command: str) -> dict[str, str]:
    return {
        "command": command,
        "machine": machine(),
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
    }


Goal = Mapping[str, tuple[Literal["<=", ">="], float]]
"""Of each measure that has one: whether it is to be at most or at least a number."""


def meets(value: Mapping[str, Any], goal: Goal) -> bool:
    """Whether every measure with a goal meets it.

    >>> meets({"seconds": 4.0, "note": "cold"}, {"seconds": ("<=", 5)})
    True
    """
    return all(value[name] <= bound if how == "<=" else value[name] >= bound for name, (how, bound) in goal.items())


def record(
    path: Path, line: str, value: Any, threshold: str, command: str, goal: Goal | None = None
) -> dict[str, object]:
    """Put the row of evidence line `line` (such as A4) into the JSON list at `path`, replacing an older one.

    With a `goal`, which is of measures in `value`, the row says whether they are met.
    """
    rows = json.loads(path.read_text()) if path.is_file() else []
    row = {"id": line, "value": value, "threshold": threshold, **provenance(command)}
    if goal is not None:
        row |= {"goal": goal, "met": meets(value, goal)}
    rows = sorted([*(old for old in rows if old["id"] != line), row], key=lambda kept: kept["id"])
    path.write_text(json.dumps(rows, indent=2) + "\n")
    return row
