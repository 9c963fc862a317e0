"""What pyproject.toml cannot say: a wheel carries the page (clients/web), which npm builds.

An editable install needs no npm: the server then says that `make page` builds it.
"""

import os
import shutil
import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.errors import SetupError

WEB = Path(__file__).parent / "clients" / "web"
WITHOUT = "IDIOLECT_WHEEL_WITHOUT_PAGE"


class BuildWithPage(build_py):
    """Builds the page into the wheel's own folder. Raises SetupError where it cannot."""

    def run(self) -> None:
        super().run()
        built = Path(self.build_lib, "idiolect_server", "page", "built").absolute()
        if self.editable_mode:
            return
        shutil.rmtree(built, ignore_errors=True)  # one of the tree may be older than its source
        if os.environ.get(WITHOUT) == "1":
            return
        npm = shutil.which("npm")
        if npm is None:
            raise SetupError(f"the wheel carries a page that npm builds: install Node.js 20, or set {WITHOUT}=1")
        for step in (("ci", "--no-audit", "--no-fund"), ("run", "build", "--", "--outDir", str(built))):
            try:
                subprocess.run([npm, *step], cwd=WEB, check=True)
            except subprocess.CalledProcessError as error:
                raise SetupError(f"the page was not built: npm {step[0]} ended with {error.returncode}") from error


setup(cmdclass={"build_py": BuildWithPage})
