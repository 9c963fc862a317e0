"""A container of buildah's: an image's files, entered as Docker would enter them, as root of this machine."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

STATE = Path(os.environ.get("DOCKER_STATE", "/tmp/docker-state"))
IMAGES = {"server": "idiolect-server:cpu"}
"""Compose builds the server's image for a GPU; here it is served on the CPU."""
ENTER = """
mount -t tmpfs -o mode=1777 tmpfs /tmp
if [ "$1" = ro ]; then mount -o remount,bind,ro /; fi
shift
exec setpriv --reuid "$1" --regid "$2" "$3" --no-new-privs --bounding-set=-all --inh-caps=-all -- "${@:4}"
"""
"""Inside, as root: what is only read becomes so, and privileges go, before the container's own process begins."""


def sh(*command: str) -> str:
    """What the command prints; it reads nothing. Raises CalledProcessError."""
    done = subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


def image_config(image: str) -> dict[str, Any]:
    described: dict[str, Any] = json.loads(sh("buildah", "inspect", "--type", "image", image))["Docker"]["config"]
    return described


def volume(name: str, target: str, image: str, owner: str) -> list[str]:
    """A named volume's option; like Docker, a fresh one gets the image's owner of that folder."""
    folder = STATE / "volumes" / name
    if not folder.is_dir():
        folder.mkdir(parents=True)
        user, _, group = owner.partition(":")
        ids = user if user.isdigit() else sh_in(image, "id", "-u", user)
        gids = group or (user if user.isdigit() else sh_in(image, "id", "-g", user))
        os.chown(folder, int(ids), int(gids))
    return ["-v", f"{folder}:{target}"]


def sh_in(image: str, *command: str) -> str:
    container = sh("buildah", "from", "--pull-never", image)
    try:
        return sh("buildah", "run", "--isolation", "chroot", "--user", "root", container, "--", *command)
    finally:
        sh("buildah", "rm", container)


def enter(container: str, command: list[str], options: list[str], user: str, read_only: bool) -> list[str]:
    """The command line that runs `command` in the container, as that user and without privileges."""
    uid, _, gid = user.partition(":")
    groups = "--clear-groups" if uid.isdigit() else "--init-groups"
    runs = ["buildah", "run", "--isolation", "chroot", "--user", "root", "--cap-add", "CAP_SYS_ADMIN", *options]
    how = "ro" if read_only else "rw"
    return [*runs, container, "--", "bash", "-c", ENTER, "enter", how, uid, gid or uid, groups, *command]


class Service:
    """One service of compose.yaml, and its container."""

    def __init__(self, name: str, wanted: dict[str, Any]) -> None:
        self.name, self.wanted = name, wanted
        self.image = IMAGES.get(name) or wanted["image"]
        self.container = f"idiolect-{name}"
        self.log, self._pid = STATE / f"{name}.log", STATE / f"{name}.json"

    @property
    def fingerprint(self) -> str:
        image = sh("buildah", "inspect", "--type", "image", "--format", "{{.FromImageID}}", self.image)
        return hashlib.sha256((json.dumps(self.wanted) + image).encode()).hexdigest()

    def process(self) -> psutil.Process | None:
        """The container's own first process."""
        with contextlib.suppress(FileNotFoundError, psutil.NoSuchProcess):
            runner = psutil.Process(json.loads(self._pid.read_text())["pid"])
            found = [child for child in runner.children(recursive=True) if "buildah" not in child.name()]
            return found[0] if found else None
        return None

    def options(self) -> list[str]:
        found: list[str] = []
        for each in self.wanted.get("volumes", []):
            if each["type"] == "bind":
                assert Path(each["source"]).is_dir(), each
                found += ["-v", f"{each['source']}:{each['target']}:{'ro' if each.get('read_only') else 'rw'}"]
            else:
                found += volume(f"idiolect_{each['source']}", each["target"], self.image, self.user)
        for name, value in self.wanted.get("environment", {}).items():
            if value is not None:
                found += ["--env", f"{name}={value}"]
        return found

    @property
    def user(self) -> str:
        return str(self.wanted.get("user") or image_config(self.image)["User"])

    def command_line(self, command: list[str]) -> list[str]:
        return enter(self.container, command, self.options(), self.user, bool(self.wanted.get("read_only")))

    def up(self) -> None:
        if self.process() and json.loads(self._pid.read_text())["fingerprint"] == self.fingerprint:
            return
        self.down()
        hosts = [option for name in ("redis", "server") for option in ("--add-host", f"{name}:127.0.0.1")]
        sh("buildah", "from", "--pull-never", *hosts, "--name", self.container, self.image)
        config = image_config(self.image)
        entry = self.wanted.get("entrypoint") or config["Entrypoint"] or []
        command = [*entry, *(self.wanted.get("command") or config["Cmd"] or [])]
        with self.log.open("ab") as log:
            started = subprocess.Popen(
                self.command_line(command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._pid.write_text(json.dumps({"pid": started.pid, "fingerprint": self.fingerprint}))

    def wait(self) -> None:
        """Until it is healthy by its own check. Exits with 1 when it ends before that."""
        kind, *test = self.wanted["healthcheck"]["test"]
        command = ["sh", "-c", *test] if kind == "CMD-SHELL" else test
        time.sleep(1)
        while subprocess.run(self.command_line(command), capture_output=True, check=False).returncode != 0:
            if self.process() is None:
                sys.exit(f"container {self.container} exited: {self.log.read_text()[-2000:]}")
            time.sleep(1)

    def down(self) -> None:
        running = self.process()
        if running is not None:
            running.send_signal(signal.SIGTERM)
            with contextlib.suppress(psutil.TimeoutExpired):
                running.wait(60)
            if running.is_running():
                running.kill()
        self._pid.unlink(missing_ok=True)
        subprocess.run(["buildah", "rm", self.container], capture_output=True, check=False)
