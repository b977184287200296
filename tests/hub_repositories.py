"""Small repositories laid out as the Hub's are, with texts of our own in the exact schemas.

The columns, their order and types, the names of classes, configurations and splits, the names of
files and the README's front matter are those of the real repositories; the rows are made up, a few
dozen a split. Where class names are said differs, as it does there: in the parquet files' own
metadata (glue, emotion, rotten_tomatoes), or only in the README (super_glue, ar_sarcasm, imdb).

    write_repositories(folder) -> {"nyu-mll/glue": {"main": folder}, ...}
    write_model(folder) -> folder of a tiny BERT that knows the words of these texts
"""

import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tiny
import yaml

from minift.data.features import Features

NAMES = ["Ada", "Bruno", "Carla", "Dario", "Elif", "Farid", "Greta", "Hugo"]
NOUNS = ["baker", "boat", "bridge", "clock", "garden", "harbour", "letter", "river", "teacher"]
VERBS = ["finds", "forgets", "keeps", "paints", "repairs", "sells", "watches"]
KINDS = ["blue", "broken", "heavy", "new", "old", "quiet", "small"]
OTHERS = ["the", "a", "near", "and", "because", "then", "was", "he", "who", "?", ".", "-", "@"]
ARABIC = ["قطار", "بيت", "صباح", "جميل", "قديم", "يكتب", "يرى", "مدينة"]

# What a column holds: an Arrow type's name, a tuple of class names, a dict for a struct, a list of
# one type's name for lists, and Spans for the dict of lists that older repositories have.
SPAN = {"text": "string", "start": "int32", "end": "int32"}
NLI = ("entailment", "neutral", "contradiction")
TWO_WAY = ("entailment", "not_entailment")
NO_YES = ("False", "True")
MOODS = ("negative", "neutral", "positive")
USUAL = {"train": 32, "validation": 16, "test": 16}


class Spans(dict):
    """Lists in a dict, which older READMEs and metadata call a sequence of dicts."""


@dataclass(frozen=True)
class Config:
    """One configuration: its columns in order, rows a split, splits whose labels are -1."""

    columns: dict[str, Any]
    splits: dict[str, int] = field(default_factory=USUAL.copy)
    hidden: tuple[str, ...] = ("test",)


def texts(*names: str, **more: Any) -> dict[str, Any]:
    return dict.fromkeys(names, "string") | more


def glue(*names: str, label: Any, **options: Any) -> Config:
    return Config(texts(*names, label=label, idx="int32"), **options)


def super_glue(*names: str, label: Any = NO_YES, **options: Any) -> Config:
    return Config(texts(*names, idx="int32", label=label), **options)


