"""make first-hour (U4): build the images, then do what docs/first-hour.md and docs/deploy.md say, command by command.

In a clone of this checkout's commit, with `bench.images.docker` as `docker`: the server is the CPU's image.
"""

import json
import os
import re
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from bench.images.container import sh
from bench.results import record
from tests.live import ROOT

IMAGES = ("idiolect-server:latest", "idiolect-server:cpu", "idiolect-training:latest")
BLOCK = re.compile(r"^(<!-- gpu -->\n)?```sh\n(.*?)^```$", re.S | re.M)
READY_S = 300
URL = "http://localhost:8000"


def blocks(page: str, section: str = "") -> list[str]:
    """The commands of a page, or of one section of it, that need no GPU."""
    text = (ROOT / "docs" / page).read_text()
    if section:
        text = text.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return [commands for gpu, commands in BLOCK.findall(text) if not gpu]


def commands() -> dict[str, Any]:
    """How many commands of the pages `use` has run, and how many want a GPU."""

    def count(texts: list[str]) -> int:
        return sum(len(re.sub(r"\\\n", "", text).splitlines()) for text in texts)

    deploy = [*blocks("deploy.md", "Backup"), *blocks("deploy.md", "Another bundle, another version")]
    whole = (ROOT / "docs" / "first-hour.md").read_text()
    return {
        "run": {"first-hour.md": count(blocks("first-hour.md")), "deploy.md": count(deploy)},
        "left_to_a_gpu": count([text for gpu, text in BLOCK.findall(whole) if gpu]),
    }


class Host:
    """A clone of the project on a host whose `docker` is ours."""

    def __init__(self, folder: Path) -> None:
        self.clone = folder / "clone"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(self.clone)], check=True)
        docker = folder / "bin" / "docker"
        docker.parent.mkdir()
        docker.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -P -m bench.images.docker "$@"\n')
        docker.chmod(docker.stat().st_mode | stat.S_IEXEC)
        tools = f"{docker.parent}:{Path(sys.executable).parent}"
        self._env = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "DOCKER_STATE": str(folder / "state")}

    def run(self, commands: str) -> str:
        """What they print. Raises CalledProcessError."""
        sys.stdout.write(commands)
        done = subprocess.run(
            ["bash", "-eu", "-c", commands],
            cwd=self.clone,
            env=self._env,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        sys.stdout.write(done.stdout[-600:] + "\n")
        sys.stdout.flush()
        return done.stdout

    def user(self, name: str) -> dict[str, Any]:
        key = re.search(r"^key *(\S+)", (self.clone / "key.txt").read_text(), re.M)
        assert key is not None
        found = httpx.get(f"{URL}/users/{name}", headers={"Authorization": f"Bearer {key[1]}"})
        return dict(found.raise_for_status().json())


def built() -> tuple[dict[str, float], float]:
    """Sizes of the images in GB, and how long it took to build what was absent, in minutes."""
    began = time.monotonic()
    for image, gpu in (("redis", "1"), ("server", "0"), ("server", "1"), ("training", "1")):
        subprocess.run([str(ROOT / "docker" / "buildah.sh"), image, gpu], check=True, stdout=sys.stderr)
    sizes = {}
    for image in IMAGES:
        described = json.loads(sh("buildah", "images", "--json", image))[0]["size"]
        number, unit = described.split()
        sizes[image] = round(float(number) / {"GB": 1, "MB": 1000}[unit], 2)
    return sizes, round((time.monotonic() - began) / 60, 1)


def configurations_in_the_gpu_image(host: Host, folder: Path) -> int:
    """How many of vLLM's configurations its CUDA wheel makes inside the image (bench.gpu.pretended)."""
    from bench.gpu.models import write_shape
    from idiolect_training.demo_model import demo_model

    shape = write_shape(folder / "shape", demo_model())
    out = host.run(
        f"docker run --rm -v {shape}:/shape:ro -v {ROOT}/bench:/app/bench:ro "
        "--entrypoint python idiolect-server -m bench.gpu.pretended /shape 2>/dev/null\n"
    )
    made = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    return sum(not (each["flashinfer_sampler"] or each["deep_gemm"]) for each in made)


def main() -> None:
    gigabytes, minutes = built()
    with tempfile.TemporaryDirectory() as folder:
        host = Host(Path(folder))
        try:
            done = use(host)
            done["configurations_in_the_gpu_image"] = configurations_in_the_gpu_image(host, Path(folder)) == 9
        finally:
            host.run("docker compose -f docker/compose.yaml down\n")
    value = {"done": done, "gigabytes": gigabytes, "build_minutes": minutes}
    sys.stdout.write(f"{record('U4', value)}\n{record('U5', commands())}\n")


def use(host: Host) -> dict[str, bool]:
    """Every block of the page, then restart, backup, loss, restore, another bundle; what of it was as it should be."""
    done: dict[str, bool] = {}
    *before, known, vote = blocks("first-hour.md")
    for commands in before:
        host.run(commands)
    done["known_user_is_stored"] = json.loads(host.run(known))["personalization"]["state"] == "stored"
    host.run(vote)
    done["vote_is_kept"] = votes(host) == 1
    inside = host.run("docker compose -f docker/compose.yaml exec -T server sh -c 'id -u; touch /app/x 2>&1 || :'\n")
    done["runs_as_its_user"] = inside.startswith("10001\n")
    done["runs_on_a_read_only_root"] = "Read-only file system" in inside
    host.run("docker compose -f docker/compose.yaml down\ndocker compose -f docker/compose.yaml up -d --wait\n")
    done["vote_is_kept_over_a_restart"] = votes(host) == 1
    backup, restore = blocks("deploy.md", "Backup")
    shell = backup.splitlines()[0] + "\n"  # the function that the section's commands use
    host.run(backup)
    host.run(shell + "dc down\ndocker volume rm idiolect_redis\ndc up -d --wait\n")
    done["vote_is_lost_with_the_volume"] = votes(host) == 0
    host.run(shell + restore)
    done["vote_is_restored"] = votes(host) == 1
    upgrade, forget = blocks("deploy.md", "Another bundle, another version")
    other = host.clone / "other-bundle"
    first = httpx.get(f"{URL}/health/ready").json()["bundle"]
    host.run(f"cp -r training/runs/demo/bundle {other}\n")
    rename(other)
    host.run(f"sed -i 's|^IDIOLECT_BUNDLE_DIR=.*|IDIOLECT_BUNDLE_DIR={other}|' docker/.env\n{upgrade}")
    second = httpx.get(f"{URL}/health/ready").json()["bundle"]
    done["another_bundle_is_served"] = first != second
    done["vote_is_kept_over_another_bundle"] = votes(host) == 1
    done["forgot_the_first_bundle"] = "keys deleted" in host.run(forget.replace("BUNDLE_ID", first))
    return done


def votes(host: Host) -> int:
    return int(host.user("ann")["votes"] or 0)


def rename(folder: Path) -> None:
    """The same bundle under another id: its frequency penalty differs."""
    from idiolect.manifest import Decoding, Manifest

    manifest = Manifest.read(folder)
    manifest.model_copy(update={"decoding": Decoding(frequency_penalty=0.5)}).write(folder)


if __name__ == "__main__":
    main()
