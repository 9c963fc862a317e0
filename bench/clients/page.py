"""The tables of foreign clients in the docs, from the newest measurement of K3: `python -m bench table` writes them."""

from pathlib import Path
from typing import Any

from bench.clients.roster import CLIENTS, ForeignClient
from bench.clients.ticks import CELLS
from bench.results import ROOT, history, latest

TICKS, HOW = ROOT / "docs" / "clients.md", ROOT / "docs" / "http-api.md"
START, END = "<!-- clients -->\n", "<!-- /clients -->"
SIGNS = {True: "yes", False: "**no**", None: "–"}


def pages() -> dict[Path, str]:
    """Each page as it is to be."""
    found = latest(history()).get("K3", {"value": {"table": {}}})["value"]["table"]
    return {TICKS: _with(TICKS, _ticks(found)), HOW: _with(HOW, _how(found))}


def _ticks(found: dict[str, Any]) -> str:
    lines = [_line("client", "version", *CELLS), _line(*["---"] * (len(CELLS) + 2))]
    reasons = []
    for client in CLIENTS:
        row = found.get(client.name, {"version": "", "cells": {}})
        cells = (SIGNS[row["cells"][cell]] if cell in row["cells"] else "" for cell in CELLS)
        link = f"[{client.name}](../bench/clients/scripts/{client.script})"
        lines.append(_line(link, row["version"], *cells))
        reasons += [f"- {client.name}, {cell}: {reason}." for cell, reason in row.get("cannot", {}).items()]
    return "\n".join([*lines, "", *reasons]) + "\n"


def _how(found: dict[str, Any]) -> str:
    lines = [_line("client", "tested", "how"), _line(*["---"] * 3)]
    lines += [_line(client.name, _tested(client, found), client.how) for client in CLIENTS]
    return "\n".join(lines) + "\n"


def _tested(client: ForeignClient, found: dict[str, Any]) -> str:
    return str(found[client.name]["version"]) if client.name in found else "no"


def _line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _with(page: Path, table: str) -> str:
    text = page.read_text()
    start, end = text.index(START) + len(START), text.index(END)
    return text[:start] + table + text[end:]
