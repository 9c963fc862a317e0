"""The deployment files, checked by the tools that will read them: Compose itself, hadolint, shellcheck, bash."""

import json
import os
import re
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
    assert redis["command"][1:5] == ["--dir", "/data", "--maxmemory", "4gb"]
    assert int(redis["mem_limit"]) == 8 << 30
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
        # What another stage has made is not in the context.
        for sources in re.findall(r"^COPY (?!--from=)(.+) \S+$", path.read_text(), re.MULTILINE):
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
