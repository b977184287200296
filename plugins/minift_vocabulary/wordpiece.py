"""WordPiece from vocab.txt, with BERT's way of cleaning a text before."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import WordPiece

from minift.errors import ModelError
from minift_vocabulary.reading import flag, read_lines


def wordpiece(folder: Path, said: Mapping[str, Any], unknown: str) -> Tokenizer:
    """BERT's rule and vocab.txt, before special tokens.

    Args:
        folder: has vocab.txt.
        said: do_lower_case, strip_accents and tokenize_chinese_chars may be in it.
        unknown: what a word becomes that cannot be spelt.
    """
    backend: Any = Tokenizer(WordPiece(read_vocabulary(folder / "vocab.txt"), unk_token=unknown))
    backend.normalizer = normalizers.BertNormalizer(
        lowercase=flag(said, "do_lower_case", True),
        strip_accents=flag(said, "strip_accents", None),  # None: only where case is lowered too
        handle_chinese_chars=flag(said, "tokenize_chinese_chars", True),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    return backend


def read_vocabulary(path: Path) -> dict[str, int]:
    """{token: id}, where the id is the number of the line."""
    vocabulary: dict[str, int] = {}
    for number, token in enumerate(read_lines(path)):
        if token in vocabulary:
            raise ModelError(
                f"{path} has a token twice",
                got=f"{token!r}, lines {vocabulary[token] + 1} and {number + 1}",
                expected="each token once: its line is its id",
                do="copy the file from the model again",
            )
        vocabulary[token] = number
    return vocabulary
