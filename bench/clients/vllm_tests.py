"""make vllm-tests (K2-vllm): vLLM's own tests of its OpenAI server, against `vllm serve` and against Idiolect.

Both with the same weights, the demo model's, and the same settings. Our server is asked for `NAME:base`: the base model
without adapter and user tokens, as any other name adds user tokens to the prompt, and then no text nor any count of
tokens could be the same. It is the whole server that answers: routes, bounds, errors, store. vLLM's tests come from its
source distribution when this runs, and are changed in the model's name and in who starts the server; a folder of that
name beside them has the tokenizer. `python -m bench.clients.vllm_tests FILE...` runs some files, and records nothing.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.clients.source import installed, unpacked
from bench.clients.vllm_reasons import reason
from bench.load.sides import vllm_serve
from bench.results import ROOT, provenance, record
from idiolect.bundle import Bundle
from idiolect_training.demo_model import demo_model
from tests.live import DEMO_BUNDLE, running_server

SUITE = ROOT / "bench" / "clients" / "vllm_suite"
PAGE = ROOT / "docs" / "results" / "vllm-tests.md"
PLUGINS = ("pytest-asyncio==1.5.0",)
TIMEOUT_S = 60
"""Of one test."""
OPENAI = "entrypoints/openai"
FILES = (
    f"{OPENAI}/chat_completion/test_batched_chat_completions.py",
    f"{OPENAI}/chat_completion/test_chat.py",
    f"{OPENAI}/chat_completion/test_chat_completion.py",
    f"{OPENAI}/chat_completion/test_chat_echo.py",
    f"{OPENAI}/chat_completion/test_chat_logit_bias_validation.py",
    f"{OPENAI}/chat_completion/test_completion_with_function_calling.py",
    f"{OPENAI}/chat_completion/test_logprob_token_ids.py",
    f"{OPENAI}/completion/test_completion.py",
    f"{OPENAI}/completion/test_prompt_validation.py",
    f"{OPENAI}/models/test_models.py",
    f"{OPENAI}/responses/test_simple.py",
    f"{OPENAI}/test_chunked_prompt.py",
    f"{OPENAI}/test_return_token_ids.py",
    f"{OPENAI}/test_return_tokens_as_ids.py",
    "entrypoints/anthropic/test_messages.py",
    "entrypoints/serve/instrumentator/test_basic.py",
    "entrypoints/serve/tokenize/test_tokenization.py",
)
"""Those that ask a running server for texts. Left out are files about images, sound, embeddings, gpt-oss and its own
tools, and about flags of `vllm serve` by which another server would have to be started (docs/results/vllm-tests.md)."""
SETTINGS = {"tool_call_parser": "hermes", "adapter": "live", "max_num_seqs": "64"}
FLAGS = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")

Outcomes = dict[str, dict[str, str]]
"""`outcome` and what was `said`, by test."""


def adapted(tests: Path, folder: Path, model: str) -> None:
    """A folder in which they can run, with the model's name in place of those that they have."""
    shutil.copytree(tests / "entrypoints", folder / "tests" / "entrypoints")
    (folder / "tests" / "__init__.py").touch()
    shutil.copy(SUITE / "server.py", folder / "tests" / "utils.py")
    shutil.copy(SUITE / "outcomes.py", folder / "tests" / "conftest.py")
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_mode = strict\n")
    (folder / model).symlink_to(demo_model())
    for name in FILES:
        file = folder / "tests" / name
        file.write_text(renamed(file.read_text(), model))
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder / "plugins"), *PLUGINS]
    subprocess.run(pip, check=True, capture_output=True)


def renamed(text: str, model: str) -> str:
    """A file of tests about that model: theirs, its adapters and its other names are called so, and not fetched."""
    theirs = re.findall(r'^ *(?:MODEL_NAME|model_name) = "(.*)"', text, re.M)
    theirs += re.findall(r'"((?:zephyr|qwen3)-lora|claude-[\w-]+)"', text)
    for name in theirs:
        text = text.replace(f'"{name}"', f'"{model}"')
    return re.sub(r"hf_api\(\)\.snapshot_download\([^)]*\)", '"none"', text)


