"""The parts of README.md that are made by a command or stand in a file, between comments that name them."""

import re

from tests.live import ROOT

README = ROOT / "README.md"
RUN_FILE = ROOT / "training" / "runs" / "mine.yaml"


def block(name: str) -> str:
    """The text of the fenced block that is marked <!-- name -->."""
    found = re.search(rf"<!-- {name} -->\n```\w*\n(.*?)```\n<!-- /{name} -->", README.read_text(), re.S)
    assert found is not None, name
    return found[1]


def put(name: str, text: str, language: str = "") -> None:
    """Put the text in the place of what is marked <!-- name -->."""
    fenced = f"<!-- {name} -->\n```{language}\n{text}```\n<!-- /{name} -->"
    whole = README.read_text()
    start, end = whole.index(f"<!-- {name} -->"), whole.index(f"<!-- /{name} -->") + len(f"<!-- /{name} -->")
    README.write_text(whole[:start] + fenced + whole[end:])


def snippets(language: str) -> list[str]:
    """All fenced blocks in this language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.S | re.M)
