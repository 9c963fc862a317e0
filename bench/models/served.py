"""make served-models (M2): tiny random models of each architecture, trained, exported, and served by real vLLM.

With the adapter live and merged, by mixed injection and, where vLLM's class takes user tokens, by passthrough: how far
the engine's log-probabilities of replies are from the trainer's, per token, users' tokens in their place.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch

from bench.results import record
from idiolect.bundle import Bundle
from idiolect.merge import merge_bundle
from idiolect.prompt.chat import place, reply_ids
from idiolect_server.engine.base import Adapter, EngineConfig
from idiolect_server.engine.injection import INJECTIONS
from idiolect_server.engine.plugin import ARCHITECTURES
from idiolect_server.engine.vllm import VllmEngine
from idiolect_server.errors import SettingsError
from idiolect_server.prompt import Placed, UserTokens
from idiolect_training.data.preferences import index_users
from idiolect_training.demo_model import demo_model
from idiolect_training.errors import BaseModelUnsupported
from idiolect_training.export.bundle import export
from idiolect_training.fit.batch import Pair
from idiolect_training.fit.loop import fit
from idiolect_training.fit.policy import Policy
from tests.live import ROOT
from tests.parts.architectures import PECULIARITIES, SERVED_OTHERWISE, lora_targets, tiny
from tests.parts.tiny import tiny_run

LIMIT_S = 900
"""For one architecture: five minutes beside another one, and as much again."""
CORES = sorted(os.sched_getaffinity(0))[:2]
"""One architecture each: most of its time goes into starting engines, which takes one core."""
REFUSED, FAILED = "refused: ", "failed: "
Found = dict[str, dict[str, float | str]]
SIZES = {"hidden_size": 128, "intermediate_size": 128, "head_dim": 32}
"""As small as vLLM has kernels for."""
ASKED = ("What is rain?", "How do I boil an egg? I have no pot, and the egg is large.")
REPLIES = ("Water falls from clouds.", "In a kettle, for eight minutes or a little more, and then cool it well.")


def windows(kind: str) -> dict[str, Any]:
    """Long enough that user tokens are seen from a reply; and Qwen's off, as they are published: vLLM refuses them."""
    named = (PECULIARITIES | SERVED_OTHERWISE)[kind]
    if "use_sliding_window" in named:
        return {"use_sliding_window": False, "sliding_window": None, "layer_types": None}
    return {"sliding_window": 32} if "sliding_window" in named else {}


def measure(kind: str, folder: Path) -> dict[str, float | str]:
    """The largest difference of each way to serve, in nats per token; or why it is not served so."""
    model = tiny(folder / "model", kind, demo_model(), **SIZES, **windows(kind))
    lora = {"rank": 8, "alpha": 16, "target_modules": list(lora_targets(kind))}
    run = tiny_run(folder / "run", model, lora=lora, epochs=2, lora_lr=0.02, row_lr=0.5)
    try:
        policy = fit(run, folder / "out")
    except BaseModelUnsupported as error:
        return {"trained": f"{REFUSED}{error.code}"}
    bundle = export(run, policy, index_users(run.data()[0]), folder / "bundle")
    merged = merge_bundle(bundle, model, folder / "merged")
    assert bundle.adapter_path is not None
    assert merged.model_path is not None
    live = Adapter(bundle.bundle_id, bundle.adapter_path)
    plain = EngineConfig(str(model), max_model_len=256, max_num_seqs=8)
    weights = {"live": replace(plain, adapter=live), "merged": replace(plain, model=str(merged.model_path))}
    passthrough = bundle.manifest.base_model.architecture in ARCHITECTURES
    return {
        f"{name} {injection}": served(replace(config, injection=injection), bundle, policy)
        for injection in INJECTIONS
        if passthrough or injection == "mixed"
        for name, config in weights.items()
    }


def served(config: EngineConfig, bundle: Bundle, policy: Policy) -> float | str:
    """The difference, or why there is none."""
    try:
        return asyncio.run(difference(config, bundle, policy))
    except SettingsError as error:
        return f"{REFUSED}{error.message}"
    except Exception as error:  # vLLM fails in many ways
        return f"{FAILED}{type(error).__name__}"


