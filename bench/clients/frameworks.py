"""make clients (K3): clients that nobody here wrote, unmodified, against the real server with the demo bundle.

Each client's script runs twice with one user: as a stranger, and when that user has answered five questions by one
taste. What it saw is compared with what the native API says to that user.
"""

import json
import random
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.clients.environments import Environments
from bench.clients.roster import CLIENTS, ForeignClient
from bench.clients.ticks import Visit, Visits, error_in, seen_in, ticks
from bench.demo.strangers import Stranger, meet
from bench.results import record
from idiolect_client import Client, GivenVote
from idiolect_training.demo_model import cache_dir
from tests.demo import MAX_TOKENS, N_ANSWERS, PROMPT
from tests.live import running_server

TASTE = "short-list-warm"
SCORED_TIMEOUT_S = 120


def settled(idiolect: Client, user_id: str) -> tuple[GivenVote, ...]:
    """The user's votes, once none of them waits for its pair to be scored. Raises TimeoutError."""
    deadline = time.monotonic() + SCORED_TIMEOUT_S
    while time.monotonic() < deadline:
        votes = tuple(idiolect.votes(user_id))
        if all(vote.effect != "to_be_scored" for vote in votes):
            return votes
        time.sleep(0.2)
    raise TimeoutError(f"a vote of {user_id} was not scored")


def visit(client: ForeignClient, homes: Environments, idiolect: Client, url: str, user_id: str) -> Visit:
    """One run of the client's script, and what we know of its user ourselves."""
    native = idiolect.generate(PROMPT, user_id=user_id, max_tokens=MAX_TOKENS)
    done = homes.run(client, url, idiolect.status().base_model, user_id)
    error = error_in(done.stderr).replace(url, "URL") if done.returncode else ""
    return Visit(seen_in(done.stdout), native, settled(idiolect, user_id), error)


def twice(client: ForeignClient, homes: Environments, idiolect: Client, url: str) -> Visits:
    """As a stranger, and after five answers."""
    user_id = client.script.partition(".")[0]
    before = visit(client, homes, idiolect, url, user_id)
    stranger = Stranger(user_id, TASTE)
    meet(idiolect, stranger, random.Random(0))
    assert len(stranger.answers_ms) == N_ANSWERS
    return before, visit(client, homes, idiolect, url, user_id)


Row = dict[str, Any]


def row(client: ForeignClient, visits: Visits) -> Row:
    found: Row = {"version": client.version, "cells": ticks(visits, client.cannot)}
    if client.cannot:
        found["cannot"] = dict(client.cannot)
    if errors := [visit.error for visit in visits if visit.error]:
        found["errors"] = errors
    return found


def summed(table: Mapping[str, Row]) -> dict[str, Any]:
    """How many cells are true, false, and null for a reason; and the table."""
    cells = [cell for found in table.values() for cell in found["cells"].values()]
    names = {"true": True, "false": False, "null": None}
    return {"clients": len(table), **{name: cells.count(kind) for name, kind in names.items()}, "table": table}


def main() -> None:
    """Only some clients, by the names of their scripts: nothing is recorded."""
    names = sys.argv[1:]
    homes = Environments.installed(cache_dir())
    table: dict[str, Row] = {}
    with tempfile.TemporaryDirectory() as name, (Path(name) / "server.log").open("wb") as log:
        settings = {"data_dir": f"{name}/data", "tool_call_parser": "hermes"}
        with running_server(log, **settings) as (url, _), Client(url, timeout_s=600) as idiolect:
            for client in CLIENTS:
                if not names or client.script in names:
                    table[client.name] = row(client, twice(client, homes, idiolect, url))
                    sys.stdout.write(f"{client.name}: {json.dumps(table[client.name])}\n")
                    sys.stdout.flush()
    if not names:
        record("K3", summed(table))


if __name__ == "__main__":
    main()
