#!/usr/bin/env bash
# tokenizers 0.23.3: `encode_batch_fast` is described as `encode_batch` without offsets. Where the
# tokenizer has no post-processor, it also gives the second text of a pair the type 0, so that a
# model cannot tell the two texts apart; `sequence_ids` still can. Tokens are empty strings and
# word_ids are None instead of an error. With a post-processor, which sets the types itself, the
# type ids are right, so nothing shows while one tests with BERT's own tokenizer.
# Seen on 29 November 2026:
#   encode_batch | no post-processor | [0, 0, 1] | [0, 0, 1] | ['sun', 'set', 'sea'] | [0, 1, 0]
#   encode_batch_fast | no post-processor | [0, 0, 0] | [0, 0, 1] | ['', '', ''] | [None, None, None]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
. "$folder/venv/bin/activate"
pip install --quiet tokenizers==0.23.3
python - <<'PYTHON'
from tokenizers import Tokenizer, models, pre_tokenizers, processors

tokenizer = Tokenizer(models.WordLevel({"?": 0, "sun": 1, "set": 2, "sea": 3}, unk_token="?"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
pair = [("sun set", "sea")]
found = {}
for template in (None, processors.TemplateProcessing(single="$A", pair="$A $B:1")):
    if template is not None:
        tokenizer.post_processor = template
    for encode in (tokenizer.encode_batch, tokenizer.encode_batch_fast):
        e = encode(pair)[0]
        name = encode.__name__, "template" if template else "no post-processor"
        found[name] = (e.type_ids, e.sequence_ids, e.tokens, e.word_ids)
        print(*name, *found[name], sep=" | ")
assert found["encode_batch", "no post-processor"][0] == [0, 0, 1]
assert found["encode_batch_fast", "no post-processor"] == (
    [0, 0, 0], [0, 0, 1], ["", "", ""], [None, None, None],
)
assert found["encode_batch_fast", "template"][0] == [0, 0, 1]
PYTHON
