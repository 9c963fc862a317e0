"""make gpu (U3): five minutes on a GPU host: does it start, is it exact, is it fast? Without a GPU, what needs none.

Each step is a process of its own, so that it finds the GPU's memory free, and a step that fails leaves the others.
"""

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.results import record
from tests.live import ROOT

LIMIT_S = 240
"""Of one step; a first start on a GPU compiles for one to two minutes."""
REPORT = ROOT / "runs" / "gpu"


def has_gpu() -> bool:
    return shutil.which("nvidia-smi") is not None and subprocess.run(["nvidia-smi", "-L"], check=False).returncode == 0


def exact(folder: Path, gpu: bool) -> Any:
    from bench.gpu.exactness import exactness

    return asyncio.run(exactness(_model(folder, gpu), None))


def lora(folder: Path, gpu: bool) -> Any:
    from bench.gpu.exactness import exactness
    from bench.gpu.models import write_adapter
    from idiolect_server.engine.base import Adapter

    model = _model(folder, gpu)
    return asyncio.run(exactness(model, Adapter("0123456789abcdef", write_adapter(folder / "adapter", model))))


def speed(folder: Path, gpu: bool) -> Any:
    from bench.gpu.speed import speed

    return asyncio.run(speed(_shape(folder, gpu), (64, 256) if gpu else (2, 4), 96 if gpu else 8))


def adapter(folder: Path, gpu: bool) -> Any:
    from bench.gpu.speed import live_over_merged
    from idiolect_server.engine.base import Adapter

    shape = _shape(folder, gpu)
    live = Adapter("0123456789abcdef", shape / "adapter")
    return asyncio.run(live_over_merged(shape, live, 64 if gpu else 2, 96 if gpu else 8))


def trainer(folder: Path, gpu: bool) -> Any:
    from bench.gpu.trainer import training

    return training(_model(folder, gpu), (8, 32) if gpu else (2,))


EXACT = ("exact", "lora")
STEPS: dict[str, Callable[[Path, bool], Any]] = {
    "exact": exact,
    "lora": lora,
    "speed": speed,
    "adapter": adapter,
    "trainer": trainer,
}


def _model(folder: Path, gpu: bool) -> Path:
    """The demo model on a GPU, a tiny one on a CPU."""
    from bench.gpu.models import TINY, write_random
    from idiolect_training.demo_model import demo_model

    return demo_model() if gpu else write_random(folder / "tiny", demo_model(), TINY)


def _shape(folder: Path, gpu: bool) -> Path:
    from bench.gpu.models import LLAMA_8B, TINY, write_shape
    from idiolect_training.demo_model import demo_model

    return write_shape(folder / "shape", demo_model(), LLAMA_8B if gpu else TINY)


def run(step: str, folder: Path, gpu: bool) -> dict[str, Any]:
    """What a step found, and its seconds; or how it failed."""
    command = [sys.executable, "-m", "bench.gpu.check", step, str(folder), "gpu" if gpu else "cpu"]
    began = time.monotonic()
    try:
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=LIMIT_S, check=False)
        found = (
            json.loads((folder / f"{step}.json").read_text()) if done.returncode == 0 else {"failed": done.returncode}
        )
    except subprocess.TimeoutExpired:
        found = {"failed": f"no end after {LIMIT_S} s"}
    return {**found, "seconds": round(time.monotonic() - began)}


def against(found: dict[str, Any]) -> dict[str, Any]:
    """The exactness of a step with what its difference is compared with: Hugging Face's own in that type."""
    if "failed" in found:
        return found
    ours, theirs = found["mean_difference_to_hf_float32"], found["mean_difference_of_hf_in_this_type"]
    return {**found, "over_hf_in_this_type": round(ours / theirs, 3) if theirs else None}


def main() -> None:
    gpu = has_gpu()
    if not gpu:
        sys.stdout.write(
            "No GPU here (nvidia-smi finds none): the dry part, every step on the CPU with a tiny model.\n"
        )
    value: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for step in STEPS:
            found = run(step, Path(folder), gpu)
            if step in EXACT:
                found = against(found)
            elif not gpu:  # how fast a tiny model is on a CPU says nothing
                found = {name: found[name] for name in ("failed", "seconds") if name in found}
            value[step] = found
            sys.stdout.write(f"{step}: {json.dumps(found)}\n")
            sys.stdout.flush()
    value["failed"] = sum("failed" in found for found in value.values())
    row = record("U3" if gpu else "U3-dry", value)
    REPORT.mkdir(parents=True, exist_ok=True)
    (REPORT / "report.json").write_text(json.dumps(row, indent=2) + "\n")
    sys.stdout.write(f"{'met' if row['met'] else 'NOT met'}: {', '.join(row['goals'])}\nreport: {REPORT}/report.json\n")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        step, where, device = sys.argv[1:]
        (Path(where) / f"{step}.json").write_text(json.dumps(STEPS[step](Path(where), device == "gpu")))
    else:
        main()
