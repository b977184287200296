"""What a dataset says of itself: the head of its README.md, or the older dataset_infos.json.

README.md begins with YAML between two lines of dashes. `configs` in it names configurations with
their files; `dataset_info` has the features and the number of rows of each.
"""

import re
import warnings
from dataclasses import dataclass, field
from typing import Any

from minift.data.features import Features
from minift.errors import DataError, MiniftError
from minift_hub import trust
from minift_hub.client import clean
from minift_hub.download import fetch
from minift_hub.snapshot import Snapshot

CARD, LEGACY = "README.md", "dataset_infos.json"
HEAD = re.compile(r"\ufeff?---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(\r?\n|$)", re.DOTALL)


@dataclass(frozen=True)
class Description:
    """The card's data.

    Attributes:
        card: all of the head of README.md.
        configs: {name: what it says of the configuration}, in its order.
        infos: {name: "features", "splits" and more}.
    """

    card: dict[str, Any] = field(default_factory=dict)
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    infos: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def only(self) -> str:
        """The configuration that is meant where there is but one, whatever it is called."""
        return next(iter(self.infos)) if len(self.infos) == 1 else "default"


def describe(snapshot: Snapshot) -> Description:
    """Read the card and the older file, as far as there are any."""
    there = [name for name in (CARD, LEGACY) if name in snapshot.files]
    for name in there:
        trust.check_size(snapshot, name)
    fetch(snapshot, there)
    card = read_card(snapshot) if CARD in there else {}
    # A list of plain names, as older cards have it, says nothing of files.
    said = [one for one in listed(card.get("configs")) if isinstance(one, dict)]
    configs = {clean(one.get("config_name", "default")): one for one in said}
    said = [one for one in listed(card.get("dataset_info")) if isinstance(one, dict)]
    known = trust.read_json(snapshot, LEGACY) if LEGACY in there else {}
    infos = {clean(name): one for name, one in known.items() if isinstance(one, dict)}
    infos |= {clean(one.get("config_name", "default")): one for one in said}
    return Description(card, configs, infos)


def listed(said: Any) -> list[Any]:
    """A list of one or several."""
    return said if isinstance(said, list) else [] if said is None else [said]


def read_card(snapshot: Snapshot) -> dict[str, Any]:
    """The YAML at the beginning of README.md, {} if there is none.

    Aliases are refused: a few lines of them stand for more than fits into memory.
    """
    import yaml  # which huggingface_hub needs, too

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError(f"the alias *{self.peek_event().anchor}")
            return super().compose_node(parent, index)

    text = (snapshot.folder / CARD).read_text(encoding="utf-8", errors="replace")
    head = HEAD.match(text)
    try:
        said = yaml.load(head[1], Loader) if head else {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        what = f"the head of {CARD} of {snapshot.repo} is not YAML, or not plain"
        got = clean(str(error).replace("\n", " "))[:200]
        raise DataError(what, got=got, expected="YAML without aliases or objects") from None
    return said if isinstance(said, dict) else {}


def features_of(description: Description, config: str) -> Features | None:
    """The features of a configuration, None if nothing says them, or not in words known here."""
    info = description.infos.get(config)
    said = info.get("features") if isinstance(info, dict) else None
    if not said:
        return None
    try:
        return Features.from_dict(as_json(said) if isinstance(said, list) else said)
    except (MiniftError, LookupError, TypeError, AttributeError, ValueError, RecursionError) as e:
        warnings.warn(f"features in the card are ignored: {clean(getattr(e, 'what', e))}")
        return None


def as_json(said: list[dict[str, Any]]) -> dict[str, Any]:
    """The card's list of features in the form that parquet files have them."""
    return {str(one["name"]): feature_json(one) for one in said}


def feature_json(said: dict[str, Any]) -> Any:
    """One feature: `dtype: string`, `dtype: {class_label: ...}`, `list: ...`, `struct: [...]`."""
    for key in ("sequence", "list"):
        if key in said:
            inner = said[key]
            if isinstance(inner, list):
                form: Any = as_json(inner)
            else:
                form = feature_json(inner if isinstance(inner, dict) else {"dtype": inner})
            return {"_type": "Sequence" if key == "sequence" else "List", "feature": form}
    if "struct" in said:
        return as_json(said["struct"])
    dtype = said["dtype"]
    if isinstance(dtype, dict) and "class_label" in dtype:
        names = dtype["class_label"]["names"]
        if isinstance(names, dict):  # {'0': first, '1': second}
            names = [names[key] for key in sorted(names, key=int)]
        return {"_type": "ClassLabel", "names": [str(name) for name in names]}
    if isinstance(dtype, dict):
        return feature_json(dtype)
    return {"_type": "Value", "dtype": dtype}
