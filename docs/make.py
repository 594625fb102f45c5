"""Make cli.md and reference.md from the code: python docs/make.py"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, get_args

import click

from multimodal_ssl import Catalog
from multimodal_ssl.cli import mmssl
from multimodal_ssl.config import (
    AuditConfig,
    BinderConfig,
    Config,
    CorruptConfig,
    DecoyConfig,
    SourceConfig,
    TrainConfig,
    TrustConfig,
)
from multimodal_ssl.encoder_config import EncoderConfig, LoraConfig, StartConfig
from multimodal_ssl.plugins import ENTRY_POINT_GROUP, KINDS, options_of

DOCS = Path(__file__).parent
SECTIONS = {
    "": Config,
    "sources.N": SourceConfig,
    "sources.N.corrupt": CorruptConfig,
    "encoders.NAME": EncoderConfig,
    "encoders.NAME.lora": LoraConfig,
    "encoders.NAME.start": StartConfig,
    "trust": TrustConfig,
    "audit": AuditConfig,
    "decoys": DecoyConfig,
    "binder": BinderConfig,
    "train": TrainConfig,
}
OURS = {one.name for one in distribution("multimodal-ssl").entry_points if one.group == ENTRY_POINT_GROUP}


def cli() -> str:
    """Return the help of every command."""
    settings = {**mmssl.context_settings, "max_content_width": 100, "terminal_width": 100}
    context = click.Context(mmssl, info_name="mmssl", **settings)
    parts = ["# The command line\n", "Made by `docs/make.py` from the commands themselves.\n"]
    for name in mmssl.list_commands(context):
        command = mmssl.get_command(context, name)
        assert command is not None
        inside = click.Context(command, context, name, max_content_width=100, terminal_width=100)
        parts += [f"## mmssl {name}\n", f"```\n{command.get_help(inside)}\n```\n"]
    return "\n".join(parts)


def reference() -> str:
    """Return the keys of a config, and every name that our own plugins register, with its options."""
    catalog = Catalog.discover()
    parts = [
        "# Reference\n",
        "Made by `docs/make.py` from the code; `mmssl plugins NAME` also shows those of your own plugins.\n",
        "## Config\n",
    ]
    for place, model in SECTIONS.items():
        doc = inspect.getdoc(model) or ""
        meaning = _meanings(doc)
        parts += [
            f"**{place or 'top'}**: {doc.partition('Attributes:')[0].strip()}\n",
            "| key | type | default | |\n|---|---|---|---|",
        ]
        for key, one in model.model_fields.items():
            default = "required" if one.is_required() else f"`{one.get_default(call_default_factory=True)!r}`"
            parts.append(f"| {key} | {_type(one.annotation)} | {default} | {meaning.get(key, '')} |")
        parts.append("")
    for kind in KINDS:
        parts.append(f"## {kind.replace('_', ' ').capitalize()}\n")
        for name in catalog.names(kind):
            plugin, factory, _ = catalog.get(kind, name)
            if plugin in OURS:
                about, _, args = (inspect.getdoc(factory) or "").partition("\nArgs:\n")
                parts.append(f"### {name}\n\nFrom {plugin}. {about.strip()}\n")
                parts += _options(options_of(factory), _meanings(args))
    return "\n".join(parts)


def _meanings(args: str) -> dict[str, str]:
    """Return what the Args of a docstring say of each."""
    found = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", args, re.MULTILINE)
    return {name: " ".join(text.split()).replace("|", "\\|") for name, text in found}


def _options(options: Mapping[str, inspect.Parameter], meanings: Mapping[str, str]) -> list[str]:
    if not options:
        return []
    rows = ["| option | type | default | |\n|---|---|---|---|"]
    for key, one in options.items():
        default = "required" if one.default is inspect.Parameter.empty else f"`{one.default!r}`"
        rows.append(f"| {key} | {_type(one.annotation)} | {default} | {meanings.get(key, '')} |")
    return [*rows, ""]


def _type(annotation: Any) -> str:
    text = annotation.__name__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)
    for prefix in ("typing.", "pathlib.", "multimodal_ssl.config.", "multimodal_ssl.encoder_config."):
        text = text.replace(prefix, "")
    return f"`{text}`".replace("|", "\\|")


def kinds() -> str:
    """Return a table of modalities with the encoders and the sources of each, of our own plugins."""
    catalog = Catalog.discover()
    names = catalog.names("modalities")
    encoders, sources = ({kind: [] for kind in names} for _ in range(2))
    anything, made = [], []
    for name in catalog.names("encoders"):
        if catalog.get("encoders", name).plugin in OURS:
            for kind in catalog.get("encoders", name).modalities:
                encoders[kind].append(name)
    for name in catalog.names("pairing_sources"):
        plugin, factory, gives = catalog.get("pairing_sources", name)
        if plugin in OURS:
            wraps = any("Source" in str(one.annotation) for one in options_of(factory).values())
            (made if wraps and not gives else anything if not gives else []).append(name)
            for kind in gives:
                sources[kind].append(name)
    rows = [f"| `{kind}` | {_codes(encoders[kind])} | {_codes(sources[kind])} |" for kind in names if encoders[kind]]
    return "\n".join(
        [
            "# Modalities, encoders and sources\n",
            "Made by `docs/make.py` from the code; options stand in [reference.md](reference.md).\n",
            f"Any modality comes from {_codes(anything)}, and through those that are made of others: {_codes(made)}.\n",
            "| modality | encoders | sources of its own |\n|---|---|---|",
            *rows,
            "",
        ]
    )


def _codes(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


PAGES = {"cli.md": cli, "reference.md": reference, "kinds.md": kinds}

if __name__ == "__main__":
    for page, make in PAGES.items():
        (DOCS / page).write_text(make())
