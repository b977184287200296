"""Byte-level BPE (RoBERTa, GPT-2) from vocab.json and merges.txt."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from minift.errors import ModelError
from minift.files import read_json
from minift_vocabulary.reading import flag, read_lines

# Bytes that never occur in UTF-8 (RFC 3629); as printable Latin-1, they stand for themselves.
UNUSED_BYTES = {chr(byte) for byte in (0xC0, 0xC1, *range(0xF5, 0x100))}
IDS = range(2**32)  # uint32 in the library


def byte_level(folder: Path, tokenizer_config: Mapping[str, Any]) -> Tokenizer:
    """Return a byte-level BPE tokenizer, without special tokens yet."""
    vocabulary = read_vocabulary(folder / "vocab.json")
    refuse_missing_bytes(folder / "vocab.json", vocabulary)
    merges = read_merges(folder / "merges.txt", vocabulary)
    backend: Any = Tokenizer(BPE(vocabulary, merges))
    backend.pre_tokenizer = byte_level_splitter(tokenizer_config)
    backend.decoder = decoders.ByteLevel()
    return backend


def byte_level_splitter(tokenizer_config: Mapping[str, Any]) -> pre_tokenizers.PreTokenizer:
    """Return what splits a text into words; a setting puts a space before the first of them."""
    return pre_tokenizers.ByteLevel(flag(tokenizer_config, "add_prefix_space", False))


def read_vocabulary(path: Path) -> dict[str, int]:
    """Return {token: id}."""
    vocabulary = read_json(path)
    token_of: dict[int, str] = {}
    for token, number in vocabulary.items():
        if type(number) is not int or number not in IDS:
            raise ModelError(
                f"{path} has something else than an id for a token",
                got=f"{token!r}: {number!r:.60}",
                expected='{"token": id, ...}, ids being integers from 0',
                do="copy the file from the model again",
            )
        if number in token_of:
            raise ModelError(
                f"{path} has one id for two tokens",
                got=f"{number} for {token_of[number]!r} and {token!r}",
                expected="an id of its own for each token",
                do="copy the file from the model again",
            )
        token_of[number] = token
    return vocabulary


def refuse_missing_bytes(path: Path, vocabulary: Mapping[str, int]) -> None:
    """Raise an error if a byte has no token: without [UNK] it would vanish from the text."""
    needed = set(pre_tokenizers.ByteLevel.alphabet()) - UNUSED_BYTES
    missing = sorted(needed - vocabulary.keys())
    if missing:
        raise ModelError(
            f"{path} lacks tokens for single bytes, so that text would vanish",
            got=f"none for {len(missing)} of them: {' '.join(missing[:20])}",
            expected="a token for each byte that text in UTF-8 can have",
            do="check that it is the vocabulary of a byte-level BPE, as RoBERTa's is",
        )


def read_merges(path: Path, vocabulary: Mapping[str, int]) -> list[tuple[str, str]]:
    """Return the pairs to merge, in order of priority; a line may hold the version."""
    merges = []
    for number, line in enumerate(read_lines(path), start=1):
        first, _, second = line.partition(" ")
        if first in vocabulary and second in vocabulary and first + second in vocabulary:
            merges.append((first, second))
        elif not line.startswith("#version"):
            raise ModelError(
                f"line {number} of {path} does not fit vocab.json",
                got=repr(line),
                expected="two tokens of vocab.json which, joined, are a third",
                do="take both files from one model",
            )
    return merges
