"""make first-minutes (G4): how long a newcomer waits for `make demo`, from a fresh clone and an empty home; and again.

Of this checkout's commit: what is not committed is not there.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.results import record
from tests import readme
from tests.demo import without_times
from tests.live import ROOT


def run(clone: Path, env: dict[str, str]) -> tuple[float, subprocess.CompletedProcess[str]]:
    began = time.monotonic()
    done = subprocess.run(["make", "demo"], cwd=clone, env=env, capture_output=True, text=True, check=False)
    return round(time.monotonic() - began, 1), done


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home, clone = Path(folder) / "home", Path(folder) / "clone"
        home.mkdir()
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        caches = ("XDG_CACHE_HOME", "PIP_CACHE_DIR", "HF_HOME", "VIRTUAL_ENV")
        env = {name: value for name, value in os.environ.items() if name not in caches and "IDIOLECT" not in name}
        env |= {"HOME": str(home)}
        first_s, first = run(clone, env)
        sys.stdout.write(first.stdout[-2000:] + first.stderr[-2000:])
        cached_s, cached = run(clone, env)
    story = without_times(cached.stdout.partition(" s.\n")[2])
    value = {
        "first_s": first_s,
        "cached_s": cached_s,
        "exit_code": max(first.returncode, cached.returncode),
        "transcript_is_that_of_the_readme": story == readme.block("demo"),
    }
    sys.stdout.write(f"{record('G4', value)}\n")


if __name__ == "__main__":
    main()
