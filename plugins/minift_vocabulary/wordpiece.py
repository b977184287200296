"""WordPiece from vocab.txt, after BERT's normalization of the text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import WordPiece

from minift_vocabulary.reading import bad_file, flag, read_lines


def wordpiece(folder: Path, tokenizer_config: Mapping[str, Any], unknown: str) -> Tokenizer:
    """Return a WordPiece tokenizer, without special tokens yet.

    Args:
        folder: has vocab.txt.
        tokenizer_config: may hold do_lower_case, strip_accents and tokenize_chinese_chars.
        unknown: the token of a word that cannot be put together from the vocabulary.
    """
    backend: Any = Tokenizer(WordPiece(read_vocabulary(folder / "vocab.txt"), unk_token=unknown))
    backend.normalizer = bert_normalizer(tokenizer_config)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    return backend


def bert_normalizer(tokenizer_config: Mapping[str, Any]) -> normalizers.Normalizer:
    """Return what is done with a text before it is split, as the settings say, or as usual."""
    return normalizers.BertNormalizer(
        lowercase=flag(tokenizer_config, "do_lower_case", True),
        # None: only if text is lowercased
        strip_accents=flag(tokenizer_config, "strip_accents", None),
        handle_chinese_chars=flag(tokenizer_config, "tokenize_chinese_chars", True),
    )


def read_vocabulary(path: Path) -> dict[str, int]:
    """Return {token: id}, where the id is the line's number, from 0."""
    vocabulary: dict[str, int] = {}
    for number, token in enumerate(read_lines(path)):
        if token in vocabulary:
            got = f"{token!r}, lines {vocabulary[token] + 1} and {number + 1}"
            raise bad_file(f"{path} has a token twice", got, "each token once: its line is its id")
        vocabulary[token] = number
    return vocabulary
