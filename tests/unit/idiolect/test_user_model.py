"""Code -> user tokens: numpy (serving) and torch (training) must agree, bad codes must be refused."""

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from idiolect.errors import UserCodeError
from idiolect_training.users.config import UserModelConfig
from idiolect_training.users.user_models import build_user_table, to_numpy

VOCABULARY = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
N_USERS = 5
KINDS = ["uniform", "individual", "cluster", "low_rank"]


def build(kind: str, **settings):
    config = {"kind": kind, "n_user_tokens": 3} | ({"n_clusters": 4} if kind == "cluster" else {}) | settings
    return build_user_table(TypeAdapter(UserModelConfig).validate_python(config), N_USERS, VOCABULARY, seed=1)


def export(kind: str):
    table, rows = build(kind)
    return table.export(), to_numpy(table.codes(rows.values[1:]))


@pytest.mark.parametrize("kind", KINDS)
def test_numpy_and_torch_expand_alike(kind: str):
    table, rows = build(kind)
    rows.values[1:].normal_()
    with torch.no_grad():
        for parameter in table.parameters():
            parameter.normal_()
    model, codes = table.export(), to_numpy(table.codes(rows.values[1:]))
    expected = table(rows.values).detach().numpy()
    served = np.stack([model.user_tokens(code) for code in [model.generic_code, *codes]])
    np.testing.assert_allclose(served, expected, atol=1e-5)
    assert model.code_size == codes.shape[1]
    assert model.n_user_tokens == 3


@pytest.mark.parametrize("kind", KINDS)
def test_everybody_starts_as_the_generic_user(kind: str):
    table, rows = build(kind)
    tokens = table(rows.values)
    assert torch.equal(tokens, tokens[:1].expand_as(tokens))


def test_the_papers_start_gives_each_user_own_vocabulary_rows():
    table, rows = build("individual", start="vocabulary")
    tokens = table(rows.values).detach().reshape(-1, 8)
    distances = (tokens[:, None] - VOCABULARY[None]).abs().amax(-1)
    assert (distances.amin(1) < 1e-5).all()
    assert len(set(distances.argmin(1).tolist())) == 3 * (N_USERS + 1)


@pytest.mark.parametrize("kind", ["individual", "cluster", "low_rank"])
def test_gradients_of_rows_and_shared_weights_equal_finite_differences(kind: str):
    """B7: the user path in double precision."""
    table, rows = build(kind)
    table = table.double()
    leaf = torch.randn(3, rows.width, dtype=torch.double, requires_grad=True)
    names, shared = zip(*table.named_parameters(), strict=True)

    def expand(leaf, *weights):
        return torch.func.functional_call(table, dict(zip(names, weights, strict=True)), (leaf,)).sin()

    assert torch.autograd.gradcheck(expand, (leaf, *shared))


def test_initial_embeddings_are_distinct_vocabulary_rows():
    clusters = build("cluster")[0].clusters.detach().reshape(-1, 8)
    matches = (clusters[:, None] == VOCABULARY[None]).all(-1)
    assert matches.sum(1).tolist() == [1] * 12
    assert matches.any(0).sum() == 12


@pytest.mark.parametrize(
    "spoil",
    [
        lambda code: code[:-1],
        lambda code: np.append(code, 0),
        lambda code: code * np.nan,
        lambda code: code + np.inf,
        lambda code: code[None],
        lambda code: code * 3 + 1,
        lambda code: code - 1,
    ],
)
def test_bad_cluster_codes_are_refused(spoil):
    model, codes = export("cluster")
    with pytest.raises(UserCodeError):
        model.user_tokens(spoil(codes[0]))
