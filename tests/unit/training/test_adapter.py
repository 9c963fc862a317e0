"""LoRA settings that cannot be trained or served are refused before any weight is read."""

import pytest
from pydantic import ValidationError

from idiolect_training.config import LoraConfig
from idiolect_training.errors import BadRunConfig
from idiolect_training.fit import policy
from idiolect_training.fit.adapter import check_lora
from idiolect_training.fit.base import read_config
from idiolect_training.fit.loop import fit
from tests.parts.architectures import tiny
from tests.parts.tiny import tiny_run


@pytest.fixture(scope="module")
def tied(tmp_path_factory, model_path):
    return tiny(tmp_path_factory.mktemp("tied"), "llama", model_path)


@pytest.fixture(scope="module")
def untied(tmp_path_factory, model_path):
    return tiny(tmp_path_factory.mktemp("untied"), "llama", model_path, tie_word_embeddings=False)


@pytest.mark.parametrize(
    ("targets", "wrong"),
    [
        (["lm_head"], "lm_head is tied to the embedding"),
        (["embed_tokens"], "embed_tokens is tied to the embedding"),
        (["q_proj", "lm_head"], "lm_head is tied to the embedding"),
        (["q_porj"], "q_porj is no linear layer of LlamaForCausalLM"),
        (["all-linear"], "all-linear is no linear layer"),
        (["q_proj|k_proj"], "is no linear layer"),
        (["norm", "nothing"], "norm is no linear layer of LlamaForCausalLM, nothing is no linear layer"),
        (["self_attn"], "is no linear layer"),
        ([""], "is no linear layer"),
        (["layers.0.self_attn.q_proj"], None),
        (["q_proj", "down_proj"], None),
    ],
)
def test_modules_of_a_tied_model(tied, targets, wrong):
    lora = LoraConfig(target_modules=targets)
    if wrong is None:
        check_lora(lora, read_config(tied))
        return
    with pytest.raises(BadRunConfig, match=r"^lora.target_modules: ") as refused:
        check_lora(lora, read_config(tied))
    assert wrong in refused.value.message
    assert refused.value.hint == "there are down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"


def test_what_no_bundle_holds_is_refused_before_training():
    for wrong in ({"alpha": 2_000_000}, {"rank": 513}, {"target_modules": ["q_proj", "q_proj"]}):
        with pytest.raises(ValidationError):
            LoraConfig.model_validate(wrong)


def test_an_untied_head_may_have_a_lora_but_an_embedding_may_not(untied):
    check_lora(LoraConfig(target_modules=["lm_head"]), read_config(untied))
    with pytest.raises(BadRunConfig, match="embed_tokens is no linear layer"):
        check_lora(LoraConfig(target_modules=["embed_tokens"]), read_config(untied))


def test_other_families_have_other_names(tmp_path, model_path):
    config = read_config(tiny(tmp_path, "phi3", model_path))
    with pytest.raises(BadRunConfig, match="q_proj is no linear layer of Phi3ForCausalLM") as refused:
        check_lora(LoraConfig(), config)
    assert refused.value.hint == "there are down_proj, gate_up_proj, lm_head, o_proj, qkv_proj"
    check_lora(LoraConfig(target_modules=["qkv_proj"]), config)


def test_fit_refuses_before_it_reads_weights(tmp_path, tied, monkeypatch):
    monkeypatch.setattr(policy, "load", None)
    run = tiny_run(tmp_path / "run", tied, lora={"target_modules": ["lm_head"]})
    with pytest.raises(BadRunConfig):
        fit(run, tmp_path / "out")


def test_ranks_that_are_not_served_are_refused():
    assert LoraConfig(rank=512).rank == 512
    with pytest.raises(ValidationError, match="less than or equal to 512"):
        LoraConfig(rank=513)
