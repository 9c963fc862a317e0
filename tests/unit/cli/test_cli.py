"""The command `idiolect`: quick to answer, and in words when it cannot do what it was asked."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from idiolect_cli.main import app
from idiolect_server.door.keys import digest
from tests.live import ROOT
from tests.unit.project.test_imports import HEAVY

COMMANDS = ("serve", "train", "evaluate", "export", "study", "judge", "model", "keys", "bundle")


def idiolect(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "idiolect_cli", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_help_names_all_commands_and_loads_none_of_them():
    never = ("idiolect_server", "idiolect_training", "numpy", *HEAVY)
    code = (
        "import sys\nfrom idiolect_cli.main import app\n"
        "try:\n    app(['--help'])\nfinally:\n"
        f"    print([name for name in {never} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert all(f" {name} " in done.stdout for name in COMMANDS)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", [*COMMANDS, "bundle forget"])
def test_each_command_has_help(command: str):
    done = CliRunner().invoke(app, [*command.split(), "--help"])
    assert done.exit_code == 0, done.output
    assert "Usage" in done.output


def test_a_key_comes_with_its_digest():
    done = CliRunner().invoke(app, ["keys"])
    key, known = (line.split()[1] for line in done.stdout.splitlines())
    assert digest(key) == known


@pytest.mark.slow
def test_an_error_is_one_line_with_its_code_and_exit_status(tmp_path):
    done = idiolect("evaluate", str(tmp_path / "none.yaml"))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("bad_run_config: ")
    assert "Traceback" not in done.stderr
    assert idiolect("serve", "--port", "many").returncode == 2
