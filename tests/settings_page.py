"""make docs: docs/settings.md from the settings' own descriptions, so that the page cannot fall behind."""

import ast
import inspect
import textwrap

from idiolect_server.settings import PREFIX, Settings
from tests.live import ROOT

PAGE = ROOT / "docs" / "settings.md"
HEAD = """# Settings of the server

Environment variables, read once at start. An unknown `IDIOLECT_*` name stops the start. Made by `make docs`.

| variable | default | meaning |
| --- | --- | --- |
"""


def descriptions() -> dict[str, str]:
    """The string below each field."""
    (cls,) = ast.parse(textwrap.dedent(inspect.getsource(Settings))).body
    assert isinstance(cls, ast.ClassDef)
    found = {}
    for field, text in zip(cls.body, cls.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            assert isinstance(field.target, ast.Name)
            found[field.target.id] = " ".join(str(text.value.value).split())
    return found


def page() -> str:
    rows = []
    for name, text in descriptions().items():
        field = Settings.model_fields[name]
        if name == "cache_dir":
            default = "`~/.cache/idiolect`"
        else:
            default = "required" if field.is_required() else f"`{field.default}`"
        if field.default in (None, ()):
            default = "none"
        rows.append(f"| `{PREFIX}{name.upper()}` | {default} | {text} |\n")
    assert len(rows) == len(Settings.model_fields)
    return HEAD + "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(page())
