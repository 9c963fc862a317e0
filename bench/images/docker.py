"""`docker` as far as the documentation uses it, where no container engine runs: buildah carries it out, as root.

What containers are made of comes from where Docker takes it: the images, and compose.yaml as Compose itself reads it
(users, read-only roots, dropped capabilities, volumes, commands, health checks). Not there: networks (containers have
the machine's, and a service's name is 127.0.0.1), GPUs, limits of memory, restarts by themselves. `--build` builds what
is absent. Volumes and logs are in the folder that DOCKER_STATE names.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from bench.images.container import STATE, Service, enter, image_config, sh, volume

FILE = "docker/compose.yaml"


def services() -> dict[str, Service]:
    """Those of compose.yaml, as Compose reads it: with docker/.env, and its own refusals."""
    found = subprocess.run(
        ["docker-compose", "-f", FILE, "config", "--format", "json"], stdout=subprocess.PIPE, text=True, check=False
    )
    if found.returncode:
        sys.exit(found.returncode)
    return {name: Service(name, wanted) for name, wanted in json.loads(found.stdout)["services"].items()}


def compose(words: list[str]) -> None:
    args = _compose_arguments(words)
    known = services()
    if args.verb == "up":
        if args.build:
            build("server", "0")
        for name in ("redis", "server"):  # in the order of depends_on
            known[name].up()
            known[name].wait()
    elif args.verb == "down":
        for name in ("server", "redis"):
            known[name].down()
    elif args.verb == "exec":
        sys.exit(subprocess.run(known[args.service].command_line(args.command), check=False).returncode)
    else:
        service = known[args.service]
        sh("buildah", "from", "--pull-never", "--name", service.container, service.image)
        code = subprocess.run(service.command_line([args.entrypoint, *args.command]), check=False).returncode
        service.down()
        sys.exit(code)


def _compose_arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="docker compose")
    parser.add_argument("-f", choices=[FILE], required=True)
    verbs = parser.add_subparsers(dest="verb", required=True)
    up, run, execute = verbs.add_parser("up"), verbs.add_parser("run"), verbs.add_parser("exec")
    verbs.add_parser("down")
    for flag in ("-d", "--build", "--wait"):
        up.add_argument(flag, action="store_true", required=flag != "--build")
    up.add_argument("service", nargs="?", choices=["server"])
    for flag in ("--rm", "--no-deps", "-T"):
        run.add_argument(flag, action="store_true", required=True)
    run.add_argument("--entrypoint", required=True)
    execute.add_argument("-T", action="store_true")
    for verb in (run, execute):
        verb.add_argument("service")
        verb.add_argument("command", nargs=argparse.REMAINDER)
    return parser.parse_args(words)


def run(words: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="docker run")
    parser.add_argument("--rm", action="store_true", required=True)
    parser.add_argument("--gpus")
    parser.add_argument("-v", action="append", default=[])
    parser.add_argument("--entrypoint")
    parser.add_argument("image")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args(words)
    image = args.image if ":" in args.image else f"localhost/{args.image}"
    config = image_config(image)
    options: list[str] = []
    for mount in args.v:
        source, target, *_ = mount.split(":")
        options += ["-v", mount] if source.startswith("/") else volume(source, target, image, config["User"])
    entry = [args.entrypoint] if args.entrypoint else config["Entrypoint"]
    container = sh("buildah", "from", "--pull-never", image)
    try:
        command = enter(container, [*entry, *args.command], options, config["User"], read_only=False)
        sys.exit(subprocess.run(command, check=False).returncode)
    finally:
        sh("buildah", "rm", container)


def build(image: str, gpu: str) -> None:
    tag = f"localhost/idiolect-{image}" + (":cpu" if gpu == "0" else "")
    if subprocess.run(["buildah", "inspect", "--type", "image", tag], capture_output=True, check=False).returncode:
        subprocess.run(["docker/buildah.sh", image, gpu], check=True)


def main(words: list[str]) -> None:
    STATE.mkdir(parents=True, exist_ok=True)
    match words:
        case ["compose", *rest]:
            compose(rest)
        case ["run", *rest]:
            run(rest)
        case ["volume", "rm", name]:
            sh("rm", "-r", str(STATE / "volumes" / name))
        case ["build", "-f", file, "-t", _, "."]:
            build(Path(file).name.removesuffix(".Dockerfile"), "1")
        case _:
            sys.exit(f"docker: not known here: {' '.join(words)}")


if __name__ == "__main__":
    main(sys.argv[1:])
