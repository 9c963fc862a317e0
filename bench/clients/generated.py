"""make generated-clients (K4-generated): clients that generators make of /openapi.json, in Python and TypeScript.

Real engine, tiny random model. The document of a running server is all that the generators get. What they say while
they generate is a fault, as it means a part of the document that they could not read; so is what mypy and tsc say of
the contract beside each client, and each call of it that went otherwise than the document says.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from bench.results import ROOT, record
from idiolect_training.demo_model import demo_model
from tests.live import running_server
from tests.parts.tiny import tiny_bundle

CONTRACT = ROOT / "bench" / "clients" / "contract"
KEY = "a key of this run"
PYTHON_PACKAGES = ("openapi-python-client==0.29.1",)
"""It formats with ruff."""
NPM_PACKAGES = ("@hey-api/openapi-ts@0.99.0", "typescript@5.9.3", "@types/node@20.19.43")
CONFIG = """project_name_override: idiolect-generated
package_name_override: idiolect_generated
content_type_overrides:
  application/x-ndjson: text/plain
"""
"""The Python generator knows no JSON by lines, and is told to read it as text."""
TSC = ("--strict", "--target", "es2022", "--module", "commonjs", "--skipLibCheck", "--outDir", "made", "contract.ts")


@dataclass
class Outcome:
    """Of one language."""

    calls: list[dict[str, Any]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def said(self, what: str, text: str) -> None:
        """A tool that has said something where it should have been silent."""
        if text.strip():
            self.faults.append(f"{what}: {text.strip()[:1000]}")

    def value(self, operations: set[str]) -> dict[str, Any]:
        called = {call["operation"] for call in self.calls if call["fault"] is None}
        return {
            "operations_called": len(called & operations),
            "calls": len(self.calls),
            "statuses": sorted({call["status"] for call in self.calls}),
            "faults": len(self.faults),
        }


def ran(command: Sequence[str | Path], cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """With the program's own folder first, in which generators look for what formats."""
    path = f"{Path(command[0]).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "NO_COLOR": "1", **more}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=600)


def needed(command: Sequence[str | Path], cwd: Path) -> None:
    """A step before the contract. Raises RuntimeError."""
    done = ran(command, cwd)
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")


def python_client(folder: Path, document: Path, url: str, name: str) -> Outcome:
    """In a virtual environment of its own."""
    outcome, python = Outcome(), folder / "venv" / "bin" / "python"
    (folder / "config.yaml").write_text(CONFIG)
    needed([sys.executable, "-m", "venv", "venv"], folder)
    needed([python, "-m", "pip", "install", "-q", *PYTHON_PACKAGES, "ruff"], folder)
    generator = [str(python.parent / "openapi-python-client"), "generate", "--path", str(document)]
    done = ran([*generator, "--output-path", "made", "--config", "config.yaml"], folder)
    outcome.said("generator", (done.stdout + done.stderr).replace("Generating made", ""))
    needed([python, "-m", "pip", "install", "-q", "./made"], folder)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary"]
    done = ran([*mypy, f"--python-executable={python}", str(CONTRACT / "contract.py")], folder)
    outcome.said("mypy", done.stdout + done.stderr)
    return _kept(outcome, ran([python, CONTRACT / "contract.py", url, KEY, name], folder))


def typescript_client(folder: Path, document: Path, url: str, name: str) -> Outcome:
    """Without a lock file, which would name where the packages came from: their versions are exact."""
    outcome = Outcome()
    (folder / "package.json").write_text('{"private": true}')
    needed(["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", *NPM_PACKAGES], folder)
    tools = folder / "node_modules" / ".bin"
    done = ran([tools / "openapi-ts", "-i", str(document), "-o", "client", "--silent"], folder)
    outcome.said("generator", done.stdout + done.stderr)
    (folder / "contract.ts").write_text((CONTRACT / "contract.ts").read_text())
    outcome.said("tsc", ran([tools / "tsc", *TSC], folder).stdout)
    return _kept(outcome, ran(["node", "made/contract.js", url, KEY, name], folder))


def _kept(outcome: Outcome, done: subprocess.CompletedProcess[str]) -> Outcome:
    """What the contract has printed."""
    outcome.calls = [json.loads(line) for line in done.stdout.splitlines()]
    outcome.faults += [f"{call['operation']}: {call['fault']}" for call in outcome.calls if call["fault"] is not None]
    if done.returncode:
        outcome.faults.append(f"the contract ended with {done.returncode}: {done.stderr[-1500:]}")
    return outcome


def compared() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as root, ExitStack() as stack:
        folder = Path(root)
        bundle, model, _ = tiny_bundle(folder, demo_model())
        places = {"bundle": str(bundle.path), "model": str(model), "adapter": "live", "data_dir": str(folder / "data")}
        # Little may wait, so that a dozen callers are too many.
        crowded = {"max_num_seqs": "1", "max_waiting_tokens": "1", "max_model_len": "2048"}
        keys = {"api_keys": hashlib.sha256(KEY.encode()).hexdigest()}
        log = stack.enter_context((folder / "server.log").open("wb"))
        url, _ = stack.enter_context(running_server(log, **places, **crowded, **keys))
        found = httpx.get(f"{url}/openapi.json", headers={"authorization": f"Bearer {KEY}"}).json()
        document = folder / "openapi.json"
        document.write_text(json.dumps(found))
        operations = {one["operationId"] for path in found["paths"].values() for one in path.values()}
        outcomes = {}
        for language, made in (("python", python_client), ("typescript", typescript_client)):
            place = folder / language
            place.mkdir()
            outcomes[language] = made(place, document, url, bundle.manifest.base_model.name)
    missed = {
        language: sorted(operations - {call["operation"] for call in outcome.calls})
        for language, outcome in outcomes.items()
    }
    values = {language: outcome.value(operations) for language, outcome in outcomes.items()}
    faults = [f"{language}: {fault}" for language, outcome in outcomes.items() for fault in outcome.faults]
    share = min(value["operations_called"] for value in values.values()) / len(operations)
    packages = [*PYTHON_PACKAGES, *NPM_PACKAGES]
    whole = {"operations": len(operations), "share_called": share, "faults": len(faults), "found": faults}
    return {**whole, "missed": missed, **values, "generators": packages}


def main() -> None:
    json.dump(record("K4-generated", compared())["value"], sys.stdout, indent=1)


if __name__ == "__main__":
    main()