def outcomes(folder: Path, files: list[str], url: str, side: str) -> Outcomes:
    kept = folder / f"{side}.jsonl"
    paths = f"{folder}:{folder / 'plugins'}"
    environment = {**os.environ, "PYTHONPATH": paths, "VLLM_TESTS_URL": url, "VLLM_TESTS_OUTCOMES": str(kept)}
    environment |= {"VLLM_PLUGINS": "", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-c", "pytest.ini", "--timeout", str(TIMEOUT_S), "--no-header"]
    command += ["-p", "no:cacheprovider", *(f"tests/{name}" for name in files)]
    with (folder / f"{side}.log").open("wb") as log:
        subprocess.run(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False)
    found = Outcomes()
    for line in kept.read_text().splitlines() if kept.exists() else ():
        one = json.loads(line)
        found.setdefault(one["test"].removeprefix("tests/entrypoints/"), one)
    return found


def compared(files: list[str]) -> tuple[Outcomes, Outcomes]:
    """On `vllm serve`, and on Idiolect: one after the other, as both want all cores."""
    with tempfile.TemporaryDirectory() as root, ExitStack() as stack:
        folder = Path(root)
        name = f"{Bundle.read(DEMO_BUNDLE).manifest.base_model.name}:base"
        adapted(unpacked("vllm", installed(), folder) / "tests", folder, name)
        with vllm_serve(demo_model(), folder / "plain.log", "--served-model-name", name, *FLAGS) as url:
            plain = outcomes(folder, files, url, "vllm")
        log = stack.enter_context((folder / "ours.log").open("wb"))
        url, _ = stack.enter_context(running_server(log, **SETTINGS, data_dir=str(folder / "data")))
        return plain, outcomes(folder, files, url, "idiolect")


def verdicts(plain: Outcomes, ours: Outcomes) -> list[dict[str, str]]:
    """A row for each test: how it went on each, and why it differs, where that is documented."""
    rows = []
    for test in sorted(plain.keys() | ours.keys()):
        there, here = (side.get(test, {"outcome": "absent", "said": ""}) for side in (plain, ours))
        row = {"test": test, "vllm": there["outcome"], "idiolect": here["outcome"], "reason": "", "said": ""}
        if there["outcome"] != here["outcome"]:
            row |= {"reason": reason(test) or "", "said": here["said"]}
        rows.append(row)
    return rows


def value(rows: list[dict[str, str]]) -> dict[str, Any]:
    lost = [row for row in rows if row["vllm"] == "passed" != row["idiolect"]]
    pairs = Counter(f"{row['vllm']} there, {row['idiolect']} here" for row in rows)
    return {
        "tests": len(rows),
        "passed_by_both": pairs["passed there, passed here"],
        "passed_by_vllm_only": len(lost),
        "without_a_reason": sum(not row["reason"] for row in lost),
        "pairs": dict(pairs),
        "unexplained": [f"{row['test']}: {row['said']}" for row in lost if not row["reason"]],
    }


def page(rows: list[dict[str, str]]) -> str:
    source = provenance("make vllm-tests")
    heading = (SUITE / "page.md").read_text()
    lines = [f"| `{row['test']}` | {row['vllm']} | {row['idiolect']} | {row['reason']} |" for row in rows]
    table = "\n".join(["| test | `vllm serve` | Idiolect | why it differs |", "| --- | --- | --- | --- |", *lines])
    return (
        f"{heading}\n`make vllm-tests`. {source['machine']}; commit {source['commit']}; {source['date']}.\n\n{table}\n"
    )


def main() -> None:
    files = sys.argv[1:] or list(FILES)
    rows = verdicts(*compared(files))
    found = value(rows)
    if files == list(FILES):
        record("K2-vllm", found)
        PAGE.write_text(page(rows))
    else:
        found["rows"] = [row for row in rows if row["vllm"] != row["idiolect"]]
    json.dump(found, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
