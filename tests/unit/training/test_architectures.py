"""Every architecture that is trained: the trainer's log-probabilities are those of the model's own forward."""

import re
from functools import cache
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from idiolect import architectures
from idiolect_server.engine.plugin import ARCHITECTURES
from idiolect_training.errors import BaseModelUnsupported
from idiolect_training.fit import policy as policy_module
from idiolect_training.fit.base import TRAINED, read_config
from idiolect_training.fit.batch import Pair
from idiolect_training.fit.loop import fit
from idiolect_training.fit.policy import Policy
from idiolect_training.reward_track.features import Text, _Encoder
from tests.conftest import Evidence
from tests.live import ROOT
from tests.parts.architectures import PECULIARITIES, SERVED_OTHERWISE, lora_targets, tiny
from tests.parts.tiny import tiny_run


def drawn_pairs(n: int) -> list[Pair]:
    """Longer than the windows, of unequal lengths."""
    draw = torch.Generator().manual_seed(1)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, 49152, (length,), generator=draw).tolist())

    return [Pair(i, 0, ids(14 + 3 * i), ids(5 + 4 * i), ids(12 - i), offset=3) for i in range(n)]


def own_logps(folder: Path, prompt: tuple[int, ...], reply: tuple[int, ...]) -> torch.Tensor:
    """Of a reply's tokens, by the model alone: plain ids of one sequence, attention written out."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    ids = torch.tensor([[*prompt, *reply]])
    with torch.no_grad():
        logps = model(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    return logps.gather(-1, ids[0, len(prompt) :, None])[:, 0]


def run_of(tmp_path: Path, model: Path, kind: str, **changes: object):
    lora = {"rank": 2, "alpha": 4, "target_modules": lora_targets(kind)}
    return tiny_run(tmp_path / "run", model, **{"lora": lora, "epochs": 1} | changes)


@pytest.fixture(scope="module")
def difference(tmp_path_factory: pytest.TempPathFactory, model_path: Path):
    """difference(kind): the largest, in nats a reply, between the trainer and the model itself."""

    @cache
    def measure(kind: str) -> float:
        folder = tmp_path_factory.mktemp(kind)
        model = tiny(folder / "model", kind, model_path)
        policy = Policy(run_of(folder, model, kind), n_users=2)
        pairs = drawn_pairs(3)
        policy.prove(pairs)
        found = policy.score(pairs, None, 3, "score")
        own = [[own_logps(model, p.prompt_ids, r).sum().item() for r in (p.chosen_ids, p.rejected_ids)] for p in pairs]
        # The adapter and the users are on the same path: gradients reach both.
        policy.model.train()
        policy.pair_logps(pairs, policy.users(policy.rows.gather(torch.tensor([1, 1, 2])))).sum().backward()
        gradients = [p.grad for p in (policy.lora_parameters() | policy.user_parameters()).values()]
        assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)
        assert policy.users.generic.grad.abs().max() > 0
        return float((found - torch.tensor(own)).abs().max())

    return measure


@pytest.mark.slow
@pytest.mark.parametrize("kind", PECULIARITIES)
def test_log_probabilities_are_the_models_own(kind, difference):
    assert difference(kind) <= 1e-4


def test_what_was_measured_is_kept(difference, evidence: Evidence):
    """M2: all of them, which is quick when the tests above have run."""
    found = {kind: float(f"{difference(kind):.1e}") for kind in PECULIARITIES}
    evidence("M2-train", {"architectures": len(found), "worst_difference_nats": found})


def test_features_hold_the_models_own_log_probabilities(tmp_path, model_path):
    model = tiny(tmp_path / "model", "gemma2", model_path)
    encoder = _Encoder(model)
    texts = [
        Text("Why is the sky blue, and not another colour?", "It scatters."),
        Text("Hm?", "No idea, ask somebody."),
    ]
    split = [encoder._tokenize(text) for text in texts]
    for (prompt, reply), values in zip(split, encoder._forward(split), strict=True):
        own = own_logps(model, tuple(prompt), tuple(reply))
        assert values[:2].tolist() == pytest.approx([own.mean().item(), own.sum().item()], abs=1e-4)
        assert values[2:].shape == (4 * 32,)


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_user_tokens_start_as_words_do(tmp_path, model_path, kind):
    """Gemma multiplies its embeddings by the root of their width: what stands beside words must be as long."""
    policy = Policy(run_of(tmp_path, tiny(tmp_path / "model", kind, model_path), kind), n_users=2)
    words = policy.model.get_input_embeddings()(torch.arange(49152))
    assert all((words == token).all(1).any() for token in policy.users.generic)


@pytest.mark.parametrize("kind", ["gpt2", "opt", "falcon", "mamba"])
def test_others_are_refused_in_one_sentence_before_training(tmp_path, model_path, kind):
    small = {"word_embed_proj_dim": 32, "ffn_dim": 48, "n_embd": 32, "n_head": 4, "n_layer": 2, "state_size": 4}
    model = tiny(tmp_path / "model", kind, model_path, **small)
    run = tiny_run(tmp_path / "run", model)
    with pytest.raises(BaseModelUnsupported, match=r"the architecture \w+ cannot be trained") as refused:
        fit(run, tmp_path / "out")
    assert "Llama" in refused.value.hint
    with pytest.raises(BaseModelUnsupported):
        _Encoder(model)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", SERVED_OTHERWISE)
def test_what_could_not_be_served_as_it_was_trained_is_refused_in_one_sentence(tmp_path, model_path, kind):
    run = tiny_run(tmp_path / "run", tiny(tmp_path / "model", kind, model_path))
    with pytest.raises(BaseModelUnsupported, match="cannot be trained: vLLM computes it otherwise"):
        fit(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_refused_is_one_list_for_trainer_and_server():
    assert not architectures.SERVED_OTHERWISE & (TRAINED.keys() | ARCHITECTURES.keys())
    assert len(architectures.SERVED_OTHERWISE) == len(SERVED_OTHERWISE)


def test_a_folder_without_a_readable_config_is_refused(tmp_path):
    for text in (None, "{", "[]", "{}"):
        if text is not None:
            (tmp_path / "config.json").write_text(text)
        with pytest.raises(BaseModelUnsupported):
            read_config(tmp_path)


@pytest.mark.parametrize(("kind", "precision"), [("granite", "fp32"), ("granite", "bf16"), ("mistral", "fp32")])
def test_a_policy_that_is_not_the_model_is_refused(tmp_path, model_path, kind, precision, monkeypatch):
    """As if the trainer forgot what the family does to its logits, or its window."""
    model = tiny(tmp_path / "model", kind, model_path)
    policy = Policy(run_of(tmp_path, model, kind, precision=precision), n_users=2)
    policy.prove(drawn_pairs(3))
    if kind == "mistral":
        monkeypatch.setattr(policy_module, "masks", lambda model, batch: batch.visible())
    else:
        right = policy_module.logits_at

        def scaled(*args, **inputs):
            logits, output = right(*args, **inputs)
            return logits * 8, output

        monkeypatch.setattr(policy_module, "logits_at", scaled)
    with pytest.raises(BaseModelUnsupported, match="differ from the model's own by"):
        policy.prove(drawn_pairs(3))


def test_fit_asks_for_the_proof(tmp_path, model_path, monkeypatch):
    monkeypatch.setattr(policy_module, "masks", lambda model, batch: batch.visible())
    model = tiny(tmp_path / "model", "mistral", model_path)
    with pytest.raises(BaseModelUnsupported):
        fit(run_of(tmp_path, model, "mistral"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_documented_table_is_the_trainers_and_the_servers():
    page = (ROOT / "docs" / "training.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (yes|refused)[^|]* \| (yes|no)[^|]* \| ([^|]*) \|$", page, re.M)
    assert {name for name, trained, *_ in rows if trained == "yes"} == TRAINED.keys()
    assert {name for name, _, passthrough, _ in rows if passthrough == "yes"} == ARCHITECTURES.keys()
    refused = {name for name, trained, *served in rows if {trained, *served} == {"refused", "no"}}
    assert refused >= architectures.SERVED_OTHERWISE
    assert len(PECULIARITIES) == len(TRAINED)
