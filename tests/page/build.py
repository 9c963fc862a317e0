"""make page: check the page's types against the API's own document, and build it where the server looks for it."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from idiolect_server.app import create_app
from idiolect_server.settings import Settings
from tests.live import ROOT

WEB = ROOT / "clients" / "web"
TYPES = WEB / "src" / "server" / "schema.d.ts"
STAMP = WEB / "node_modules" / ".package-lock.json"
"""npm writes it at the end of an installation."""


def npm(*arguments: str) -> None:
    """Raises CalledProcessError, with what npm has said on standard output."""
    subprocess.run(["npm", *arguments], cwd=WEB, check=True)


def install() -> None:
    """What the lock file names, unless that is there."""
    if not STAMP.exists() or STAMP.stat().st_mtime < (WEB / "package-lock.json").stat().st_mtime:
        npm("ci", "--no-audit", "--no-fund", "--silent")


def types() -> None:
    """Of the API, as the server describes itself now."""
    with tempfile.TemporaryDirectory() as folder:
        document = Path(folder) / "openapi.json"
        document.write_text(json.dumps(create_app(Settings(bundle=Path(folder))).openapi()))
        npm("run", "--silent", "types", "--", str(document), "-o", str(TYPES), "--default-non-nullable=false")


def build() -> None:
    npm("run", "--silent", "build", "--", "--logLevel", "warn")


if __name__ == "__main__":
    if shutil.which("npm") is None:
        sys.exit("make page needs npm (Node.js 20 or later)")
    install()
    types()
    npm("run", "--silent", "check")
    build()