MNLI_SPLITS = {"train": 36, "validation_matched": 16, "validation_mismatched": 18}
MNLI_SPLITS |= {"test_matched": 16, "test_mismatched": 16}
GLUE = {
    "ax": glue("premise", "hypothesis", label=NLI, splits={"test": 16}),
    "cola": glue("sentence", label=("unacceptable", "acceptable")),
    "mnli": glue("premise", "hypothesis", label=NLI, splits=MNLI_SPLITS,
                 hidden=("test_matched", "test_mismatched")),
    "mnli_matched": glue("premise", "hypothesis", label=NLI, splits={"validation": 16, "test": 16}),
    "mnli_mismatched": glue("premise", "hypothesis", label=NLI,
                            splits={"validation": 18, "test": 16}),
    "mrpc": glue("sentence1", "sentence2", label=("not_equivalent", "equivalent"), hidden=()),
    "qnli": glue("question", "sentence", label=TWO_WAY),
    "qqp": glue("question1", "question2", label=("not_duplicate", "duplicate")),
    "rte": glue("sentence1", "sentence2", label=TWO_WAY),
    "sst2": Config(texts("sentence", label=("negative", "positive"), idx="int32") ),
    "stsb": glue("sentence1", "sentence2", label="float32"),
    "wnli": glue("sentence1", "sentence2", label=("not_entailment", "entailment")),
}  # fmt: skip
SUPER_GLUE = {
    "axb": super_glue("sentence1", "sentence2", label=TWO_WAY, splits={"test": 16}, hidden=()),
    "axg": super_glue("premise", "hypothesis", label=TWO_WAY, splits={"test": 16}, hidden=()),
    "boolq": super_glue("question", "passage"),
    "cb": super_glue("premise", "hypothesis", label=("entailment", "contradiction", "neutral"),
                     splits={"train": 30, "validation": 18, "test": 16}),
    "copa": super_glue("premise", "choice1", "choice2", "question", label=("choice1", "choice2")),
    "multirc": Config(texts("paragraph", "question", "answer")
                      | {"idx": {"paragraph": "int32", "question": "int32", "answer": "int32"},
                         "label": NO_YES}),
    "record": Config(texts("passage", "query")
                     | {"entities": ["string"], "entity_spans": Spans(SPAN), "answers": ["string"],
                        "idx": {"passage": "int32", "query": "int32"}}),
    "rte": super_glue("premise", "hypothesis", label=TWO_WAY),
    "wic": Config(texts("word", "sentence1", "sentence2")
                  | dict.fromkeys(["start1", "start2", "end1", "end2", "idx"], "int32")
                  | {"label": NO_YES}),
    "wsc": Config({"text": "string", "span1_index": "int32", "span2_index": "int32"}
                  | texts("span1_text", "span2_text", idx="int32", label=NO_YES)),
}  # fmt: skip
SUPER_GLUE["wsc.fixed"] = SUPER_GLUE["wsc"]
FEELINGS = ("sadness", "joy", "love", "anger", "fear", "surprise")
EMOTION = {
    "split": Config(texts("text", label=FEELINGS), {"train": 36, "validation": 18, "test": 18}, ()),
    "unsplit": Config(texts("text", label=FEELINGS), {"train": 40}, ()),
}
SARCASM = {
    "default": Config(
        {"dialect": ("egypt", "gulf", "levant", "magreb", "msa")}
        | {"sarcasm": ("non-sarcastic", "sarcastic"), "sentiment": MOODS}
        | {"original_sentiment": MOODS, "tweet": "string", "source": "string"},
        {"train": 60, "test": 16},
        (),
    )
}
REVIEWS = texts("text", label=("neg", "pos"))
IMDB = {"plain_text": Config(REVIEWS, {"train": 40, "test": 20, "unsupervised": 16},
                             ("unsupervised",))}  # fmt: skip
TOMATOES = {"default": Config(REVIEWS, hidden=())}
SCRIPT = {
    "pairs": Config(texts("first", "second", label=("no", "yes")), hidden=()),
    "single": Config(texts("text", label=("no", "yes")), {"train": 16}, ()),
}


# ------------------------------------------------------------------------------------------- rows


def sentence(rng: np.random.Generator, words: int = 4) -> str:
    said = ["the", rng.choice(KINDS), rng.choice(NOUNS), rng.choice(VERBS)]
    said += ["the", rng.choice(NOUNS), "near", "the", rng.choice(NOUNS), "."]
    return " ".join(map(str, said[: words + 6]))


def make_row(config: str, columns: dict[str, Any], i: int, rng: np.random.Generator) -> dict:
    """Row i of a configuration; columns of no special meaning hold sentences and numbers."""
    row: dict[str, Any] = {}
    for name, kind in columns.items():
        if isinstance(kind, tuple):
            row[name] = i % len(kind)
        elif kind == "string":
            row[name] = sentence(rng, int(rng.integers(0, 5)))
        elif kind == "float32":
            row[name] = round(float(rng.uniform(0, 5)), 3)
        elif kind == "int32":
            row[name] = i
    special = {"copa": copa, "multirc": multirc, "record": record, "wic": wic, "wsc": wsc}
    if "tweet" in columns:
        words = [str(word) for word in rng.choice(ARABIC, size=rng.integers(3, 8))]
        row |= {"tweet": " ".join(words), "source": "SemEval" if i % 3 else "ASTD"}
    make = special.get(config.partition(".")[0])
    return row | make(row, i, rng) if make else row


