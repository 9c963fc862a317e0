"""Where base models are found: folders, ids with revisions, and what is not to be had, in words."""

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from idiolect.base_model import DEMO, DEMO_NAME, locate
from idiolect.errors import ModelMissing


def test_the_demo_model_has_its_place_in_the_cache_and_a_folder_is_itself(tmp_path: Path):
    assert locate(DEMO, tmp_path) == tmp_path / "models" / DEMO_NAME
    assert locate(str(tmp_path), tmp_path / "cache") == tmp_path


def test_an_id_is_fetched_at_its_revision_without_other_forms_of_the_weights(monkeypatch: pytest.MonkeyPatch):
    asked: dict[str, Any] = {}

    def fetch(name: str, **more: Any) -> str:
        asked.update(more, name=name)
        return "/models/snapshot"

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert locate("org/name@v1.2", Path("cache")) == Path("/models/snapshot")
    assert (asked["name"], asked["revision"]) == ("org/name", "v1.2")
    assert {"original/*", "consolidated*"} <= set(asked["ignore_patterns"])
    locate("org/name", Path("cache"))
    assert asked["revision"] is None


@pytest.mark.parametrize("model", ["no/such/folder", "one word"])
def test_what_is_no_model_is_said_in_one_line(model: str):
    with pytest.raises(ModelMissing, match=r"no folder, and not to be had from Hugging Face: .+"):
        locate(model, Path("cache"))


def test_a_machine_without_a_network_says_so(monkeypatch: pytest.MonkeyPatch):
    def fail(*args: Any, **more: Any) -> str:
        raise LocalEntryNotFoundError("outgoing traffic is disabled\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ModelMissing, match=r"outgoing traffic is disabled$"):
        locate("org/name", Path("cache"))
