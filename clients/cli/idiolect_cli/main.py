"""idiolect serve, train, evaluate, export, study, judge, model, keys, bundle: thin commands over the packages."""

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from idiolect.errors import IdiolectError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="A personalized inference server.")
bundles = typer.Typer(no_args_is_help=True, help="What is kept of bundles.")
app.add_typer(bundles, name="bundle")

RunFile = Annotated[Path, typer.Argument(metavar="RUN", help="Run file (YAML).")]
Out = Annotated[Path | None, typer.Option(help="Run folder: checkpoint, log, evaluation. Default: runs/RUN.")]
BundleFolder = Annotated[Path | None, typer.Option(help="Where the bundle is written. Default: bundle/ in --out.")]
Alpha = Annotated[float | None, typer.Option(help="Override alpha; 0 trains the pooled baseline, at the same budget.")]
AllowLoops = Annotated[bool, typer.Option("--allow-loops", help="Export even if users' replies loop.")]


def main() -> None:
    """The console script. An error of ours is one line, with its code and what to do about it."""
    try:
        app()
    except IdiolectError as error:
        sys.exit(f"{error.code}: {error.message}" + (f" ({error.hint})" if error.hint else ""))


@app.command()
def serve(
    bundle: Annotated[Path | None, typer.Option(help="The bundle folder to serve.")] = None,
    model: Annotated[str | None, typer.Option(help="Base model: demo, a folder, or a Hugging Face id.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
) -> None:
    """Serve a bundle over HTTP. Options stand for IDIOLECT_* variables; docs/settings.md has all of them."""
    for name, value in {"BUNDLE": bundle, "MODEL": model, "HOST": host, "PORT": port}.items():
        if value is not None:
            os.environ[f"IDIOLECT_{name}"] = str(value)
    from idiolect_server.serve import serve

    serve()


@app.command()
def train(
    run: RunFile,
    out: Out = None,
    bundle: BundleFolder = None,
    alpha: Alpha = None,
    allow_loops: AllowLoops = False,
) -> None:
    """Train a run, or resume it; then evaluate it and export its bundle."""
    _log()
    from idiolect_training.run import train

    train(run, out, bundle, alpha, allow_loops)


@app.command()
def evaluate(run: RunFile, out: Out = None, alpha: Alpha = None) -> None:
    """Measure a trained run on held-out comparisons, written to evaluation.json."""
    _log()
    from idiolect_training.run import evaluate

    evaluate(run, out, alpha)


@app.command()
def export(
    run: RunFile,
    out: Out = None,
    bundle: BundleFolder = None,
    alpha: Alpha = None,
    allow_loops: AllowLoops = False,
) -> None:
    """Write the bundle of an evaluated run."""
    _log()
    from idiolect_training.run import export

    export(run, out, bundle, alpha, allow_loops)


@app.command()
def study(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run files (YAML), one per method.")],
    out: Annotated[Path | None, typer.Option(help="Folder of runs and report. Default: runs/FIRST-study.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, from 0.")] = 3,
) -> None:
    """Train and evaluate runs with several seeds, a pooled baseline beside them, and write a report."""
    _log()
    from idiolect_training.run import study

    study(runs, out, seeds)


@app.command()
def judge(
    run: RunFile,
    url: Annotated[str, typer.Option(help="Base URL of an OpenAI-compatible endpoint, such as .../v1.")],
    model: Annotated[str, typer.Option(help="The endpoint's name of the judge.")],
    out: Out = None,
) -> None:
    """Ask a language model whom the replies of an evaluated run suit. OPENAI_API_KEY is the endpoint's key."""
    _log()
    from idiolect_training.run import judge

    judge(run, out, url, model, os.environ.get("OPENAI_API_KEY", "none"))  # local endpoints want none


@app.command()
def model() -> None:
    """Convert the demo model into the cache folder, if that was not done before, and print its folder."""
    from idiolect_training.demo_model import demo_model

    typer.echo(demo_model())


@app.command()
def keys() -> None:
    """Make an API key. Give the key to a caller and its digest to IDIOLECT_API_KEYS."""
    from idiolect_server.door.keys import new_key

    key, digest = new_key()
    typer.echo(f"key     {key}\ndigest  {digest}")


@bundles.command()
def accept(
    bundle: Annotated[Path, typer.Argument(help="The bundle folder.")],
    model: Annotated[str, typer.Argument(help="A copy of its base model: a folder, or a Hugging Face id.")],
) -> None:
    """Let a copy of the bundle's base model serve it although its bytes differ: another type, or quantized weights.

    The copy's replies are its own: look at some before you serve it. The bundle keeps its id.
    """
    from idiolect.base_model import CACHE_DIR, accept, locate

    copy = accept(bundle, locate(model, CACHE_DIR), model)
    typer.echo(f"{bundle}: {copy.name} ({copy.fingerprint[:12]}) may serve it")


@bundles.command()
def forget(bundle_id: Annotated[str, typer.Argument(help="16 hex digits, from the bundle's manifest.json.")]) -> None:
    """Delete what a bundle that is served no more has left in Redis. Takes the server's settings, to find it.

    Votes and profiles stay, and the bundle's folder: served again, its codes are stored and inferred anew.
    """
    import asyncio

    from idiolect_server.forget import forget
    from idiolect_server.settings import Settings

    typer.echo(f"{bundle_id}: {asyncio.run(forget(Settings.read(), bundle_id))} keys deleted")


def _log() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
