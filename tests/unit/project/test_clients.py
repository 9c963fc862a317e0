"""Foreign clients (K3): a script for each row, exact versions, one rule for all ticks, and pages that show them."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.clients import frameworks, page
from bench.clients.roster import CLIENTS, LATEST, NPM, OLDER, SCRIPTS, ForeignClient
from bench.clients.ticks import CELLS, Visit, error_in, seen_in, ticks
from idiolect_client import Generation, GivenVote, Personalization, Usage
from tests.demo import MAX_TOKENS, PROMPT

TEXTS = {"generic": "A compiler reads a file.", "inferred": "- It reads.\n- It writes!"}


def visit(how: str, /, **seen: Any) -> Visit:
    """What a client sees that can do all."""
    native = Generation("gen-1", TEXTS[how], "stop", Usage(1, 1, 0), Personalization(how, "b", 0))
    vote = GivenVote("v", "2026-11-29", [], "other", "one", "counted", False)
    whole = {"whole": TEXTS[how], "streamed": TEXTS[how] + "\n", "state": how}
    loop = {"arguments": {"city": "Oslo"}, "choices": ["one", "other\n"], "vote": {"effect": "to_be_scored"}}
    return Visit({**whole, **loop, **seen}, native, (vote,))


def false_cells(before: Visit, after: Visit) -> set[str]:
    return {cell for cell, holds in ticks((before, after), {}).items() if not holds}


def test_every_row_has_a_script_and_every_script_a_row():
    scripts = {path.name for path in SCRIPTS.iterdir() if path.suffix in (".py", ".mjs", ".sh")}
    assert {client.script for client in CLIENTS} == scripts
    assert len({client.name for client in CLIENTS}) == len(CLIENTS) == 9
    assert all(client.cannot.keys() <= CELLS.keys() for client in CLIENTS)


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.script)
def test_a_script_asks_what_is_compared_and_knows_nothing_of_us(client: ForeignClient):
    text = (SCRIPTS / client.script).read_text()
    assert PROMPT in text
    assert re.findall(r"[mM]ax_?(?:Output)?_?[tT]okens\W+(\d+)", text).count(str(MAX_TOKENS)) >= 1
    assert not re.search(r"(import|from) (idiolect|bench|tests)|IDIOLECT", text)
    assert "/feedback" in text


def test_every_version_is_exact():
    for name in (LATEST, OLDER):
        lines = (SCRIPTS / name).read_text().splitlines()
        assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    wanted = json.loads((SCRIPTS / NPM).read_text())["dependencies"]
    lock = json.loads((SCRIPTS / "package-lock.json").read_text())["packages"]
    assert {name: lock[f"node_modules/{name}"]["version"] for name in wanted} == wanted
    assert not any("resolved" in package for package in lock.values())
    assert all(re.fullmatch(r"\d[\w.]+", client.version) for client in CLIENTS)


def test_a_client_that_can_do_all_has_all_ticks():
    both = visit("generic"), visit("inferred")
    assert set(ticks(both, {}).values()) == {True}
    assert ticks(both, {"tools": "no tools"})["tools"] is None
    unseen = visit("generic", state=None), visit("inferred", state=None)
    assert false_cells(*unseen) == set()


@pytest.mark.parametrize(
    ("seen", "cells"),
    [
        ({"whole": TEXTS["generic"]}, {"whole", "streamed", "changed"}),
        ({"state": "generic"}, {"whole"}),
        ({"streamed": "A"}, {"streamed"}),
        ({"arguments": {"city": "Rome"}}, {"tools"}),
        ({"arguments": None}, {"tools"}),
        ({"choices": ["one", "one"]}, {"choices", "vote"}),
        ({"choices": ["one", "another"]}, {"vote"}),
        ({"vote": {"error": {}}}, {"vote"}),
        ({"vote": {"effect": "no_bank"}}, {"vote"}),
    ],
)
def test_what_is_not_so_is_false(seen: dict[str, Any], cells: set[str]):
    assert false_cells(visit("generic"), visit("inferred", **seen)) == cells


def test_what_was_never_seen_is_false():
    silent = replace(visit("inferred"), seen={}, error="ImportError: x")
    assert false_cells(visit("generic"), silent) == set(CELLS)
    assert false_cells(visit("generic"), visit("generic")) == {"changed"}
    assert seen_in('INFO up\n{"whole": "a"}\n{"vote": {}}\n') == {"whole": "a", "vote": {}}

    assert error_in("at a.mjs:1\nTypeError: no 0\n    at b\n\nNode.js v24\n") == "TypeError: no 0"
    assert error_in("curl: (22) 422\n") == "curl: (22) 422"
    assert error_in("")


def test_cells_are_counted():
    rows = [frameworks.row(client, (visit("generic"), visit("inferred"))) for client in CLIENTS]
    value = frameworks.summed({client.name: row for client, row in zip(CLIENTS, rows, strict=True)})
    n_null = sum(len(client.cannot) for client in CLIENTS)
    n_all = len(CLIENTS) * len(CELLS)
    assert (value["clients"], value["true"], value["false"], value["null"]) == (9, n_all - n_null, 0, n_null)


@pytest.mark.parametrize("path", [page.TICKS, page.HOW], ids=lambda path: Path(path).name)
def test_the_pages_show_what_was_measured(path: Path):
    assert page.pages()[path] == path.read_text(), "run `make docs`"
