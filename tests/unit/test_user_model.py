"""Code -> user tokens: numpy (serving) and torch (training) must agree, bad codes must be refused."""

import numpy as np
import pytest
import torch

from idiolect.errors import UserCodeError
from training.config import UserModelConfig
from training.user_table import ClusterUsers, IndividualUsers, build_user_table

VOCABULARY = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
N_USERS = 5


def build(kind: str):
    config = UserModelConfig(kind=kind, n_user_tokens=3, n_clusters=4)
    return build_user_table(config, N_USERS, VOCABULARY, seed=1)


@pytest.mark.parametrize("kind", ["individual", "cluster"])
def test_numpy_and_torch_expand_alike(kind: str):
    table = build(kind)
    with torch.no_grad():
        table.offsets.normal_()
        if isinstance(table, ClusterUsers):
            table.generic_logits.normal_()
    model, codes = table.export()
    rows = torch.arange(N_USERS + 1)
    expected = table(rows).detach().numpy()
    served = np.stack([model.user_tokens(code) for code in [model.generic_code, *codes]])
    np.testing.assert_allclose(served, expected, atol=1e-6)
    assert model.code_size == codes.shape[1]


@pytest.mark.parametrize("kind", ["individual", "cluster"])
def test_everybody_starts_as_the_generic_user(kind: str):
    tokens = build(kind)(torch.arange(N_USERS + 1))
    assert torch.equal(tokens, tokens[:1].expand_as(tokens))


def test_the_generic_row_stays_generic_whatever_users_learn():
    table = build("individual")
    assert isinstance(table, IndividualUsers)
    before = table(torch.tensor([0])).detach().clone()
    with torch.no_grad():
        table.offsets.fill_(9.0)
    assert torch.equal(table(torch.tensor([0])), before)


def test_initial_embeddings_are_distinct_vocabulary_rows():
    clusters = build("cluster").clusters.detach().reshape(-1, 8)
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
    model, codes = build("cluster").export()
    with pytest.raises(UserCodeError):
        model.user_tokens(spoil(codes[0]))