def copa(row: dict, i: int, rng: Any) -> dict:
    return {"question": ("cause", "effect")[i // 2 % 2]}


def multirc(row: dict, i: int, rng: Any) -> dict:
    """Two questions a paragraph, two answers a question (numbered through the whole split)."""
    own, other = np.random.default_rng(1000 + i // 4), np.random.default_rng(2000 + i // 2)
    idx = {"paragraph": i // 4, "question": i // 2, "answer": i}
    paragraph = " ".join(sentence(own) for _ in range(3))
    question = f"who {other.choice(VERBS)} the {other.choice(NOUNS)} ?"
    return {"paragraph": paragraph, "question": question, "idx": idx, "label": (i + i // 2) % 2}


def record(row: dict, i: int, rng: Any) -> dict:
    """Two queries a passage; each has one right entity, and every third one has two names."""
    own = np.random.default_rng(3000 + i // 2)
    names = [str(name) for name in own.choice(NAMES, size=3, replace=False)]
    passage = f"{names[0]} {own.choice(VERBS)} a {own.choice(NOUNS)} . {names[1]} and {names[2]} "
    passage += f"are near the {own.choice(NOUNS)} .\n@highlight\n{names[0]} was there"
    spans = [(name, passage.find(name), passage.find(name) + len(name)) for name in names]
    again = passage.rfind(names[0])
    spans.append((names[0], again, again + len(names[0])))
    places = {key: [span[k] for span in spans] for k, key in enumerate(SPAN)}
    answers = [names[i % 3]] + ([names[(i + 1) % 3]] if i % 3 == 0 else [])
    return {
        "passage": passage,
        "query": f"then @placeholder {rng.choice(VERBS)} the {rng.choice(NOUNS)}",
        "entities": sorted(names),
        "entity_spans": places,
        "answers": answers,
        "idx": {"passage": i // 2, "query": i},
    }


def wic(row: dict, i: int, rng: Any) -> dict:
    word = str(rng.choice(NOUNS))
    said: dict[str, Any] = {"word": word}
    for n in (1, 2):
        before = f"{rng.choice(NAMES)} {rng.choice(VERBS)} the "
        said[f"sentence{n}"] = f"{before}{word} near the {rng.choice(NOUNS)}"
        said |= {f"start{n}": len(before), f"end{n}": len(before) + len(word)}
    return said


def wsc(row: dict, i: int, rng: Any) -> dict:
    first, second = (str(name) for name in rng.choice(NAMES, size=2, replace=False))
    text = f"{first} {rng.choice(VERBS)} the {rng.choice(KINDS)} {rng.choice(NOUNS)} of {second} "
    text += f"because he was {rng.choice(KINDS)} ."
    spans = {"span1_index": 0 if i % 2 else 6, "span2_index": 8}
    return spans | {"text": text, "span1_text": first if i % 2 else second, "span2_text": "he"}


def make_rows(name: str, config: Config, split: str) -> list[dict[str, Any]]:
    """The rows of a split; the same at every call."""
    rng = np.random.default_rng(zlib.crc32(f"{name}/{split}".encode()))
    rows = [make_row(name, config.columns, i, rng) for i in range(config.splits[split])]
    if split in config.hidden:
        for row in rows:
            if "label" in row:
                row["label"] = -1
            if "answers" in row:
                row["answers"] = []
    return rows


# ------------------------------------------------------------------------------------- what is said


def in_metadata(kind: Any) -> Any:
    """A column's feature in the JSON form of a parquet file's metadata."""
    if isinstance(kind, tuple):
        return {"names": list(kind), "_type": "ClassLabel"}
    if isinstance(kind, Spans):
        return {"feature": {n: in_metadata(k) for n, k in kind.items()}, "_type": "Sequence"}
    if isinstance(kind, dict):
        return {name: in_metadata(inner) for name, inner in kind.items()}
    if isinstance(kind, list):
        return {"feature": in_metadata(kind[0]), "_type": "Sequence"}
    return {"dtype": kind, "_type": "Value"}


def in_readme(name: str, kind: Any) -> dict[str, Any]:
    """The same as an entry of `dataset_info: features:`."""
    if isinstance(kind, tuple):
        names = {str(i): class_name for i, class_name in enumerate(kind)}
        return {"name": name, "dtype": {"class_label": {"names": names}}}
    if isinstance(kind, dict):
        key = "sequence" if isinstance(kind, Spans) else "struct"
        return {"name": name, key: [in_readme(n, k) for n, k in kind.items()]}
    if isinstance(kind, list):
        return {"name": name, "sequence": kind[0]}
    return {"name": name, "dtype": kind}


def info_of(name: str, config: Config) -> dict[str, Any]:
    return {
        "config_name": name,
        "features": [in_readme(*column) for column in config.columns.items()],
        "splits": [
            {"name": split, "num_bytes": 64 * rows, "num_examples": rows}
            for split, rows in config.splits.items()
        ],
        "download_size": 4096,
        "dataset_size": 64 * sum(config.splits.values()),
    }


def write_parquet(path: Path, rows: list[dict], columns: dict[str, Any], metadata: bool) -> None:
    said = {name: in_metadata(kind) for name, kind in columns.items()}
    schema = Features.from_dict(said).arrow_schema.remove_metadata()
    if metadata:
        schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": said}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)


def write_readme(folder: Path, title: str, front: dict[str, Any]) -> None:
    said = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
    folder.mkdir(parents=True, exist_ok=True)
    text = f"---\n{said}---\n\n# Dataset Card for {title}\n\nSmall texts in this schema.\n"
    (folder / "README.md").write_text(text, encoding="utf-8")


def write_dataset(
    folder: Path,
    title: str,
    configs: dict[str, Config],
    place: str = "{config}/{split}-00000-of-00001.parquet",
    metadata: bool = True,
    default: str | None = None,
    listed: bool = True,
) -> Path:
    """One dataset repository.

    Args:
        folder: of the repository.
        title: its name in the README.
        configs: by name.
        place: the path of a split's file.
        metadata: whether the files themselves say the features.
        default: the configuration marked as the default one.
        listed: whether the README has `configs:`.
    """
    entries = []
    for name, config in configs.items():
        paths = []
        for split in config.splits:
            path = place.format(config=name, split=split)
            rows = make_rows(name, config, split)
            write_parquet(folder / path, rows, config.columns, metadata)
            paths.append({"split": split, "path": path.replace("00000-of-00001.parquet", "*")})
        entry = {"config_name": name, "data_files": paths}
        entries.append(entry | {"default": True} if name == default else entry)
    infos = [info_of(name, config) for name, config in configs.items()]
    front = {"language": ["en"], "license": "other", "pretty_name": title.upper()}
    front["dataset_info"] = infos if len(infos) > 1 else infos[0]
    write_readme(folder, title, front | ({"configs": entries} if listed else {}))
    return folder


def write_script(folder: Path) -> dict[str, Path]:
    """A repository whose main branch is a script; only the converted branch has files."""
    main, converted = folder / "main", folder / "refs-convert-parquet"
    write_readme(main, "script", {"language": ["en"]})
    (main / "script.py").write_text('raise SystemExit("a dataset script was run")\n')
    for name, config in SCRIPT.items():
        for split in config.splits:
            rows = make_rows(name, config, split)
            path = converted / name / split / "0000.parquet"
            write_parquet(path, rows, config.columns, metadata=True)
    return {"main": main, "refs/convert/parquet": converted}


def write_repositories(folder: Path) -> dict[str, dict[str, Path]]:
    """All dataset repositories below a folder: {repository: {revision: its folder}}."""
    flat = "{split}.parquet"
    shard = "data/{split}-00000-of-00001.parquet"
    made = {
        "nyu-mll/glue": (GLUE, {}),
        "aps/super_glue": (SUPER_GLUE, {"metadata": False}),
        "dair-ai/emotion": (EMOTION, {"default": "split"}),
        "iabufarha/ar_sarcasm": (SARCASM, {"place": shard, "metadata": False}),
        "stanfordnlp/imdb": (IMDB, {"metadata": False}),
        "cornell-movie-review-data/rotten_tomatoes": (TOMATOES, {"place": flat, "listed": False}),
    }
    repositories = {}
    for name, (configs, options) in made.items():
        title = name.partition("/")[2]
        main = write_dataset(folder / name / "main", title, configs, **options)
        repositories[name] = {"main": main}
    return repositories | {"legacy/script": write_script(folder / "legacy/script")}


def write_model(folder: Path) -> Path:
    """A tiny BERT, as a model repository holds it: these texts' words, a card, no classifier."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    known = [*special, *NAMES, *NOUNS, *VERBS, *KINDS, *OTHERS, *ARABIC]
    tiny.make_model(folder, vocab_size=len(known))
    path = folder / "tokenizer.json"
    said = json.loads(path.read_text(encoding="utf-8"))
    said["model"]["vocab"] = {word: i for i, word in enumerate(known)}
    path.write_text(json.dumps(said, ensure_ascii=False), encoding="utf-8")
    front = "license: apache-2.0\nlanguage: en\ntags: [bert]\n"
    card = f"---\n{front}---\n\n# A tiny BERT\n\nRandom weights.\n"
    (folder / "README.md").write_text(card)
    return folder
