"""The record of `facts.gather` as text for a terminal."""

import io
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from minift_inspect.facts import Record

Section = tuple[str, str, Sequence[str], Sequence[Sequence[Any]]]  # title, note, head, rows


def to_text(facts: Record) -> str:
    """Lay the record out as tables; colours are for a terminal only."""
    terminal = sys.stdout.isatty()
    width, file = None if terminal else 110, io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=width, emoji=False)
    for title, note, head, rows in sections(facts):
        console.print(Text(f"\n{title}  ", "bold"), Text(note, "dim"), sep="")
        table = Table(*head, box=box.SIMPLE, pad_edge=False, show_header=any(head))
        for row in rows:
            table.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
        console.print(table)
    return file.getvalue().strip("\n")


def sections(facts: Record) -> Iterator[Section]:
    """Yield each section of the page as a table."""
    focus, p, first = facts["focus"], facts["padding"], facts["first"]
    tokens = [facts["tokens"][focus][i] for i in facts["positions"]]
    words, pulls = [token["token"] for token in tokens], facts["pulls"]["pulls"]
    sizes = ", ".join(f"{value:,} {name}" for name, value in facts["model"]["sizes"].items())
    yield facts["model"]["class"], sizes, ("", ""), list(facts["raw"][focus].items())
    kinds = [kind for kind in ("id", "type") if kind in tokens[0]]
    note = f"as the model gets it; who pulls it to {name_of(facts, facts['pulls']['target'])}"
    yield f"Row {first + focus}", note, ("token", *kinds, "integrated gradients"), [
        (token["token"], *(token[kind] for kind in kinds), bar(pull, pulls))
        for token, pull in zip(tokens, pulls, strict=True)
    ]  # fmt: skip
    note = f"{p['cells']} cells, {p['tokens']} tokens: {p['saved']:.0%} is padding, not computed"
    shapes = [(stage["name"], stage["shape"], stage["what"]) for stage in facts["stages"]]
    yield "Padding", note, ("stage", "shape", ""), shapes
    yield "Hidden states", "L2 norms over the row's tokens", ("", "mean", "min", "max"), [
        (f"layer {i}", *(f"{x:.2f}" for x in (sum(n) / len(n), min(n), max(n))))
        for i, n in enumerate(facts["norms"])
    ]  # fmt: skip
    heads = [f"head {h + 1}" for h in range(min(8, len(facts["attention"][0])))]
    yield "Attention", f"what {words[0]} looks at most (the page has it all)", ("", *heads), [
        (f"layer {i + 1}", *(words[head[0].index(max(head[0]))] for head in layer[:8]))
        for i, layer in enumerate(facts["attention"])
    ]  # fmt: skip
    yield "Losses", "of the rows of the batch", ("row", "label", "prediction", "loss"), [
        (first + i, *(name_of(facts, row.get(key)) for key in ("label", "prediction")),
         "" if row.get("loss") is None else f"{row['loss']:.4f}")
        for i, row in enumerate(facts["rows"])
    ]  # fmt: skip
    if u := facts["update"]:
        note = f"gradient norm {u['norm']:.3g}, clipped to {u['norm'] * u['clip']:.3g}; "
        note += f"the first step of AdamW at the rate {u['rate']:g}, which then is {u['name']}"
        keys = "gradient", "weight", "update", "share"
        yield "Update", note, ("", *keys[:3], "update / weight"), [
            (part["name"], *(f"{part[key]:.3g}" for key in keys)) for part in u["layers"]
        ]  # fmt: skip


def name_of(facts: Record, label: Any) -> str:
    """Return the name of a class; a number that is predicted stays one."""
    names = facts["labels"]
    if len(names) > 1 and isinstance(label, int) and 0 <= label < len(names):
        return names[label]
    return "" if label is None else f"{label}"[:12]


def bar(pull: float, pulls: Sequence[float]) -> Text:
    """Draw a pull to the right of the middle, or to its left, in proportion to the largest."""
    length = round(10 * abs(pull) / (max(map(abs, pulls)) or 1)) * "█"
    left, right = (length, "") if pull < 0 else ("", length)
    return Text(f"{left:>10}|{right:<10} {pull:+.3f}", "magenta" if pull < 0 else "green")
