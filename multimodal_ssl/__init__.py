"""Learn one embedding space from messy pairs, find the pairs that are wrong, search across modalities."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multimodal_ssl.binder import Binder as Binder
    from multimodal_ssl.config import Config as Config
    from multimodal_ssl.config import load_config as load_config
    from multimodal_ssl.errors import InputError as InputError
    from multimodal_ssl.errors import UnreadableError as UnreadableError
    from multimodal_ssl.hookspecs import AnyEncoder as AnyEncoder
    from multimodal_ssl.hookspecs import AnyObjective as AnyObjective
    from multimodal_ssl.hookspecs import AnySource as AnySource
    from multimodal_ssl.hookspecs import hookimpl as hookimpl
    from multimodal_ssl.index import Index as Index
    from multimodal_ssl.indexing import build_index as build_index
    from multimodal_ssl.pipeline import bench as bench
    from multimodal_ssl.pipeline import fit as fit
    from multimodal_ssl.plugins import Catalog as Catalog
    from multimodal_ssl.recipe import load as load
    from multimodal_ssl.retrieval import Term as Term
    from multimodal_ssl.retrieval import Vector as Vector
    from multimodal_ssl.retrieval import search as search
    from multimodal_ssl.types import Alignment as Alignment
    from multimodal_ssl.types import BrokenItem as BrokenItem
    from multimodal_ssl.types import Columns as Columns
    from multimodal_ssl.types import Encoder as Encoder
    from multimodal_ssl.types import Inputs as Inputs
    from multimodal_ssl.types import LazyItem as LazyItem
    from multimodal_ssl.types import Manifest as Manifest
    from multimodal_ssl.types import MapSource as MapSource
    from multimodal_ssl.types import Modality as Modality
    from multimodal_ssl.types import Objective as Objective
    from multimodal_ssl.types import PairingSource as PairingSource
    from multimodal_ssl.types import Preview as Preview
    from multimodal_ssl.types import Sample as Sample
    from multimodal_ssl.types import TokenEncoder as TokenEncoder

__version__ = "0.1.0"

# Imported on first use (PEP 562), so that `mmssl --help` need not import torch.
_HOME = {
    "binder": ["Binder"],
    "config": ["Config", "load_config"],
    "errors": ["InputError", "UnreadableError"],
    "hookspecs": ["AnyEncoder", "AnyObjective", "AnySource", "hookimpl"],
    "index": ["Index"],
    "indexing": ["build_index"],
    "pipeline": ["bench", "fit"],
    "plugins": ["Catalog"],
    "recipe": ["load"],
    "retrieval": ["Term", "Vector", "search"],
    "types": [
        "Alignment",
        "BrokenItem",
        "Columns",
        "Encoder",
        "Inputs",
        "LazyItem",
        "Manifest",
        "MapSource",
        "Modality",
        "Objective",
        "PairingSource",
        "Preview",
        "Sample",
        "TokenEncoder",
    ],
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
