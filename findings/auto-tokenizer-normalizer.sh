#!/usr/bin/env bash
# transformers 5.23.0: a folder has a tokenizer.json whose normalizer keeps case and accents, and a
# tokenizer_config.json that names BertTokenizer and says nothing of case. `Tokenizer.from_file` and
# PreTrainedTokenizerFast keep case, as the file says; AutoTokenizer builds the normalizer anew from
# the class's default, do_lower_case=True, and the file's is ignored. So the same file gives other
# ids, depending on the class that opens it; a cased model without `do_lower_case` in its config is
# read lower-cased, and nothing says so.
# Seen on 29 November 2026:
#   PreTrainedTokenizerFast:               ['Paris', 'café']
#   AutoTokenizer, config without case:    ['paris', 'cafe']
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
. "$folder/venv/bin/activate"
pip install --quiet transformers==5.23.0 tokenizers==0.23.3
python - "$folder/model" <<'PYTHON'
import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

folder = Path(sys.argv[1])
folder.mkdir()
words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "Paris", "paris", "café", "cafe"]
vocabulary = {word: i for i, word in enumerate(words)}
tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
tokenizer.save(str(folder / "tokenizer.json"))
(folder / "config.json").write_text(json.dumps({"model_type": "bert"}))


def tokens(**settings):
    config = {"tokenizer_class": "BertTokenizer", **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return AutoTokenizer.from_pretrained(folder).tokenize("Paris café")


text = "Paris café"
by_file = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).tokens
silent, told = tokens(), tokens(do_lower_case=False)
fast = PreTrainedTokenizerFast.from_pretrained(folder).tokenize(text)
print("tokenizer.json itself:                 ", by_file)
print("PreTrainedTokenizerFast:               ", fast)
print("AutoTokenizer, config without case:    ", silent)
print("AutoTokenizer, do_lower_case is false: ", told)
assert by_file == fast == told == ["Paris", "café"]
assert silent == ["paris", "cafe"]
PYTHON
