"""The README's picture: one prompt, answered for a stranger before and after five answers. SVG without fonts."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, GAP, LINE, WRAP = 330, 22, 21, 38
STYLE = """
text { font: 15px ui-sans-serif, system-ui, sans-serif; fill: #1f2328; }
.head { font-weight: 600; } .note { fill: #59636e; font-size: 13px; }
.panel { fill: #f6f8fa; stroke: #d1d9e0; } .mine { fill: #eef6ff; stroke: #54aeff; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .note { fill: #9198a1; }
  .panel { fill: #151b23; stroke: #3d444d; } .mine { fill: #0c2d4d; stroke: #388bfd; }
}
"""


@dataclass(frozen=True)
class Panel:
    """One reply: who asked, what is known of them, and what they get."""

    head: str
    note: str
    reply: str
    known: bool


def picture(prompt: str, panels: Sequence[Panel]) -> str:
    """An SVG of the panels side by side, under the prompt that they all answer."""
    wrapped = [[row for line in panel.reply.splitlines() for row in textwrap.wrap(line, WRAP)] for panel in panels]
    height = 108 + LINE * max(map(len, wrapped))
    width = len(panels) * (WIDTH + GAP) - GAP
    parts = [_text(2, 18, f"“{prompt}”", "head")]
    for place, (panel, rows) in enumerate(zip(panels, wrapped, strict=True)):
        x = place * (WIDTH + GAP)
        look = "mine" if panel.known else "panel"
        parts.append(f'<rect class="{look}" x="{x + 1}" y="34" width="{WIDTH - 2}" height="{height - 36}" rx="10"/>')
        parts += [_text(x + 16, 60, panel.head, "head"), _text(x + 16, 80, panel.note, "note")]
        parts += [_text(x + 16, 106 + LINE * number, row) for number, row in enumerate(rows)]
    body = "\n".join(parts)
    label = escape(f"The prompt {prompt} answered for " + ", ".join(panel.head for panel in panels))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">\n'
        f"<style>{STYLE}</style>\n{body}\n</svg>\n"
    )


def _text(x: int, y: int, text: str, look: str = "") -> str:
    return f'<text x="{x}" y="{y}" class="{look}">{escape(text)}</text>'
