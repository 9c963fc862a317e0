"""make own-data (G6): README's five commands, from 200 comparisons to a served bundle with a question bank, timed.

The commands are taken from README.md as they stand there. Then a stranger answers what the server asks.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import httpx

from bench.results import record
from idiolect_client import Client
from tests import readme
from tests.live import ROOT, free_port, wait_until_ready

COMMAND = "make own-data"
RUN = ROOT / "runs" / "mine"
N_LINES = 200


def main() -> None:
    (snippet,) = [text for text in readme.snippets("sh") if "idiolect train" in text]
    *prepare, serve = snippet.strip().splitlines()
    shutil.rmtree(RUN, ignore_errors=True)
    seconds = {}
    for command in prepare:
        began = time.monotonic()
        subprocess.run(["bash", "-ec", command], cwd=ROOT, check=True)
        seconds[command.split(" ", 1)[0] + " " + command.split(" ")[1]] = round(time.monotonic() - began, 1)
    port, began = free_port(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        env = os.environ | {"IDIOLECT_PORT": str(port), "IDIOLECT_DATA_DIR": folder}
        server = subprocess.Popen(["bash", "-ec", serve], cwd=ROOT, env=env, start_new_session=True)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_ready(url, server)
            seconds["make serve, until ready"] = round(time.monotonic() - began, 1)
            with Client(url) as client:
                status = client.status()
                answers = 0
                while (question := client.question("bob")) is not None:
                    shorter, longer = sorted((question.first, question.second), key=len)
                    client.feedback(user_id="bob", question_id=question.question_id, chosen=shorter, rejected=longer)
                    answers += 1
                reply = client.generate("How do I tune a violin?", user_id="bob", max_tokens=64)
            assert httpx.get(f"{url}/health/ready").status_code == 200
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(60)
    value = {
        "lines": len((RUN / "votes.jsonl").read_text().splitlines()),
        "commands": len(prepare) + 1,
        "questions": status.questions,
        "answers": answers,
        "state": reply.personalization.state,
        "seconds": seconds,
        "total_s": round(sum(seconds.values()), 1),
    }
    row = record("G6", value)
    sys.stdout.write(f"{row}\n")


if __name__ == "__main__":
    main()
