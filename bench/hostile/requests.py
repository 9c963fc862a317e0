"""make hostile-requests (H1-requests): hostile fields, forms and texts against the real server, beside a polite caller.

A tiny random model, so that what is measured is the server and not the model. The polite caller asks for one short
reply after the other; how much longer its slowest one takes while a case runs than the median alone is that case's
wait. Each case goes on for at least one polite reply.
"""

import json
import random
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil

from bench.results import record
from idiolect_training.demo_model import demo_model
from tests.live import running_server
from tests.parts.hostile_forms import outputs
from tests.parts.hostile_requests import CASES, SAID, body
from tests.parts.tiny import tiny_bundle

N_ALONE = 100
N_RANDOM = 60
N_AT_ONCE = 20
DOCUMENTED = {404, 413, 422}
DOCUMENTED_OPENAI = {400, 404, 413}
CHAT, GENERATE, FEEDBACK = "/v1/chat/completions", "/generate", "/feedback"

Sent = tuple[str, bytes, set[int]]
"""Path, body, statuses of which one is right."""


def random_pattern(rng: random.Random, depth: int = 3) -> str:
    """Nested repetitions of wide and narrow things, some behind a letter that random replies hardly take."""
    atom = rng.choice(["a", ".", r"\w", "[ab]", "z", r"\s"])
    inner = atom if depth == 0 or rng.random() < 0.3 else f"({random_pattern(rng, depth - 1)})"
    least = rng.randrange(0, 9)
    times = rng.choice(["*", "+", "?", "", f"{{{least},{least + rng.randrange(0, 90)}}}"])
    more = random_pattern(rng, depth - 1) if depth and rng.random() < 0.6 else ""
    return f"{inner}{times}{rng.choice(['', '|', 'z'])}{more}"


def forms() -> dict[str, list[Sent]]:
    """Each case of the tests, and random patterns: each may go on for 200 tokens."""
    found: dict[str, list[Sent]] = {name: [(CHAT, body(name, max_tokens=200), set(CASES[name][1]))] for name in CASES}
    rng = random.Random(0)
    for number in range(N_RANDOM):
        pattern = random_pattern(rng)
        sent = json.dumps({"messages": SAID, "max_tokens": 200, "temperature": 2, **outputs(regex=pattern)}).encode()
        found[f"random pattern: {number}"] = [(CHAT, sent, {200, 400})]
    return found


def texts() -> dict[str, list[Sent]]:
    """Each text, as long as a body may be, through each door, N_AT_ONCE at once."""
    size = 1_000_000
    all_texts = {
        "words": "word " * (size // 5),
        "one letter": "a" * size,
        "spaces": " " * size,
        "spaces, then words": " " * (size // 3) + "word " * (size // 10),
        "line breaks": "\n" * size,
        "marks": "<|im_end|>" * (size // 10),
        "digits": "7" * size,
        "emoji": "🙂" * (size // 12),
        "as long as may fit": "word " * 7000,
        "control": "a" * (size - 1) + "\0",
    }
    found: dict[str, list[Sent]] = {}
    for name, text in all_texts.items():
        said = [{"role": "user", "content": text}]
        half = text[: len(text) // 2]
        bodies: dict[str, dict[str, Any]] = {
            GENERATE: {"prompt": text, "max_tokens": 1},
            CHAT: {"messages": said, "max_tokens": 1},
            FEEDBACK: {"user_id": "u", "prompt": "Hi", "chosen": half, "rejected": half + "x"},
        }
        for path, sent in bodies.items():
            statuses = (DOCUMENTED_OPENAI if path == CHAT else DOCUMENTED) | {200}
            found[f"text: {name}, {path}"] = [(path, json.dumps(sent).encode(), statuses)] * N_AT_ONCE
    many = [{"role": "user", "content": "word " * 700}] * 256
    found["text: many messages"] = [(GENERATE, json.dumps({"messages": many}).encode(), DOCUMENTED)] * N_AT_ONCE
    return found


@dataclass
class Polite:
    """A caller who asks for one reply after the other, and takes the seconds of each."""

    url: str
    taken_s: list[float] = field(default_factory=list)
    failed: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    def ask(self) -> None:
        with httpx.Client(base_url=self.url, timeout=120) as http:
            while not self.stop.is_set():
                began_s = time.monotonic()
                answer = http.post(GENERATE, json={"user_id": "long", "prompt": "What is rain?", "max_tokens": 8})
                self.taken_s.append(time.monotonic() - began_s)
                self.failed += answer.status_code != 200


def is_documented(answer: httpx.Response, statuses: set[int]) -> bool:
    """Also the form of what is refused."""
    if answer.status_code not in statuses:
        return False
    if answer.status_code == 200:
        return True
    return bool(answer.json()["error"].keys() - {"type", "param"} == {"code", "message", "hint", "retryable"})


def beside(polite: Polite, work: Callable[[], None]) -> float:
    """The slowest polite reply that overlapped the work, in seconds."""
    first = len(polite.taken_s)
    work()
    last = len(polite.taken_s)
    while len(polite.taken_s) <= last:  # the one that was under way when the work ended
        time.sleep(0.005)
    return max(polite.taken_s[first:])


def main() -> None:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        bundle, model, _ = tiny_bundle(folder, demo_model())
        settings = {"bundle": str(bundle.path), "model": str(model), "cache_dir": str(folder / "cache")}
        settings |= {"data_dir": str(folder / "data")}
        log = stack.enter_context((folder / "server.log").open("wb"))
        url, process = stack.enter_context(running_server(log, **settings))
        http = stack.enter_context(httpx.Client(base_url=url, timeout=120))
        polite = Polite(url)
        thread = threading.Thread(target=polite.ask)
        thread.start()
        stack.callback(thread.join)
        stack.callback(polite.stop.set)
        while len(polite.taken_s) < N_ALONE:
            time.sleep(0.01)
        alone_s, memory_bytes = median(polite.taken_s[N_ALONE // 2 :]), psutil.Process(process.pid).memory_info().rss
        waits_s: dict[str, float] = {}
        undocumented: list[str] = []
        for case, sent in {**forms(), **texts()}.items():

            def send(sent: list[Sent] = sent, case: str = case) -> None:
                with ThreadPoolExecutor(len(sent)) as pool:
                    answers = pool.map(lambda one: (http.post(one[0], content=one[1], headers=JSON), one[2]), sent)
                    undocumented.extend(case for answer, right in answers if not is_documented(answer, right))

            waits_s[case] = max(0.0, beside(polite, send) - alone_s)
            sys.stderr.write(f"{waits_s[case]:.3f} s  {case}\n")
        kinds: dict[str, list[float]] = defaultdict(list)
        for case, wait_s in waits_s.items():
            kinds[case.partition(":")[0]].append(wait_s)
        grown_bytes = psutil.Process(process.pid).memory_info().rss - memory_bytes
        value = {
            "cases": len(waits_s),
            "undocumented": len(undocumented),
            "undocumented_cases": sorted(set(undocumented)),
            "worst_wait_s": round(max(waits_s.values()), 3),
            "worst_wait_of_kind_s": {kind: round(max(found), 3) for kind, found in kinds.items()},
            "median_wait_s": round(median(waits_s.values()), 3),
            "alone_s": round(alone_s, 3),
            "polite_failed": polite.failed,
            "same_process": process.poll() is None,
            "memory_grown_mib": grown_bytes >> 20,
        }
        sys.stdout.write(json.dumps(value, indent=2) + "\n")
    record("H1-requests", value)


JSON = {"content-type": "application/json"}

if __name__ == "__main__":
    main()
