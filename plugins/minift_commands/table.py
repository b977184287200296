"""Tables as commands print them."""

import sys
from collections.abc import Iterable, Sequence


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows of cells under a head, which may be empty.

    What no terminal shows is for other programs: plain columns, and no line is broken.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    terminal = sys.stdout.isatty()
    style = box.SIMPLE if terminal else None
    table = Table(*head, box=style, show_header=bool(head), pad_edge=False)
    for row in rows:
        table.add_row(*row)
    width = None if terminal else 10_000
    Console(file=sys.stdout, width=width, markup=False, highlight=False, emoji=False).print(table)
