"""How outcomes of vLLM's tests on two servers are compared; `make vllm-tests` runs them."""

from bench.clients import vllm_reasons
from bench.clients.vllm_tests import Outcomes, page, renamed, value, verdicts


def outcomes(**found: str) -> Outcomes:
    return {test: {"outcome": outcome, "said": f"{test} said"} for test, outcome in found.items()}


def test_only_what_passes_there_and_not_here_wants_a_reason(monkeypatch):
    monkeypatch.setattr(vllm_reasons, "REASONS", {"meant": "documented"})
    there = outcomes(both="passed", meant="passed", lost="passed", absent="passed", neither="failed", ours="failed")
    here = outcomes(both="passed", meant="failed", lost="failed", neither="failed", ours="passed")
    rows = verdicts(there, here)
    found = value(rows)
    assert (found["tests"], found["passed_by_both"], found["passed_by_vllm_only"]) == (6, 1, 3)
    assert (found["without_a_reason"], found["unexplained"]) == (2, ["absent: ", "lost: lost said"])
    table = page(rows)
    assert "| `meant` | passed | failed | documented |" in table
    assert "| `both` | passed | passed |  |" in table


def test_tests_are_changed_in_the_name_of_the_model():
    theirs = (
        'MODEL_NAME = "a/b"\n@parametrize("m", ["a/b", "zephyr-lora"])\nreturn hf_api().snapshot_download(repo_id="x")'
    )
    ours = 'MODEL_NAME = "m:base"\n@parametrize("m", ["m:base", "m:base"])\nreturn "none"'
    assert renamed(theirs, "m:base") == ours
