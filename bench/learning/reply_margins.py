"""How much likelier held-out replies of the demo data are under each cluster of the demo bundle than generically.

`python -m bench.learning.reply_margins` writes reply_margins.json anew (ten minutes); it is kept, so that experiments
and tests with simulated strangers need no model. Margins are as the server's scorer takes them: in nats, of a whole
reply, relative to the generic user.
"""

import json
from pathlib import Path

import numpy as np
import torch

from bench.results import ROOT
from idiolect.bundle import Bundle
from idiolect.votes import Floats
from idiolect_server.releases.prepare import prepare
from idiolect_server.settings import Settings
from idiolect_training.config import RunConfig
from idiolect_training.data.everyday import TASTES, read
from idiolect_training.data.preferences import Preference
from idiolect_training.fit.batch import tokenize
from idiolect_training.fit.policy import Policy
from idiolect_training.progress import progress

DEMO = ROOT / "training" / "runs" / "demo"
MARGINS = Path(__file__).with_name("reply_margins.json")
BATCH_PAIRS = 8


def read_margins(bundle_id: str) -> Floats:
    """[prompts, replies in the order of TASTES, clusters]. Raises ValueError for those of another bundle."""
    kept = json.loads(MARGINS.read_text())
    if kept["bundle"] != bundle_id:
        raise ValueError(f"{MARGINS.name} is of bundle {kept['bundle']}, not of {bundle_id}")
    return np.array(kept["margins"], np.float64)


def measure(bundle: Bundle, model: str) -> Floats:
    """As `read_margins`, by the model into which the bundle's adapter is merged: a new LoRA adds nothing to it."""
    run = RunConfig.read(DEMO / "run.yaml").model_copy(update={"model": model})
    policy = Policy(run, 0)
    policy.model.eval()
    preferences = [
        Preference(user_id="anybody", prompt=row["prompt"], chosen=row["replies"][one], rejected=row["replies"][other])
        for row in read()
        if row["split"] == "test"
        for one, other in zip(TASTES[::2], TASTES[1::2], strict=True)
    ]
    kept, pairs = tokenize(
        preferences, policy.tokenizer, policy.layout, {}, run.max_prompt_tokens, run.max_reply_tokens
    )
    assert len(kept) == len(preferences)
    generic = bundle.user_model.generic_code
    logps = []
    for cluster in progress(range(len(generic)), "clusters"):
        tokens = torch.from_numpy(bundle.user_model.user_tokens(np.eye(len(generic), dtype=np.float32)[cluster]))
        logps.append(policy.score_tokens(pairs, tokens, BATCH_PAIRS).double().numpy().reshape(-1, len(TASTES)))
    each: Floats = np.stack(logps, axis=-1)
    return each - (each @ generic.astype(np.float64))[..., None]


def main() -> None:
    prepared = prepare(Settings(bundle=DEMO / "bundle"), lambda: True)
    margins = measure(prepared.bundle, prepared.model).round(2).tolist()
    MARGINS.write_text(json.dumps({"bundle": prepared.bundle.bundle_id, "margins": margins}) + "\n")


if __name__ == "__main__":
    main()
