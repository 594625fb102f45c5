"""What features depend on beside options and weights, told in the same words wherever the files lie."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

# Where the files of a model lie, and nothing of what they say.
PLACES = ("_name_or_path", "name_or_path", "_commit_hash", "is_local", "local_files_only")


def describe(*libraries: ModuleType, **facts: Any) -> dict[str, Any]:
    """Return facts and the versions of libraries as ``Encoder.describe`` does.

    Places of files are left out; what JSON does not know is told by its repr.
    """
    plain: dict[str, Any] = json.loads(json.dumps(_without_places(facts), default=repr))
    return {"versions": {one.__name__: one.__version__ for one in libraries}, **plain}


def describe_tokenizer(tokenizer: Any) -> dict[str, Any]:
    """Return what the ids of a tokenizer of transformers depend on, but for the length at which texts are cut."""
    told = {
        "kind": type(tokenizer).__name__,
        "inputs": list(tokenizer.model_input_names),
        "sides": [tokenizer.padding_side, tokenizer.truncation_side],
        "padding": [tokenizer.pad_token_id, tokenizer.pad_token_type_id],
    }
    if tokenizer.is_fast:
        rules = json.loads(tokenizer.backend_tokenizer.to_str())
        # Each call sets these two anew.
        return told | {"rules": hash_of(rules | {"truncation": None, "padding": None})}
    with TemporaryDirectory() as folder:
        files = [Path(one) for one in tokenizer.save_vocabulary(folder)]
        content = {one.name: hashlib.sha256(one.read_bytes()).hexdigest() for one in files}
    settings = {name: one for name, one in tokenizer.init_kwargs.items() if not name.endswith("_file")}
    return told | {"vocabulary": hash_of(tokenizer.get_vocab()), "files": content, "settings": settings}


def hash_of(table: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a table too long to be told, as its JSON in the order of its keys."""
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()


def _without_places(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_places(one) for name, one in value.items() if name not in PLACES}
    return [_without_places(one) for one in value] if isinstance(value, list | tuple) else value
