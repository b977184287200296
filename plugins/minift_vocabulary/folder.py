"""The files of a tokenizer's folder.

tokenizer.json holds the vocabulary and the rules of the `tokenizers` library, or older files do.
All other settings are in tokenizer_config.json, in the older special_tokens_map.json, in the
model's config.json, or in no file: then those usual for the model's family are used.
"""

import warnings
from pathlib import Path
from typing import Any

from minift.errors import ModelError
from minift.files import read_json
from minift.plugins import default_manager
from minift_vocabulary import defaults
from minift_vocabulary.settings import configure
from minift_vocabulary.tokenizer import FolderTokenizer


def find_tokenizer(folder: Path) -> FolderTokenizer | None:
    """Return the tokenizer of a folder, None if it has none."""
    settings, config = read_settings(folder), read_json(folder / "config.json")
    path, build = folder / "tokenizer.json", default_manager().hook.minift_build_tokenizer
    if not path.is_file():
        backend, serialized = build(folder=folder, tokenizer_config=settings, config=config), b""
    else:
        serialized = path.read_bytes()
        backend = parse_tokenizer_json(serialized, folder)
    if backend is None:
        return None
    backend.no_truncation()  # the file may record options of the author's last call
    backend.no_padding()
    before = backend.to_str()
    if serialized:
        configure(backend, folder, settings, config)
    rules = backend.to_str()
    usual: dict[str, Any] = defaults.find_special_tokens(settings, backend)
    usual["model_max_length"] = defaults.model_max_length(settings, config)
    usual["model_input_names"] = defaults.model_input_names(settings, config)
    texts = {name: defaults.token_text(value) for name, value in settings.items()}
    serialized = serialized if serialized and rules == before else rules.encode()
    return FolderTokenizer(folder, backend, serialized, texts | usual)


def read_settings(folder: Path) -> dict[str, Any]:
    """Return tokenizer_config.json, with the older special_tokens_map.json where it is needed."""
    config = read_json(folder / "tokenizer_config.json")
    if "added_tokens_decoder" not in config:  # newer files are complete
        config.update(read_json(folder / "special_tokens_map.json"))
    if code := config.pop("auto_map", None):
        warnings.warn(f"{folder}: auto_map {code} is ignored; the built-in tokenizer is used")
    return config


def parse_tokenizer_json(serialized: bytes, folder: Path) -> Any:
    """Return the `tokenizers.Tokenizer` that tokenizer.json describes."""
    from tokenizers import Tokenizer as Backend

    try:
        return Backend.from_buffer(serialized)
    except Exception as error:  # the library raises bare Exception
        what = f"the tokenizer.json of {folder} cannot be read"
        do = "copy the file from the model again"
        raise ModelError(what, got=error, expected="the file as saved", do=do) from None
