"""make openapi [CASES] (K1-openapi): requests that Schemathesis derives from the document, right and wrong, answered.

Without a state between them, on the real engine with a tiny random model. Each answer is compared with what the
document says of its status, media type, headers and body. `wrong_and_accepted` are requests that the document
forbids and the server answers all the same.
"""

import json
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import SkipTest

import psutil
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks

from bench.results import record
from idiolect_training.demo_model import demo_model
from tests.live import running_server
from tests.parts.tiny import tiny_bundle

CASES = 10_000
FEW_TOKENS = 4
"""Of a reply: what is measured is the server."""
LIMITS = {
    "/generate": "max_tokens",
    "/v1/chat/completions": "max_tokens",
    "/v1/completions": "max_tokens",
    "/v1/messages": "max_tokens",
    "/v1/responses": "max_output_tokens",
}
"""Where a reply is written, and the field that says how long it may be."""
SLOW = list(HealthCheck)
"""Of Hypothesis: forms as large as ours take long to draw, and that is fine here."""
KINDS = {
    checks.status_code_conformance: "undeclared_statuses",
    checks.content_type_conformance: "schema_violations",
    checks.response_headers_conformance: "schema_violations",
    checks.response_schema_conformance: "schema_violations",
    checks.negative_data_rejection: "wrong_and_accepted",
}


@dataclass
class Tally:
    """What came of the cases. `found` are descriptions of the first faults."""

    cases: int = 0
    routes: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    found: list[str] = field(default_factory=list)

    def fault(self, kind: str, what: str) -> None:
        self.faults[kind] += 1
        if len(self.found) < 40:
            self.found.append(f"{kind}: {what}"[:600])

    def value(self) -> dict[str, Any]:
        counted = dict.fromkeys((*KINDS.values(), "server_errors"), 0) | dict(self.faults)
        statuses = {str(status): n for status, n in sorted(self.statuses.items())}
        return {"cases": self.cases, "routes": self.routes, **counted, "statuses": statuses}


def shorter(case: Any) -> None:
    """The case with few tokens to write, where it says a number that is right anyway."""
    limit = LIMITS.get(case.path)
    if isinstance(case.body, dict) and limit is not None:
        for name in (limit, "max_completion_tokens", "min_tokens"):
            value = case.body.get(name)
            if type(value) is int and 1 <= value <= 8192:
                case.body[name] = min(value, FEW_TOKENS)
        if "max_completion_tokens" not in case.body:
            case.body.setdefault(limit, FEW_TOKENS)


def answered(case: Any, session: requests.Session, tally: Tally) -> None:
    """Send the case, and compare the answer."""
    shorter(case)
    try:
        response = case.call(session=session, timeout=120)
    except requests.Timeout:
        return tally.fault("server_errors", f"no answer in 120 s: {case.as_curl_command()[:300]}")
    tally.cases += 1
    tally.statuses[response.status_code] += 1
    said = f"{case.operation.label} {response.status_code} {response.content[:200]!r} {case.as_curl_command()[:300]}"
    if response.status_code >= 500:
        tally.fault("server_errors", said)
    for check, kind in KINDS.items():
        if kind == "wrong_and_accepted" and response.status_code >= 400:
            continue
        try:
            case.validate_response(response, checks=[check])
        except FailureGroup as failures:
            for failure in failures.exceptions:
                tally.fault(kind, f"{type(failure).__name__} {failure}; {said}")


def try_all(url: str, n_cases: int) -> Tally:
    """At least `n_cases` requests over all routes, as many that the document allows as that it forbids."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    tally, share, number = Tally(routes=len(operations)), max(1, n_cases // (2 * len(operations))), 0
    with requests.Session() as session:
        while tally.cases < n_cases:  # some routes take nothing, so that there is one request only
            for operation in operations:
                for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                    # Of a route that takes nothing, nothing can be wrong.
                    with suppress(Unsatisfiable, SkipTest):
                        _draw(operation.as_strategy(generation_mode=mode), share, number, session, tally)
            number += 1
    return tally


def _draw(cases: Any, n_cases: int, number: int, session: requests.Session, tally: Tally) -> None:
    @seed(number)
    @settings(max_examples=n_cases, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=SLOW)
    @given(case=cases)
    def send(case: Any) -> None:
        answered(case, session, tally)

    send()


def main() -> None:
    n_cases = int(sys.argv[1]) if len(sys.argv) > 1 else CASES
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        bundle, model, _ = tiny_bundle(folder, demo_model())
        # Short: of forms that say nothing of it, a reply is as long as the model allows.
        places = {"bundle": str(bundle.path), "model": str(model), "cache_dir": str(folder / "cache")}
        places["max_model_len"] = "256"
        log = stack.enter_context((folder / "server.log").open("wb"))
        url, process = stack.enter_context(running_server(log, **places, data_dir=str(folder / "data")))
        try_all(url, n_cases // 10)  # what a server takes once
        before_bytes = _memory_bytes(process.pid)
        tally = try_all(url, n_cases)
        value = tally.value() | {
            "memory": round(_memory_bytes(process.pid) / before_bytes, 3),
            "same_process": process.poll() is None,
            "tracebacks": (folder / "server.log").read_text(errors="replace").count("Traceback"),
        }
    value["found"] = tally.found
    if n_cases >= CASES:
        record("K1-openapi", value, "make openapi")
    else:
        json.dump(value, sys.stdout, indent=1)


def _memory_bytes(pid: int) -> int:
    """Of the server and its children, such as the engine."""
    server = psutil.Process(pid)
    return sum(process.memory_info().rss for process in (server, *server.children(recursive=True)))


if __name__ == "__main__":
    main()
