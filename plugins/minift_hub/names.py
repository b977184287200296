"""Names on the Hub: "namespace/name", or one of the short names from before that.

Repositories without a namespace were moved to their owners, and kept their names. Courses and
papers still say "glue" and "bert-base-uncased"; the tables say whose these are now.
"""

import difflib
import re
from collections.abc import Mapping

from minift.errors import MissingFileError

DATASET_OWNERS = {
    "CogComp": ["trec"],
    "Yelp": ["yelp_review_full"],
    "aps": ["super_glue"],
    "cardiffnlp": ["tweet_eval"],
    "cornell-movie-review-data": ["rotten_tomatoes"],
    "dair-ai": ["emotion"],
    "fancyzhx": ["ag_news", "dbpedia_14", "yelp_polarity"],
    "google-research-datasets": ["paws"],
    "iabufarha": ["ar_sarcasm"],
    "nyu-mll": ["glue"],
    "stanfordnlp": ["imdb", "snli", "sst2"],
}
BERTS = ["base-uncased", "base-cased", "large-uncased", "large-cased", "base-chinese"]
BERTS += ["base-multilingual-uncased", "base-multilingual-cased", "base-german-cased"]
DISTILBERTS = ["base-uncased", "base-cased", "base-multilingual-cased"]
DISTILBERTS += ["base-uncased-finetuned-sst-2-english"]
MODEL_OWNERS = {
    "google-bert": [f"bert-{size}" for size in BERTS],
    "distilbert": ["distilroberta-base", *(f"distilbert-{size}" for size in DISTILBERTS)],
    "FacebookAI": ["roberta-base", "roberta-large", "roberta-large-mnli"],
}

DATASETS = {name: f"{owner}/{name}" for owner, names in DATASET_OWNERS.items() for name in names}
MODELS = {name: f"{owner}/{name}" for owner, names in MODEL_OWNERS.items() for name in names}

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# The path of a file that does not exist, rather than a repository.
FILES = re.compile(r".*\.(csv|tsv|jsonl?|txt|parquet|arrow|gz|safetensors|bin)")


def repository(name: str, short: Mapping[str, str]) -> str | None:
    """Return the "namespace/name" that a name stands for; None if it is none.

    Raises:
        MissingFileError: it is nearly one of the short names.
    """
    if name in short:
        return short[name]
    if REPOSITORY.fullmatch(name) and not FILES.fullmatch(name.lower()):
        return name
    close = difflib.get_close_matches(name, short, n=1, cutoff=0.8)
    if close:
        what = f"there is no {name!r}: no such path, and no short name on the Hub"
        expected = f"{close[0]!r} (the nearest short name), or namespace/name"
        raise MissingFileError(what, expected=expected)
    return None
