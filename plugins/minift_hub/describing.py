"""A dataset's description: the head of its README.md, or the older dataset_infos.json.

README.md begins with YAML between two lines of dashes. `configs` in it names configurations with
their files; `dataset_info` has the features and the number of rows of each.
"""

import re
import warnings
from dataclasses import dataclass
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
        configs: {name: the configuration's entry}, in the card's order.
        infos: {name: "features" and more}.
    """

    configs: dict[str, dict[str, Any]]
    infos: dict[str, dict[str, Any]]

    @property
    def only(self) -> str:
        """The name of the configuration where there is but one; else "default"."""
        return next(iter(self.infos)) if len(self.infos) == 1 else "default"


def describe(snapshot: Snapshot) -> Description:
    """Read the card and the older file, if there are any."""
    present = [name for name in (CARD, LEGACY) if name in snapshot.files]
    for name in present:
        trust.check_size(snapshot, name)
    fetch(snapshot, present)
    card = read_card(snapshot) if CARD in present else {}
    legacy = trust.read_json(snapshot, LEGACY) if LEGACY in present else {}
    infos = {clean(name): one for name, one in legacy.items() if isinstance(one, dict)}
    return Description(by_name(card, "configs"), infos | by_name(card, "dataset_info"))


def by_name(card: dict[str, Any], key: str) -> dict[str, dict[str, Any]]:
    """Return {config_name: entry} of a list in the card; plain names, as in older cards, go."""
    entries = [entry for entry in as_list(card.get(key)) if isinstance(entry, dict)]
    return {clean(entry.get("config_name", "default")): entry for entry in entries}


def as_list(value: Any) -> list[Any]:
    """Return a list as it is, anything else as its only element, and None as an empty one."""
    return value if isinstance(value, list) else [] if value is None else [value]


def read_card(snapshot: Snapshot) -> dict[str, Any]:
    """Read the YAML at the beginning of README.md; {} if there is none.

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
        card = yaml.load(head[1], Loader) if head else {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        what = f"the head of {CARD} of {snapshot.repo} is not YAML, or not plain"
        got = clean(str(error).replace("\n", " "))[:200]
        raise DataError(what, got=got, expected="YAML without aliases or objects") from None
    return card if isinstance(card, dict) else {}


def features_of(description: Description, config: str) -> Features | None:
    """Return the features of a configuration; None if it has none that are understood."""
    features = description.infos.get(config, {}).get("features")
    if not features:
        return None
    try:
        return Features.from_dict(as_json(features) if isinstance(features, list) else features)
    except (MiniftError, LookupError, TypeError, AttributeError, ValueError, RecursionError) as e:
        warnings.warn(f"features in the card are ignored: {clean(getattr(e, 'what', e))}")
        return None


def as_json(feature: Any) -> Any:
    """Return a feature of the card as Parquet files record it.

    Args:
        feature: `string`, the name of a type; `{sequence: feature}`, `{list: feature}`,
            `{struct: feature}`, `{class_label: {names: ...}}` or `{dtype: feature}`; or a list of
            such with a `name` each, which are columns or fields.
    """
    if isinstance(feature, list):
        return {str(one["name"]): as_json(one) for one in feature}
    if isinstance(feature, str):
        return {"_type": "Value", "dtype": feature}
    for key, kind in (("sequence", "Sequence"), ("list", "List")):
        if key in feature:
            return {"_type": kind, "feature": as_json(feature[key])}
    if "class_label" in feature:
        names = feature["class_label"]["names"]
        if isinstance(names, dict):  # {'0': first, '1': second}
            names = [names[key] for key in sorted(names, key=int)]
        return {"_type": "ClassLabel", "names": [str(name) for name in names]}
    return as_json(feature["struct"] if "struct" in feature else feature["dtype"])
