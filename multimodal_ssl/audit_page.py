"""audit.html: the suspects with what a person sees of them, in one file without an external address."""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from multimodal_ssl.audit import Audit
from multimodal_ssl.config import Config
from multimodal_ssl.data import Supply, full_key, previews_of, readable
from multimodal_ssl.files import write_text
from multimodal_ssl.pipeline import open_training
from multimodal_ssl.plugins import Catalog
from multimodal_ssl.types import Preview
from multimodal_ssl.verdict import Rates

BINS = 50
LISTED = 1000  # unreadable samples
STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, CanvasText 18%, Canvas); }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
th, td { text-align: left; padding: .4rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 120px; max-height: 120px; background: white; image-rendering: auto; }
audio { width: 220px; }
code { font-size: 12px; overflow-wrap: anywhere; opacity: .75; }
svg { width: 100%; height: 160px; } rect { fill: #3b82f6; } line { stroke: #dc2626; stroke-width: 2; }
.scroll { overflow-x: auto; } .note { border-left: 4px solid #d97706; padding-left: .8rem; }
"""


def write_page(path: Path, audit: Audit, config: Config, *, top: int, catalog: Catalog | None = None) -> None:
    """Write the page with the `top` worst samples of the same items."""
    catalog = catalog or Catalog.discover()
    supplies, _ = open_training(config, catalog)
    body = []
    for rate in audit.rates:
        judged = audit.table.filter(pc.field("items") == ", ".join(rate.items))
        rows = judged.slice(0, top).to_pylist()
        wanted = {row[field] for row in rows for field in ("key", "suggestion")}
        seen = _see(supplies, rate.items, wanted, catalog)
        body.append(
            _rates(rate)
            + _histogram(judged["p_value"].drop_null().to_numpy(), rate)
            + _parts(rate)
            + _suspects(rate, rows, seen)
        )
    if audit.unreadable:
        lost = "".join(f"<tr><td><code>{escape(key)}</code><td>{escape(why)}" for key, why in audit.unreadable[:LISTED])
        body.append(f"<h2>{len(audit.unreadable):,} could not be read</h2><table>{lost}</table>")
    title = f"Audit of {escape(config.run.name)}"
    write_text(
        path,
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
        f"<body><h1>{title}</h1>{''.join(body)}</body></html>\n",
    )


def _see(
    supplies: Sequence[Supply], names: Sequence[str], keys: Collection[str], catalog: Catalog
) -> dict[str, dict[str, Preview]]:
    """Return what a person sees of the items of these samples, by key and name."""
    found: dict[str, dict[str, Preview]] = {}
    for position, supply in enumerate(supplies):
        modalities = {name: catalog.modality(supply.source.modalities[name]) for name in supply.names}
        for sample in readable(supply.source):
            key = full_key(supplies, position, sample.key)
            if key in keys and set(names) <= sample.items.keys():
                items = {name: modalities[name].open(sample.items[name]) for name in names}
                found[key] = previews_of(sample, items, modalities)
    return found


def _rates(rate: Rates) -> str:
    everything = max(rate.gross.value * rate.samples, 1)
    cuts = "".join(
        f'<tr><td class="number">{cut}<td class="number">{above:,}<td class="number">{wrong:,.0f}'
        f'<td class="number">{wrong / max(above, 1):.2f}<td class="number">{min(1, wrong / everything):.2f}'
        for cut, (above, wrong) in rate.expected.items()
    )
    notes = "".join(f'<p class="note">{escape(note)}.' for note in rate.notes)
    kinds = "".join(f'<tr><td>{escape(kind)}<td class="number">{count:,}' for kind, count in rate.reasons.items())
    return (
        f"<h2>{escape(', '.join(rate.items))}</h2>{notes}"
        f"<p>{rate.samples:,} samples, <b>{rate.gross.value:.1%}</b> of them mismatched "
        f"(95 %: {rate.gross.low:.1%} to {rate.gross.high:.1%}): an item might be anybody's. By trust alone "
        f"{rate.by_trust.value:.1%} ({rate.by_trust.low:.1%} to {rate.by_trust.high:.1%}), with what is merely hard."
        '<table><tr><th class="number">p(mismatch) from<th class="number">samples'
        '<th class="number">wrong, expected<th class="number">precision<th class="number">of all wrong</tr>'
        f"{cuts}</table>"
        f'<table><tr><th>what is wrong<th class="number">samples</tr>{kinds}</table>'
    )


def _parts(rate: Rates) -> str:
    """Return a table of the rates by source and metadata, with a bar each."""
    lines = "".join(
        f'<tr><td>{escape(part.column)}<td>{escape(part.value)}<td class="number">{part.samples:,}'
        f'<td class="number">{part.gross.value:.1%}<td class="number">{part.gross.low:.1%} to {part.gross.high:.1%}'
        f'<td><meter max="1" value="{part.gross.value:.4f}"></meter>'
        for part in rate.parts
    )
    if not lines:
        return ""
    return (
        '<h3>Where they come from</h3><div class="scroll"><table><tr><th>column<th>value<th class="number">samples'
        f'<th class="number">mismatched<th class="number">95 %<th></tr>{lines}</table></div>'
    )


def _histogram(p_values: NDArray[np.float64], rate: Rates) -> str:
    """Return the histogram of p-values; wrong pairs are spread evenly, up to the line."""
    counts = np.histogram(p_values, bins=BINS, range=(0, 1))[0]
    heights = np.sqrt(counts / max(1, counts.max()))  # so that the wrong ones are seen beside the right ones
    bars = "".join(
        f'<rect x="{10 * i}" y="{100 * (1 - height):.1f}" width="9" height="{100 * height:.1f}">'
        f"<title>{i / BINS:.2f} to {(i + 1) / BINS:.2f}: {count:,} samples</title></rect>"
        for i, (height, count) in enumerate(zip(heights, counts, strict=True))
    )
    level = 100 * (1 - np.sqrt(rate.gross.value * len(p_values) / BINS / max(1, counts.max())))
    return (
        f'<svg viewBox="0 0 {10 * BINS} 100" preserveAspectRatio="none" role="img" aria-label="histogram of p-values">'
        f'{bars}<line x1="0" x2="{10 * BINS}" y1="{level:.1f}" y2="{level:.1f}"/></svg>'
        "<p>p-values from 0 to 1 (height: root of the count). Right samples stand at the left; wrong ones are spread "
        "evenly, up to the line.</p>"
    )


def _suspects(rate: Rates, rows: Sequence[Mapping[str, Any]], seen: Mapping[str, Mapping[str, Preview]]) -> str:
    lines = []
    for row in rows:
        own, better = seen.get(row["key"], {}), seen.get(row["suggestion"], {})
        odd = row["odd"] or rate.items[-1]
        figures = "" if row["p_value"] is None else f"{row['p_mismatch']:.3f}<br><code>p {row['p_value']:.3f}</code>"
        items = "".join(f"<td>{_show(own.get(name))}" for name in rate.items)
        lines.append(
            f'<tr><td class="number">{figures}{items}<td>{_show(better.get(odd))}'
            f"<td>{escape(', '.join(row['reasons']))}"
            f"<br><code>{escape(row['key'])}<br>{escape(row['suggestion'])}</code>"
        )
    heads = "".join(f"<th>{escape(name)}" for name in rate.items)
    last = f"{escape(rate.items[-1])} that would fit best" if len(rate.items) == 2 else "would fit best"
    return (
        f'<h3>The {len(rows):,} worst</h3><div class="scroll"><table><tr><th class="number">p(mismatch){heads}'
        f"<th>{last}<th>what is wrong, key, key of what would fit</tr>{''.join(lines)}</table></div>"
    )


def _show(preview: Preview | None) -> str:
    if preview is None:
        return ""
    parts = []
    if preview.png:
        parts.append(
            f'<img loading="lazy" alt="" src="data:image/png;base64,{base64.b64encode(preview.png).decode()}">'
        )
    if preview.wav:
        parts.append(f'<audio controls src="data:audio/wav;base64,{base64.b64encode(preview.wav).decode()}"></audio>')
    if preview.text:
        parts.append(escape(preview.text))
    return "<br>".join(parts)
