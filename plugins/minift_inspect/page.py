"""The record of `facts.gather` as one HTML page that needs nothing from elsewhere."""

import html
import json
from importlib.resources import files

from minift_inspect.facts import Record


def to_page(facts: Record, inline: bool = False) -> str:
    """Fill the template: page.html with page.css, page.js and the record as JSON.

    What is in the record is data for the script, which makes text of it, never markup: `<` is
    written as an escape, so that no text can end the element that holds it.

    Args:
        inline: in a frame of its own, for a notebook.
    """
    parts = {name: files(__package__).joinpath(name).read_text("utf-8") for name in PARTS}
    data = json.dumps(facts).replace("<", "\\u003c")
    page = parts["page.html"].replace("/* page.css */", parts["page.css"])
    page = page.replace("/* page.js */", parts["page.js"]).replace('"facts"', data)
    if not inline:
        return page
    style = "width:100%;height:80vh;border:0"
    return f'<iframe srcdoc="{html.escape(page)}" style="{style}" title="inspection"></iframe>'


PARTS = ("page.html", "page.css", "page.js")
