"""make page-views (F2): every test of the page, five times in a row; the row ends with the first that is not green."""

import json
import re
import subprocess
import sys
import time

from bench.results import ROOT, record

N_RUNS = 5


def run() -> tuple[bool, dict[str, int]]:
    """Whether all passed, and how many passed, failed and were skipped."""
    command = [sys.executable, "-m", "pytest", "-q", "tests/page"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|skipped|error)", done.stdout)}
    if done.returncode:
        sys.stdout.write(done.stdout[-4000:])
    return done.returncode == 0, counts


def main() -> None:
    green, seconds, counts = 0, [], dict[str, int]()
    for _ in range(N_RUNS):
        began = time.monotonic()
        passed, counts = run()
        seconds.append(round(time.monotonic() - began, 1))
        if not passed:
            break
        green += 1
    value = {
        "green_in_a_row": green,
        "tests": counts.get("passed", 0),
        "skipped": counts.get("skipped", 0),
        "seconds": seconds,
    }
    json.dump(record("F2", value)["value"], sys.stdout, indent=1)


if __name__ == "__main__":
    main()
