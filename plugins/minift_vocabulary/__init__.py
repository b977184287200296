"""Tokenizers from vocabulary files, for folders that have no tokenizer.json.

Two algorithms cover the models here:

- **WordPiece** (Schuster & Nakajima 2012; Wu et al. 2016; BERT, DistilBERT, ELECTRA). vocab.txt has
  a token on each line, and the line's number is its id. The longest token that a word starts with
  is split off, then the same is done with the remainder, where tokens that continue a word begin
  with "##". If the remainder starts with no token, the whole word becomes [UNK]. Before that,
  BERT's normalizer lowercases, strips accents and puts spaces around Chinese characters.
- **Byte-level BPE** (Sennrich et al. 2016; over bytes: Radford et al. 2019; RoBERTa). A word is its
  bytes, each written as a printable character ("Ġ" is a space), so that no word is unknown.
  merges.txt lists pairs of tokens, the most frequent in training first. The first pair of the list
  that occurs in the word is merged, again and again until none does. vocab.json has the ids.

With both, special tokens are found in the text before it is split, and stay whole. The resulting
ids are those of the model's own tokenizer.json.

`building.py` looks at the folder, `wordpiece.py` and `byte_level.py` build the two kinds, and
`tokens.py` adds special tokens and tokens added later. `folder.py` reads a folder, whichever files
it has; beside a tokenizer.json, `settings.py` follows what the other files say. `defaults.py` knows
what is usual where no file says anything.
"""

from minift import hookimpl


@hookimpl(trylast=True)
def minift_find_tokenizer(folder):
    from minift_vocabulary.folder import find_tokenizer

    return find_tokenizer(folder)


@hookimpl(trylast=True)  # a plugin that knows other vocabularies answers before this one refuses
def minift_build_tokenizer(folder, tokenizer_config, config):
    from minift_vocabulary.building import build

    return build(folder, tokenizer_config, config)
