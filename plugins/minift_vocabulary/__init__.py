"""Tokenizers from vocabulary files, for folders that have no tokenizer.json.

Two rules cover the models here. Both start from characters and leave no word unspelt:

- **WordPiece** (Schuster & Nakajima 2012; Wu et al. 2016; BERT, DistilBERT, ELECTRA): vocab.txt has
  a token on each line, its number being its id. A word is cut at the longest token that it starts
  with, then the rest likewise, where "##" marks a token that continues a word; if some rest starts
  with no token, the whole word becomes [UNK]. Which letters are there to be cut is decided before:
  BERT's normalizer lowers case, drops accents and sets Chinese characters apart, as the model says.
- **Byte-level BPE** (Sennrich et al. 2016; over bytes: Radford et al. 2019; RoBERTa): a word
  is its bytes, each shown as a printable character ("Ġ" is the space before a word), so nothing is
  unknown. merges.txt lists pairs in the order in which training found them frequent; the first pair
  of the list that is in the word is joined, until none is. vocab.json has the ids.

Either way, special tokens are found in the text before it is cut, and stay whole. What comes out is
what the model's own tokenizer.json would give.

`building.py` looks at the folder, `wordpiece.py` and `byte_level.py` are the two rules, `tokens.py`
adds the special tokens, and what was given to the tokenizer later.
"""

from minift import hookimpl


@hookimpl(trylast=True)  # a plugin that knows other vocabularies answers before this one refuses
def minift_build_tokenizer(folder, tokenizer_config, config):
    from minift_vocabulary.building import build

    return build(folder, tokenizer_config, config)
