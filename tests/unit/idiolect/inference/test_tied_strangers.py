"""What `make ties` measures, in small: ties help strangers who have them, and change nothing for others."""

import numpy as np
import pytest

from bench.people.tied_strangers import PRIORS, STRANGERS, Stranger, choosing, readily, within


def test_voters_answer_as_they_are_said_to():
    rng = np.random.default_rng(0)
    assert set(choosing(np.zeros(100), rng)) == {0, 1}
    shares = np.bincount(readily(1.0)(np.zeros(30_000), rng)) / 30_000
    assert shares == pytest.approx([1 / 3] * 3, abs=0.02)
    assert within(1.0)(np.array([-5.0, -0.9, 0.0, 0.9]), rng)[1:].tolist() == [2, 2, 2]
    assert (readily(1.0)(np.full(100, 30.0), rng) == 0).all()


@pytest.mark.parametrize("kind", PRIORS)
def test_ties_help_those_who_have_them_and_harm_nobody(kind: str):
    for name, least in (("nobody ties", 0.0), ("within 2 temperatures", 0.01)):
        rng, ahead = np.random.default_rng(1), []
        for _ in range(25):
            stranger = Stranger.drawn(STRANGERS[name], kind == "clusters", 4.0, 8, rng)
            used, dropped = (stranger.right(PRIORS[kind], 8, way) for way in ("used", "dropped"))
            ahead.append(used - dropped)
        assert np.mean(ahead) >= least
        assert any(ahead) == (name != "nobody ties")
