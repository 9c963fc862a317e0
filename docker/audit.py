"""make audit: known vulnerabilities of the locked packages (pip-audit), and faults of the images' recipes (hadolint).

Either one that could not run says so, in capitals: pip-audit itself calls packages sound that nobody could look up.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "docker/lock/serve-cpu+training+dev.txt"
BIN = Path(sys.executable).parent
TIMEOUT_S = 180


def run(tool: str, *arguments: str) -> tuple[str, str]:
    """Standard output, and the last line of the errors; no output if the tool is not there or takes too long."""
    try:
        done = subprocess.run([BIN / tool, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", str(error)
    return done.stdout, (done.stderr.strip().splitlines() or [""])[-1]


def vulnerabilities(report: str, why_not: str = "") -> tuple[str, bool]:
    """What pip-audit's JSON says, in words, and whether that is fit to go on with."""
    try:
        packages: list[dict[str, Any]] = json.loads(report)["dependencies"]
    except ValueError:
        return f"AUDIT DID NOT RUN: {why_not}", True
    unknown = [one["name"] for one in packages if "skip_reason" in one]
    found = [(one, known["id"]) for one in packages for known in one.get("vulns", ())]
    said = [f"{one['name']} {one['version']}: {known}" for one, known in found]
    if len(unknown) == len(packages):
        return f"AUDIT DID NOT RUN: the index knows nothing about vulnerabilities of {len(packages)} packages", True
    said.append(f"audit: {len(packages) - len(unknown)} packages, {len(found)} known vulnerabilities")
    if unknown:
        said.append(f"NOT AUDITED: {', '.join(unknown)}")
    return "\n".join(said), not found


def faults(report: str, why_not: str, n_files: int) -> tuple[str, bool]:
    """What hadolint's JSON says, in words, and whether that is fit to go on with."""
    try:
        found: list[dict[str, Any]] = json.loads(report)
    except ValueError:
        return f"IMAGE LINT DID NOT RUN: {why_not}", True
    said = [f"{one['file']}:{one['line']}: {one['code']} {one['message']}" for one in found]
    return "\n".join([*said, f"image lint: {n_files} files, {len(found)} faults"]), not found


def main() -> None:
    asked = ("-r", str(LOCK), "--require-hashes", "--disable-pip", "--progress-spinner", "off", "-f", "json")
    files = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docker").glob("*.Dockerfile"))
    answers = [
        vulnerabilities(*run("pip-audit", *asked)),
        faults(*run("hadolint", "-f", "json", *files), n_files=len(files)),
    ]
    for said, _ in answers:
        sys.stdout.write(said + "\n")
    sys.exit(not all(fit for _, fit in answers))


if __name__ == "__main__":
    main()