async def difference(config: EngineConfig, bundle: Bundle, policy: Policy) -> float:
    """Over prompts, replies and users: the largest mean difference per token of a reply."""
    engine, layout, worst, found = await VllmEngine.start(config), bundle.manifest.layout, 0.0, set[float]()
    try:
        for number, code in enumerate(bundle.codes):
            rows = bundle.user_model.user_tokens(code)
            for question in ASKED:
                prompt, offset = place([{"role": "user", "content": question}], layout, policy.tokenizer)
                for reply in REPLIES:
                    ids = reply_ids(reply, layout, policy.tokenizer)[: layout.max_reply_tokens]
                    whole = Placed([*prompt, *ids], offset, UserTokens(rows, bundle.bundle_id))
                    name = f"{number}-{question[:4]}-{reply[:4]}"
                    ours = await engine.score(whole, len(prompt), name, config.adapter)
                    pair = Pair(0, 0, tuple(prompt), tuple(ids), tuple(ids[:1]), offset)
                    theirs = policy.score_tokens([pair], torch.from_numpy(rows), 1)[0, 0]
                    found.add(round(float(theirs), 3))
                    worst = max(worst, abs(sum(ours) - float(theirs)) / len(ids))
    finally:
        engine.close()
    assert len(found) == len(bundle.codes) * len(ASKED) * len(REPLIES), "users differ in nothing"
    return worst


def run(kind: str, core: int) -> dict[str, float | str]:
    """`measure` in a process of its own, on one core: an engine that dies takes nothing with it."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["taskset", "-c", str(core), sys.executable, "-m", "bench.models.served", kind, folder]
        out, last = Path(folder) / "found.json", "no words"
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False)
            sys.stderr.write("" if out.exists() else done.stderr[-2000:])
            # The kind of the error only: its words may hold paths of this machine.
            last = (done.stderr.strip().splitlines() or [last])[-1].partition(":")[0][:80]
        except subprocess.TimeoutExpired:
            last = "TimeoutExpired"
        found = json.loads(out.read_text()) if out.exists() else {"measured": f"{FAILED}{last}"}
    sys.stdout.write(f"{kind}: {found}\n")
    sys.stdout.flush()
    return dict(found)


def _only(found: Found, begin: str) -> Found:
    """What is a text that begins so, by architecture and way."""
    kept = {
        name: {way: each for way, each in ways.items() if str(each).startswith(begin)} for name, ways in found.items()
    }
    return {name: ways for name, ways in kept.items() if ways}


def _numbers(found: Found) -> dict[str, dict[str, float]]:
    """What is a number, by architecture and way."""
    kept = {name: {way: each for way, each in ways.items() if isinstance(each, float)} for name, ways in found.items()}
    return {name: ways for name, ways in kept.items() if ways}


def main() -> None:
    kinds, free = [*PECULIARITIES, *SERVED_OTHERWISE], SimpleQueue[int]()
    for core in CORES:
        free.put(core)

    def on_a_core(kind: str) -> dict[str, float | str]:
        core = free.get()
        try:
            return run(kind, core)
        finally:
            free.put(core)

    with ThreadPoolExecutor(len(CORES)) as pool:
        found = dict(zip(kinds, pool.map(on_a_core, kinds), strict=True))
    numbers, refused, failed = _numbers(found), _only(found, REFUSED), _only(found, FAILED)
    value = {
        "served": sum(all(isinstance(each, float) for each in ways.values()) for ways in found.values()),
        "served_in_some_way": len(numbers),
        "failed": sum(map(len, failed.values())),
        "difference_nats": numbers,
        "refused": refused,
        "failures": failed,
    }
    sys.stdout.write(f"{record('M2', value)}\n")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        (Path(sys.argv[2]) / "found.json").write_text(json.dumps(measure(sys.argv[1], Path(sys.argv[2]))))
    else:
        main()
