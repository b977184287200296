"""The tokenizer of a folder: its files, its tokens and their ids.

`minift.tokenizer.Tokenizer` turns texts into batches. This class adds what depends on a vocabulary:
which tokens are special and what for, new tokens, ids back to text, and saving.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from minift.errors import ConfigError
from minift.files import local_path, write_text
from minift.tokenizer import Tokenizer, Truncation
from minift_vocabulary.defaults import EXTRA, ROLES
from minift_vocabulary.encoding import encode_rows, pair_up, token_columns
from minift_vocabulary.truncation import cut

# What users may set on a tokenizer, and is saved as it is then.
SETTINGS = ("model_max_length", "padding_side", "truncation_side", "model_input_names")


class FolderTokenizer(Tokenizer):
    """A tokenizer from a folder.

    Attributes:
        folder: the folder.
        settings: tokenizer_config.json, with the usual values of the family for what it lacks.
        special_tokens: {"pad_token": text or None, ...}, by role.
        pad_token, pad_token_id: a special token and its id, or None; likewise unk, sep, cls, mask,
            bos, eos. Setting either one sets both.
    """

    is_fast = True  # the library's word for its own way of splitting

    def __init__(
        self, folder: Path, backend: Any, serialized: bytes, settings: dict[str, Any]
    ) -> None:
        super().__init__(backend, settings)
        # The JSON is kept for saving: the folder may be gone by then.
        self.folder, self.serialized, self.settings = folder.absolute(), serialized, settings
        self.special_tokens = {role: settings.get(role) for role in ROLES}
        self.mark_special()

    def mark_special(self) -> None:
        """Keep the special tokens whole in a text, and leave them out with `skip_special_tokens`.

        The digest depends on the vocabulary and all rules, so it is made anew.
        """
        known = {t.content for t in self.backend_tokenizer.get_added_tokens_decoder().values()}
        tokens = [token for token in self.special_tokens.values() if token and token not in known]
        self.backend_tokenizer.add_special_tokens(tokens)
        text = self.backend_tokenizer.to_str()
        self.digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def __getattr__(self, name: str) -> Any:
        if (role := name.removesuffix("_id")) not in ROLES:
            raise AttributeError(f"a tokenizer has no {name!r}")
        token = self.special_tokens[role]
        return self.convert_tokens_to_ids(token) if token and name != role else token

    def __setattr__(self, name: str, value: Any) -> None:
        if (role := name.removesuffix("_id")) not in ROLES:
            return super().__setattr__(name, value)
        token = self.convert_ids_to_tokens(value) if name != role and value is not None else value
        if value is not None and str(token) not in self.get_vocab():
            do = f"add it first: tokenizer.add_special_tokens({{{role!r}: ...}})"
            raise ConfigError(f"{name} is not in the vocabulary", got=repr(value), do=do)
        self.special_tokens[role] = token and str(token)
        self.mark_special()

    @property
    def vocab_size(self) -> int:
        """The number of tokens, without those that were added."""
        return self.backend_tokenizer.get_vocab_size(with_added_tokens=False)

    def get_vocab(self) -> dict[str, int]:
        """Return {token: id}, with the tokens that were added."""
        return self.backend_tokenizer.get_vocab()

    vocab = property(get_vocab)

    # -- text to ids ------------------------------------------------------------------------------

    def encode_texts(
        self, text: Any, text_pair: Any, names: Sequence[str], truncation: Truncation | None, *,
        in_words: bool, add_special_tokens: bool, with_offsets: bool,
    ) -> tuple[dict[str, Any], Any, Callable[[], list[Any]], bool]:  # fmt: skip
        texts, is_single = pair_up(text, text_pair, in_words)
        backend = self.backend_tokenizer
        options = {"is_pretokenized": in_words, "add_special_tokens": add_special_tokens}
        in_detail = cache(partial(backend.encode_batch, texts, **options))
        # The fast way has no offsets and, without a post-processor, no types of a pair.
        fast = not with_offsets and backend.post_processor is not None
        encode = partial(backend.encode_batch_fast, texts, **options) if fast else in_detail
        rows, windows = encode_rows(texts, encode), None
        if truncation is not None:
            special = backend.num_special_tokens_to_add(text_pair is not None) * add_special_tokens
            windows = cut(rows, special, truncation)
        return token_columns(rows, windows, names), windows, in_detail, is_single

    # -- new tokens -------------------------------------------------------------------------------

    def add_tokens(self, new_tokens: Any, special_tokens: bool = False) -> int:
        """Add tokens at the end; `model.resize_token_embeddings(len(tokenizer))` gives them rows.

        An added token is found before the text is split, in the middle of a word too. Therefore a
        word that is one token already stays as it is: adding "the" would cut "other" in three. An
        `AddedToken` of the library is taken as it is: its single_word=True matches whole words.

        Args:
            new_tokens: one text or `tokenizers.AddedToken`, or several.
            special_tokens: leave them out when decoding with `skip_special_tokens`.

        Returns:
            How many were added.

        Raises:
            ConfigError: the vocabulary's ids have gaps, in which the library would put new tokens
                onto ids that are in use.
        """
        backend, ids, tokens = self.backend_tokenizer, self.get_vocab(), as_list(new_tokens)
        if not special_tokens:
            tokens = [t for t in tokens if not (isinstance(t, str) and self.is_one_token(t))]
        if any(str(token) not in ids for token in tokens) and max(ids.values()) >= len(ids):
            what = "the ids of the vocabulary have gaps: a new token would get one that is in use"
            raise ConfigError(what, got=f"{len(ids)} tokens, with ids to {max(ids.values())}")
        added = (backend.add_special_tokens if special_tokens else backend.add_tokens)(tokens)
        self.mark_special()
        self.serialized = backend.to_str().encode()
        return added

    def is_one_token(self, text: str) -> bool:
        """Return True for a token of the vocabulary that, as a text, is split into itself."""
        encoding = self.backend_tokenizer.encode(text, add_special_tokens=False)
        return encoding.ids == [self.backend_tokenizer.token_to_id(text)]

    def add_special_tokens(self, special_tokens_dict: Mapping[str, Any]) -> int:
        """Add special tokens: {"pad_token": "[PAD]"}, or {"extra_special_tokens": ["[E]"]}.

        Returns:
            How many were added.
        """
        roles = {role: t for role, t in special_tokens_dict.items() if role not in EXTRA}
        if unknown := roles.keys() - set(ROLES):
            what, expected = "no role of a special token", f"one of {(*ROLES, *EXTRA)}"
            raise ConfigError(what, got=sorted(unknown), expected=expected)
        extra = [t for name in EXTRA for t in as_list(special_tokens_dict.get(name, ()))]
        added = self.add_tokens([*roles.values(), *extra], special_tokens=True)
        for role, token in roles.items():
            setattr(self, role, token)
        return added

    # -- ids to text ------------------------------------------------------------------------------

    def decode(self, token_ids: Any, skip_special_tokens: bool = False) -> Any:
        """Return a sequence of ids as text, or several sequences as a list of texts."""
        ids = token_ids.tolist() if hasattr(token_ids, "tolist") else token_ids
        ids = [ids] if isinstance(ids, int) else list(ids)
        if ids and np.ndim(ids[0]):
            return self.batch_decode(ids, skip_special_tokens)
        return self.backend_tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)

    def batch_decode(self, sequences: Any, skip_special_tokens: bool = False) -> list[str]:
        return [self.decode(ids, skip_special_tokens) for ids in sequences]

    def convert_ids_to_tokens(self, ids: Any) -> Any:
        """Return the token of an id, or a list of tokens; None for an id that there is not."""
        if isinstance(ids, int | np.integer):
            return self.backend_tokenizer.id_to_token(int(ids))
        return [self.backend_tokenizer.id_to_token(int(i)) for i in ids]

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        """Return the id of a token, or a list of ids; those not in the vocabulary are unknown."""
        if not isinstance(tokens, str):
            return [self.convert_tokens_to_ids(token) for token in tokens]
        token_id = self.backend_tokenizer.token_to_id(tokens)
        return self.unk_token_id if token_id is None else token_id

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write tokenizer.json, tokenizer_config.json, and copies of vocabulary files.

        tokenizer.json is the folder's own, to the byte, unless new tokens or settings changed it.
        """
        folder = local_path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("vocab.txt", "vocab.json", "merges.txt"):
            source, target = self.folder / name, folder / name
            if source.is_file() and source.resolve() != target.resolve():
                shutil.copyfile(source, target)
        write_text(folder / "tokenizer.json", self.serialized.decode())
        config = self.settings | {name: getattr(self, name) for name in SETTINGS}
        roles = self.special_tokens.items()
        config |= {role: token for role, token in roles if token or role in config}
        # With this entry nobody reads older files beside it, which may say what is no longer true.
        added = json.loads(self.backend_tokenizer.to_str())["added_tokens"]
        config["added_tokens_decoder"] = {token.pop("id"): token for token in added}
        write_text(folder / "tokenizer_config.json", json.dumps(config, indent=2))


def as_list(tokens: Any) -> list[Any]:
    """Return one or several tokens as a list."""
    return list(tokens) if isinstance(tokens, list | tuple | set) else [tokens]
