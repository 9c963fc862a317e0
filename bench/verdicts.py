"""The verdict of every line: met, missed, reported, or not measured; as a table at the top of docs/results.md."""

from dataclasses import dataclass

from bench.catalogue import EXPERIMENTS
from bench.experiment import Experiment, Goal, Line
from bench.results import ROOT, Row, history, latest

PAGE = ROOT / "docs" / "results.md"
START, END = "<!-- verdicts -->", "<!-- /verdicts -->"


@dataclass(frozen=True)
class Verdict:
    """A line, its newest measurement, and the goals that it misses."""

    experiment: Experiment
    line: Line
    row: Row | None
    missed: tuple[Goal, ...]

    @property
    def word(self) -> str:
        if self.row is None:
            return "not measured"
        if not self.line.goals:
            return "reported"
        return "**missed**" if self.missed else "met"


def verdicts() -> list[Verdict]:
    """Of every line, recomputed from its newest value. Raises NoSuchMeasure."""
    rows = latest(history())
    found = []
    for experiment in EXPERIMENTS:
        for line in experiment.lines:
            row = rows.get(line.id)
            missed = () if row is None else tuple(goal for goal in line.goals if not goal.met(row["value"]))
            found.append(Verdict(experiment, line, row, missed))
    return sorted(found, key=lambda verdict: verdict.line.id)


def table(found: list[Verdict]) -> str:
    """Question, answer, goal and verdict of each line, as Markdown."""
    lines = ["| | question | measured | goal | verdict | from |", "| --- | --- | --- | --- | --- | --- |"]
    for verdict in found:
        row, goals = verdict.row, verdict.missed or verdict.line.goals[:1]
        measured = "" if row is None else "; ".join(f"{goal.worst(row['value']):.4g}" for goal in goals)
        wanted = "; ".join(f"`{goal}`" for goal in goals)
        source = "" if row is None else f"{row['date']}, {row['commit'][:9]}"
        cells = (verdict.line.id, verdict.line.question, measured, wanted, verdict.word, source)
        lines.append("| " + " | ".join(cells) + " |")
    n_missed = sum(bool(verdict.missed) for verdict in found)
    n_met = sum(verdict.word == "met" for verdict in found)
    shown = "Of a missed line every missed goal is shown, of a met one the first."
    lines += ["", f"{n_met} met, {n_missed} missed, of {len(found)}. {shown}"]
    return "\n".join(lines) + "\n"


def page() -> str:
    """docs/results.md with the table as it is to be."""
    text = PAGE.read_text()
    start, end = text.index(START) + len(START), text.index(END)
    return text[:start] + "\n" + table(verdicts()) + text[end:]
