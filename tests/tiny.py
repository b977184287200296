"""A tiny model, its tokenizer and tiny data, for tests that train for real but must be quick.

The task can be learned: label 1 if the second sentence repeats a word of the first.
"""

import json
import os
from pathlib import Path

import numpy as np

WORDS = [f"w{i}" for i in range(40)]
CONFIG = {
    "model_type": "bert",
    "vocab_size": 45,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
    "type_vocab_size": 2,
    "pad_token_id": 0,
}


def make_model(folder: Path, **changes) -> Path:
    """A folder with config.json, model.safetensors (random, seeded) and tokenizer.json."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    from minift.models.bert import BertForSequenceClassification
    from minift.models.config import EncoderConfig

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {
        t: i for i, t in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])
    }
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    backend.save(str(folder / "tokenizer.json"))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]"}
    special |= {"sep_token": "[SEP]", "mask_token": "[MASK]", "tokenizer_class": "BertTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**special, "model_max_length": 32}))

    state = torch.get_rng_state()
    torch.manual_seed(0)
    model = BertForSequenceClassification(EncoderConfig.from_dict({**CONFIG, **changes}))
    torch.set_rng_state(state)
    model.save_pretrained(folder)
    return folder


def load(folder: Path, **options):
    """The classifier in a folder."""
    from minift import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(folder, **options)


def edit_config(folder: Path, **changes) -> None:
    """Have config.json say something else."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def make_rows(n: int, seed: int = 0) -> dict[str, list]:
    """{"sentence1", "sentence2", "label"} for n pairs of unequal lengths."""
    rng = np.random.default_rng(seed)
    rows: dict[str, list] = {"sentence1": [], "sentence2": [], "label": []}
    for i in range(n):
        first = rng.choice(WORDS[:20], size=rng.integers(1, 9))
        second = rng.choice(WORDS[20:], size=rng.integers(1, 9))
        if i % 2:
            second[0] = first[0]
        rows["sentence1"].append(" ".join(first))
        rows["sentence2"].append(" ".join(second))
        rows["label"].append(i % 2)
    return rows


def write_csv(path: Path, rows: dict[str, list]) -> Path:
    """The rows as a csv file with a header."""
    lines = [",".join(rows)]
    lines += [",".join(map(str, row)) for row in zip(*rows.values(), strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path


def count():
    """One call more for the fixture `calls`."""
    with open(os.environ["TEST_CALLS"], "a") as file:
        file.write("called\n")


def name_of(value) -> str:
    """A test's name for a value, without its address: processes that share the tests compare."""
    text = repr(value)
    return type(value).__name__ if " at 0x" in text else text
