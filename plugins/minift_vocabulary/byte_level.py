"""Byte-level BPE (RoBERTa, GPT-2) from vocab.json and merges.txt."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from minift.files import read_json
from minift_vocabulary.reading import bad_file, flag, read_lines

# Bytes that never occur in UTF-8 (RFC 3629); as printable Latin-1, they stand for themselves.
UNUSED_BYTES = {chr(byte) for byte in (0xC0, 0xC1, *range(0xF5, 0x100))}
IDS = range(2**32)  # uint32 in the library


def byte_level(folder: Path, tokenizer_config: Mapping[str, Any]) -> Tokenizer:
    """Return a byte-level BPE tokenizer, without special tokens yet."""
    vocabulary = read_vocabulary(folder / "vocab.json")
    merges = read_merges(folder / "merges.txt", vocabulary)
    backend: Any = Tokenizer(BPE(vocabulary, merges))
    backend.pre_tokenizer = byte_level_splitter(tokenizer_config)
    backend.decoder = decoders.ByteLevel()
    return backend


def byte_level_splitter(tokenizer_config: Mapping[str, Any]) -> pre_tokenizers.PreTokenizer:
    """Return what splits a text into words; a setting puts a space before the first of them."""
    return pre_tokenizers.ByteLevel(flag(tokenizer_config, "add_prefix_space", False))


def read_vocabulary(path: Path) -> dict[str, int]:
    """Return {token: id}. Without [UNK], a byte without a token would vanish from the text."""
    vocabulary = read_json(path)
    used = set[int]()
    for token, number in vocabulary.items():
        if type(number) is not int or number not in IDS or number in used:
            what, got = f"{path} lacks an id of its own for a token", f"{token!r}: {number!r:.60}"
            raise bad_file(what, got, '{"token": id, ...}, ids being integers from 0')
        used.add(number)
    needed = set(pre_tokenizers.ByteLevel.alphabet()) - UNUSED_BYTES
    if missing := sorted(needed - vocabulary.keys()):
        what = f"{path} lacks tokens for single bytes, so that text would vanish"
        got = f"none for {len(missing)} of them: {' '.join(missing[:20])}"
        raise bad_file(what, got, "a token for each byte, as in RoBERTa's vocabulary")
    return vocabulary


def read_merges(path: Path, vocabulary: Mapping[str, int]) -> list[tuple[str, str]]:
    """Return the pairs to merge, in order of priority; a line may hold the version."""
    merges = []
    for number, line in enumerate(read_lines(path), start=1):
        first, _, second = line.partition(" ")
        if first in vocabulary and second in vocabulary and first + second in vocabulary:
            merges.append((first, second))
        elif not line.startswith("#version"):
            what = f"line {number} of {path} does not fit vocab.json"
            raise bad_file(what, repr(line), "two tokens of vocab.json which, joined, are a third")
    return merges
