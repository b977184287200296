"""Notes of what a fingerprint was made of, so that one line can say why a result is computed again:

    global 'MAX_LEN': 128 -> 256

They are {place: what is there}: a short plain value as it is written, anything else by eight digits
of its digest. Places are "code of tokenize", or as seen from the function that reads them "global
'MAX_LEN'", and for the functions that it calls "helper -> global 'N'". Notes are no part of a
digest. They are stored beside a result and printed, so no text is in them whose place is called
like a secret.
"""

import re
from typing import Any

from minift.data.fingerprint.modules import join

MAX_NOTES = 500
MAX_LENGTH = 40
SECRET = re.compile(r"key|secret|passw|credential|auth|token(?!i)", re.IGNORECASE)
PLAIN = (int, bool, type(None), complex, type(Ellipsis), float, str, bytes)


class Notes(dict[str, str]):
    """{place: what is there}, at most MAX_NOTES."""

    def add(self, path: str, text: str) -> None:
        """Note what is at the end of a path.

        Of the path, the last function is enough, and the first one goes without saying. What
        Python keeps in a class (`__dataclass_fields__`) is one place.
        """
        if len(self) >= MAX_NOTES:
            return
        first, *route = path.split(" -> ")
        place = re.sub(r"(\.__\w+__)[.\[ ](?!->).*", r"\1", " -> ".join(route[-2:]) or first)
        if text.endswith(("'", '"')) and SECRET.search(place):
            text = join(text.encode()).hex()[:8]
        old = self.setdefault(place, text)
        if old != text:  # two things in one place: a digest of both
            self[place] = join(old.encode(), text.encode()).hex()[:8]


def shown(value: Any, digest: bytes) -> str:
    """Return a short plain value as it is written, anything else by eight digits of its digest."""
    start = value[:MAX_LENGTH] if type(value) in (str, bytes) else value  # enough to see its length
    text = repr(start) if type(value) in PLAIN else ""
    return text if 0 < len(text) <= MAX_LENGTH else digest.hex()[:8]


def changes(before: dict[str, str], after: dict[str, str]) -> str:
    """Return one line with what differs between two fingerprints' notes, "" if nothing does."""
    changed = []
    for place in {**before, **after}:
        old, new = before.get(place, "nothing"), after.get(place, "nothing")
        if old != new:
            is_code = place.startswith("code of ")
            changed.append(f"the {place}" if is_code else f"{place}: {old} -> {new}")
    more = [f"and {len(changed) - 3} more"] if len(changed) > 3 else []
    return "; ".join(changed[:3] + more)
