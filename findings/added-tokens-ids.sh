#!/usr/bin/env bash
# transformers 5.23.0: added_tokens.json says which id each added token has. AutoTokenizer takes the
# tokens and ignores the ids: with 9 words in the vocabulary, {"<new>": 40} becomes id 9, and two
# tokens are numbered in the order of the file's numbers, without the gap. A model that was trained
# with row 40 of its embedding reads row 9 instead, and nothing says so.
# Seen on 29 November 2026:
#   in the file: {'<new>': 40, '<newer>': 20} in the tokenizer: {'<new>': 10, '<newer>': 9}
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

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer

folder = Path(sys.argv[1])
folder.mkdir()
words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "sun", "sea", "##s", "set"]
vocabulary = {word: i for i, word in enumerate(words)}
tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
tokenizer.save(str(folder / "tokenizer.json"))
(folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
(folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
added = {"<new>": 40, "<newer>": 20}
(folder / "added_tokens.json").write_text(json.dumps(added))
read = AutoTokenizer.from_pretrained(folder)
ids = {token: read.convert_tokens_to_ids(token) for token in added}
print("in the file:", added, "in the tokenizer:", ids, "in a text:", read("sun <new>")["input_ids"])
assert ids == {"<newer>": 9, "<new>": 10}
PYTHON
