"""What a newcomer does first, as the README says it: the demo, its snippets, and questions to a stranger."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from idiolect.bundle import Bundle
from tests import readme
from tests.conftest import Live
from tests.demo import WIDTH, Demo, without_times
from tests.live import ROOT

URL = "http://127.0.0.1:8000"
"""Where README's server is."""


@pytest.fixture(scope="module")
def url(live: Live) -> str:
    return live.url


def test_the_demo_prints_what_the_readme_shows(url: str):
    printed = io.StringIO()
    Demo(url, Console(width=WIDTH, highlight=False, file=printed)).tell()
    assert without_times(printed.getvalue()) == readme.block("demo")


def test_the_demo_tells_its_story():
    """As the README has it, so that nobody keeps a telling that shows nothing."""
    told = readme.block("demo")
    assert told.count("the first reply is back") == 2
    assert told.count("5 answers: 0 model calls, 32 bytes") == 2
    assert told.count("[inferred]") == 2
    assert told.count("[stored]") == 2


def test_the_shell_snippet_answers_as_a_known_user(url: str):
    (snippet,) = [text for text in readme.snippets("sh") if "curl" in text]
    done = subprocess.run(["bash", "-ec", snippet.replace(URL, url)], capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert answer["personalization"]["state"] == "stored"
    assert answer["text"]


def test_the_question_loop_asks_and_ends(url: str):
    (snippet,) = readme.snippets("python")
    done = subprocess.run(
        [sys.executable, "-c", snippet.replace(URL, url)], capture_output=True, text=True, check=True, timeout=120
    )
    *votes, last = done.stdout.strip().split("\n", done.stdout.count("counted inferred"))
    assert len(votes) >= 1
    assert set(votes) == {"counted inferred"}
    assert last.endswith(" inferred")
    assert httpx.get(f"{url}/users/bob").json()["known"] is False


def test_the_demo_bundle_learns_from_votes(url: str, demo_bundle: Bundle):
    status = httpx.get(f"{url}/status").json()
    assert status["votes_count"]
    assert status["questions"] >= 64
    assert len(status["cluster_names"]) >= 6
    n_bytes = sum(file.stat().st_size for file in demo_bundle.path.rglob("*") if file.is_file())
    assert n_bytes <= 12e6


def test_the_run_file_to_copy_is_the_one_in_the_tree():
    assert readme.block("run") == readme.RUN_FILE.read_text()


def test_the_five_commands_name_what_exists():
    (snippet,) = [text for text in readme.snippets("sh") if "idiolect train" in text]
    commands = snippet.strip().splitlines()
    assert len(commands) == 5
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.M))
    for command in commands:
        for target in re.findall(r"^make ([a-z-]+)", command):
            assert target in targets
        for file in re.findall(r" (training/\S+)", command):
            assert (ROOT / Path(file)).exists()
