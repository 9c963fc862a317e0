"""Where foreign clients run: a virtual environment for each file of requirements, and a folder of npm's.

Kept in the cache folder under a digest of all versions, so that they are installed once.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.clients.roster import LATEST, NPM, OLDER, SCRIPTS, ForeignClient

TIMEOUT_S = 300
NPM_FILES = (NPM, "package-lock.json", ".npmrc")
FOR_ALL = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
"""LiteLLM would ask the network for prices when it starts."""


@dataclass(frozen=True)
class Environments:
    folder: Path

    @classmethod
    def installed(cls, cache: Path) -> "Environments":
        """A few minutes the first time. Raises CalledProcessError when pip or npm cannot install."""
        digest = hashlib.sha256(sys.version.encode())
        for name in (LATEST, OLDER, *NPM_FILES):
            digest.update((SCRIPTS / name).read_bytes())
        folder = cache / "clients" / digest.hexdigest()[:16]
        if not (folder / "whole").exists():
            shutil.rmtree(folder, ignore_errors=True)
            for pins in (LATEST, OLDER):
                _run(sys.executable, "-m", "venv", str(folder / pins))
                _run(str(folder / pins / "bin" / "pip"), "install", "-q", "--no-deps", "-r", str(SCRIPTS / pins))
            (folder / NPM).mkdir()
            for name in NPM_FILES:
                shutil.copy(SCRIPTS / name, folder / NPM)
            _run("npm", "ci", "--no-audit", "--no-fund", cwd=folder / NPM)
            (folder / "whole").touch()
        return cls(folder)

    def run(self, client: ForeignClient, *said: str) -> subprocess.CompletedProcess[str]:
        """The client's script with the arguments `said`, as a process that knows nothing else of us."""
        home = self.folder / client.pins
        script, programs = SCRIPTS / client.script, home / "bin"
        if client.pins == NPM:  # Node looks for packages beside the script
            script, programs = Path(shutil.copy(script, home)), home / "node_modules" / ".bin"
        program = {".py": "python", ".mjs": "node", ".sh": "bash"}[script.suffix]
        env = {name: value for name, value in os.environ.items() if not name.startswith(("IDIOLECT_", "PYTHON"))}
        env |= FOR_ALL | {"PATH": f"{programs}:{env['PATH']}"}
        asked = [shutil.which(program, path=env["PATH"]) or program, str(script), *said]
        return subprocess.run(asked, env=env, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def _run(*command: str, cwd: Path | None = None) -> None:
    subprocess.run(command, cwd=cwd, check=True)
