"""What the trainer says where nobody watches, and how soon it says that a run cannot begin."""

import logging
import re
import subprocess
import sys
import time

import pytest
import yaml

from idiolect_training import progress as module
from idiolect_training.config import RunConfig
from idiolect_training.errors import BadRunConfig
from idiolect_training.progress import Progress, progress
from idiolect_training.run import SHOWN_USERS, check_files, summary
from tests.live import ROOT


@pytest.fixture
def clock(monkeypatch):
    """time.monotonic, to be set."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_line_now_and_then_without_a_terminal(clock, caplog, capsys):
    with caplog.at_level(logging.INFO), Progress("fit", 100, done=10) as steps:
        for _ in range(7):
            clock[0] += 10
            steps.advance(500, loss=0.61234)
    assert caplog.messages == [
        "fit: step 13 of 100, loss 0.612, 50 tokens/s, 0:14:30 left",
        "fit: step 16 of 100, loss 0.612, 50 tokens/s, 0:14:00 left",
    ]
    assert capsys.readouterr().err == ""


def test_a_bar_and_no_lines_on_a_terminal(clock, caplog, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with caplog.at_level(logging.INFO):
        for _ in progress(range(3), "replies"):
            clock[0] += 60
    assert caplog.messages == []
    assert "replies" in capsys.readouterr().err


def test_an_evaluation_of_many_users_is_logged_as_a_summary():
    users = {f"user-{n}": {"n_pairs": 3, "accuracy": 0.5} for n in range(SHOWN_USERS)}
    assert "user-0" in summary({"n_users": len(users), "users": users})
    many = summary({"n_users": 13, "accuracy": {"mean": 0.5}, "users": users | {"one-more": {}}})
    assert re.search(r'"users": "13, each in evaluation.json"', many)
    assert "user-0" not in many
    assert '"mean": 0.5' in many


@pytest.mark.parametrize("name", ["train", "test", "prompts"])
def test_data_that_is_not_there_is_named(tmp_path, name):
    here = tmp_path / "here.jsonl"
    here.touch()
    files = {"train": here, "test": here, "prompts": here, name: tmp_path / "gone.jsonl"}
    run = RunConfig(train=files["train"], test=files["test"], generate={"prompts": files["prompts"]})
    with pytest.raises(BadRunConfig, match=rf"{name}: .*gone.jsonl: no such file"):
        check_files(run)


@pytest.mark.slow
def test_a_missing_data_file_is_refused_at_once_and_without_torch(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"train": "gone.jsonl"}))
    code = (
        "import sys\nsys.modules['torch'] = sys.modules['transformers'] = None\n"
        f"sys.argv = ['idiolect', 'train', {str(file)!r}]\n"
        "from idiolect_cli.main import main\nmain()"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert time.monotonic() - began < 2
    assert done.returncode == 1
    assert done.stderr.startswith(f"bad_run_config: train: {tmp_path}/gone.jsonl: no such file"), done.stderr
