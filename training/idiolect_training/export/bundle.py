"""From a finished run to a bundle: user codes, basis and the LoRA in PEFT's format, or merged into the base."""

import json
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import save_file

from idiolect.base_model import DEMO, DEMO_NAME, identify
from idiolect.bundle import Bundle, write_bundle
from idiolect.manifest import AdapterWeights
from idiolect.trained_votes import TrainedVotes
from idiolect_training.config import RunConfig
from idiolect_training.demo_model import resolve
from idiolect_training.export.margin_error import margin_error
from idiolect_training.export.questions import build_bank
from idiolect_training.fit.policy import Policy
from idiolect_training.users.user_models import to_numpy


def export(
    run: RunConfig,
    policy: Policy,
    user_rows: dict[str, int],
    bundle: Path,
    trained_votes: TrainedVotes | None = None,
) -> Bundle:
    """Write the run's bundle to the folder `bundle`. User ids keep the order of their rows."""
    codes = policy.users.codes(policy.rows.values[1:].to(policy.device))
    bank = None if run.bank is None else build_bank(run, policy, user_rows)
    error = {} if bank is None else {"margin_error": margin_error(run, policy, bank, user_rows)}
    return write_bundle(
        bundle,
        base_model=identify(resolve(run.model)).model_copy(update={"name": _name(run)}),
        layout=policy.layout,
        user_model=policy.users.export(),
        user_ids=sorted(user_rows, key=user_rows.__getitem__),
        codes=to_numpy(codes),
        weights=AdapterWeights(rank=run.lora.rank, alpha=run.lora.alpha, target_modules=tuple(run.lora.target_modules)),
        write_weights=_adapter_writer(run, policy),
        training=run.portable() | error,
        bank=bank,
        cluster_names=run.cluster_names,
        decoding=run.decoding,
        trained_votes=trained_votes,
    )


def _name(run: RunConfig) -> str:
    """The base model's name for people: a Hugging Face snapshot's folder is named by a hash."""
    return DEMO_NAME if run.model == DEMO else Path(run.model).name.partition("@")[0]


def _adapter_writer(run: RunConfig, policy: Policy) -> Callable[[Path], None]:
    """PEFT's own files, written by hand so that no path of this machine gets into them."""

    def write(folder: Path) -> None:
        tensors = {
            name.replace(".default.", "."): parameter.detach().cpu().contiguous()
            for name, parameter in policy.lora_parameters().items()
        }
        save_file(tensors, folder / "adapter_model.safetensors")
        config = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": _name(run),
            "r": run.lora.rank,
            "lora_alpha": run.lora.alpha,
            "lora_dropout": 0.0,
            "target_modules": list(run.lora.target_modules),
            "bias": "none",
            "inference_mode": True,
        }
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")

    return write
