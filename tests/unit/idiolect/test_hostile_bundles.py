"""Bundles that somebody has changed and sealed again: each is refused in words, by the typed error of its kind."""

import json
import random
import shutil
import time
from itertools import islice
from pathlib import Path

import pytest

from bench.hostile.bundles import LONGEST_MESSAGE, large, originals, outcome
from bench.hostile.changes.sealing import reseal
from bench.hostile.mutants import mutants
from idiolect.bundle import Bundle
from idiolect.errors import BundleCorrupt
from idiolect.files.adapter import MUST_BE_OFF, _config
from idiolect.files.folder import ADAPTER_CONFIG, ADAPTER_TENSORS, BASIS, MANIFEST
from tests.live import DEMO_BUNDLE
from tests.parts.changed_bundles import CASES, UNSEALED, B, numbers, values

N_MUTANTS = 200
SLOWER = 10
"""How much longer than to read the demo bundle, which is sound, it may take to refuse another, where that is slow."""


def bound_s() -> float:
    """A second on most machines; `make hostile-bundles` measures seconds."""
    began = time.monotonic()
    Bundle.read(DEMO_BUNDLE)
    return max(1.0, SLOWER * (time.monotonic() - began))


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    return {bundle.path.name: bundle for bundle in originals(tmp_path_factory.mktemp("originals"))}


@pytest.mark.parametrize("case", CASES)
def test_a_changed_bundle_is_refused_in_words(bundles: dict[str, Bundle], tmp_path: Path, case: str):
    kind, change, error, words = CASES[case]
    path = Path(shutil.copytree(bundles[kind].path, tmp_path / "bundle"))
    change(path)
    if case not in UNSEALED:
        reseal(path)
    longest_s, began = bound_s(), time.monotonic()
    with pytest.raises(error, match=words) as refused:
        Bundle.read(path)
    assert time.monotonic() - began < longest_s
    assert len(refused.value.message) <= LONGEST_MESSAGE


@pytest.mark.parametrize("field", MUST_BE_OFF)
def test_what_peft_can_do_and_a_merge_cannot_is_refused_with_its_reason(
    bundles: dict[str, Bundle], tmp_path: Path, field: str
):
    path = Path(shutil.copytree(bundles["cluster"].path, tmp_path / "bundle"))
    values(ADAPTER_CONFIG, field, to={} if field.endswith("_pattern") else None)(path)
    reseal(path)
    Bundle.read(path)  # as PEFT writes it when it is off
    values(ADAPTER_CONFIG, field, to={"q_proj": 4} if field.endswith("_pattern") else True)(path)
    reseal(path)
    with pytest.raises(BundleCorrupt, match=f"{field} is not served: {MUST_BE_OFF[field][:20]}"):
        Bundle.read(path)


@pytest.mark.slow
def test_the_config_that_peft_writes_is_taken(tmp_path: Path):
    """Its every field has been thought of; one that a new PEFT adds is looked at before it is let in."""
    peft = pytest.importorskip("peft")
    peft.LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj"], task_type="CAUSAL_LM").save_pretrained(tmp_path)
    assert _config(json.loads((tmp_path / "adapter_config.json").read_text())).r == 2


def test_the_folder_itself_may_be_reached_through_a_link(bundles: dict[str, Bundle], tmp_path: Path):
    """As releases are kept: `current` is a link."""
    (tmp_path / "current").symlink_to(bundles["cluster"].path)
    assert Bundle.read(tmp_path / "current").bundle_id == bundles["cluster"].bundle_id


def test_free_text_is_free(bundles: dict[str, Bundle], tmp_path: Path):
    """What is for people changes no reply, and so no id."""
    path = Path(shutil.copytree(bundles["cluster"].path, tmp_path / "bundle"))
    values(MANIFEST, "training", to={"note": ["any", {"text": "\u2028 'tis free"}]})(path)
    values(MANIFEST, "cluster_names", to=["d", "c", "b", "a"])(path)
    reseal(path)
    assert Bundle.read(path).bundle_id == bundles["cluster"].bundle_id


def test_mutants_are_refused_or_read_as_other_readers_do(tmp_path: Path):
    """A share of H4-bundles (bench/hostile/bundles.py), from another seed."""
    rng, seen, longest_s = random.Random(1), [], bound_s()
    for original in originals(tmp_path):
        for mutant in islice(mutants(original.path, rng), N_MUTANTS // 4):
            what, taken_s = outcome(mutant, original, tmp_path / "changed")
            assert what in ("refused", "equal", "another"), (original.path.name, mutant.name, what)
            assert taken_s < longest_s, mutant.name
            seen.append(what)
    assert seen.count("refused") > N_MUTANTS / 2


def test_size_is_no_attack(tmp_path: Path):
    original = Bundle.read(DEMO_BUNDLE)
    for mutant in islice(large(), 0, None, 4):
        what, taken_s = outcome(mutant, original, tmp_path)
        assert (what, taken_s < bound_s()) == ("refused", True), mutant.name


@pytest.mark.parametrize("name", [BASIS, ADAPTER_TENSORS, ADAPTER_CONFIG])
def test_what_changes_after_the_check_is_noticed(bundles: dict[str, Bundle], tmp_path: Path, name: str):
    """By the time that the engine has opened the files again; also when the old file is put back."""
    path = Path(shutil.copytree(bundles["cluster"].path, tmp_path / "bundle"))
    bundle = Bundle.read(path)
    bundle.files.check_unchanged()
    content = (path / name).read_bytes()
    (path / name).write_bytes(content[:-1] + b"\0")
    with pytest.raises(BundleCorrupt, match=f"{name}: changed while it was being loaded"):
        bundle.files.check_unchanged()
    (path / name).write_bytes(content)
    with pytest.raises(BundleCorrupt, match="changed while it was being loaded"):
        bundle.files.check_unchanged()
    bundle = Bundle.read(path)
    (path / "adapter" / "more.safetensors").write_bytes(content)
    with pytest.raises(BundleCorrupt, match=r"more\.safetensors: came while the bundle was being loaded"):
        bundle.files.check_unchanged()


def test_a_merge_reads_the_adapter_that_was_checked(bundles: dict[str, Bundle], tmp_path: Path):
    path = Path(shutil.copytree(bundles["cluster"].path, tmp_path / "bundle"))
    bundle = Bundle.read(path)
    numbers(ADAPTER_TENSORS, B, lambda b: b * 2)(path)
    with pytest.raises(BundleCorrupt, match="differs from its digest"):
        bundle.adapter()
