"""inspect.html: what is in the data as a person sees it, in one file without an external address."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from multimodal_ssl.facts import SourceFacts
from multimodal_ssl.files import write_text
from multimodal_ssl.inspection import Inspection
from multimodal_ssl.spread import Spread
from multimodal_ssl.survey import Shown
from multimodal_ssl.types import Preview

STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, CanvasText 18%, Canvas); }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem;
  overflow-wrap: anywhere; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top;
  overflow-wrap: break-word; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
img { max-width: 100%; max-height: 192px; background: white; } audio { width: 100%; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(15rem, 100%), 1fr)); gap: 1rem; }
.card { border: 1px solid var(--line); border-radius: 6px; padding: .7rem; min-width: 0; }
.card p { margin: .4rem 0; max-height: 12rem; overflow: auto; } code { font-size: 12px; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(14rem, 100%), 1fr)); gap: 1rem; }
figure { margin: 0; } svg { width: 100%; height: 80px; } rect { fill: #3b82f6; } figcaption { font-size: 13px; }
.scroll { overflow-x: auto; } .look { border-left: 4px solid #d97706; padding-left: .8rem; }
"""


def write_page(path: Path, found: Inspection) -> None:
    """Write the page."""
    title = f"What is in {escape(found.title)}"
    looks = "".join(f'<p class="look">{escape(text)}' for text in found.warnings) or "<p>Nothing stands out."
    every = [*found.sources, *found.evaluation]
    body = "".join(_source(position, one, found) for position, one in enumerate(every))
    write_text(
        path,
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,"><style>{STYLE}</style>'
        f"</head><body><h1>{title}</h1>{looks}{body}{_training(found)}</body></html>\n",
    )


def _source(position: int, one: SourceFacts, found: Inspection) -> str:
    total = "an unknown number of samples (a stream)" if one.total is None else f"{one.total:,} samples"
    kind = "Source" if position < len(found.sources) else "Evaluation"
    kinds = [(", ".join(names) or "none", f"{count:,}") for names, count in one.combinations]
    lost = [(each.reason, ", ".join(each.keys), f"{each.count:,}")
            for each in (*one.unreadable.reasons, *one.unreadable.skipped_reasons)]  # fmt: skip
    groups = ""
    if one.groups:
        groups = (
            f"<p>{one.groups.count:,} groups; {one.groups.sharing:,} samples share theirs; the largest "
            f"{escape(repr(one.groups.largest[1]))} has {one.groups.largest[0]:,}."
        )
    fields = [
        (name, ", ".join(f"{value} ({count:,})" for value, count in known.most), f"{known.count:,} of {known.n:,}")
        for name, known in one.metadata.items()
    ]
    charts = "".join(_chart(f"{name}: {what}", size) for name, each in one.sizes.items() for what, size in each.items())
    return (
        f"<h2>{kind}: {escape(one.label)}</h2><p>{total}; {one.tried:,} read and compared, {one.decoded:,} decoded."
        f"{_table(('items together',), ('samples',), kinds)}{groups}"
        f'<h3>Some samples, drawn at random</h3><div class="sheet">{"".join(map(_card, found.sheets[position]))}</div>'
        f'<h3>Sizes</h3><div class="charts">{charts}</div>'
        f"<h3>Equal items</h3>{_repeats(position, one, found.pictures)}"
        + (f"<h3>Unreadable</h3>{_table(('why', 'where'), ('samples',), lost)}" if lost else "")
        + (f"<h3>Metadata</h3>{_table(('field', 'most common'), ('have it',), fields)}" if fields else "")
    )


def _card(shown: Shown) -> str:
    parts = "".join(_show(preview) for preview in shown.previews.values())
    return f'<div class="card">{parts}<code>{escape(shown.key)}</code></div>'


def _show(preview: Preview) -> str:
    parts = ""
    if preview.png:
        parts += f'<img alt="" src="data:image/png;base64,{base64.b64encode(preview.png).decode()}">'
    if preview.wav:
        parts += f'<audio controls src="data:audio/wav;base64,{base64.b64encode(preview.wav).decode()}"></audio>'
    return parts + (f"<p>{escape(preview.text)}</p>" if preview.text else "")


def _repeats(position: int, one: SourceFacts, pictures: Mapping[tuple[int, str, str], Preview]) -> str:
    rows = [
        (name, *(f"{cell:,}" for cell in (same.n, same.distinct, same.sharing, same.strangers)))
        for name, same in [*one.repeats.items(), ("whole samples", one.samples_repeat)]
    ]
    cards = ""
    for name, same in one.repeats.items():
        for most in same.most[:4]:
            picture = pictures.get((position, name, most.key))
            what = _show(picture) if picture else f"<p>{escape(most.text or most.key)}</p>"
            cards += f'<div class="card">{what}<p>{most.count:,} x {escape(name)}</p></div>'
    heads = ("compared", "different", "with an equal", "of another group")
    return _table(("items",), heads, rows) + f'<div class="sheet">{cards}</div>'


def _chart(what: str, size: Spread) -> str:
    width, top = 100 / len(size.counts), max(size.counts)
    bars = "".join(
        f'<rect x="{place * width:.2f}" y="{40 * (1 - count / top):.2f}" width="{width * 0.9:.2f}" '
        f'height="{40 * count / top:.2f}"><title>from {size.edges[place]:,.4g}: {count:,}</title></rect>'
        for place, count in enumerate(size.counts)
    )
    return (
        f'<figure><svg viewBox="0 0 100 40" preserveAspectRatio="none" role="img" aria-label="{escape(what)}">{bars}'
        f"</svg><figcaption>{escape(what)}: {size.least:,.6g} to {size.most:,.6g}, median {size.median:,.6g}, "
        f"95 % up to {size.p95:,.6g}</figcaption></figure>"
    )


def _training(found: Inspection) -> str:
    text = ""
    if found.leaks:
        rows = [(one.what, f"{one.count:,}", f"{one.n:,}") for one in found.leaks]
        text += f"<h2>Shared with the evaluation</h2>{_table(('what',), ('samples', 'of'), rows)}"
    if found.schedule and not found.schedule.refusal:
        plan = found.schedule
        epochs = ", ".join("stream" if one is None else f"{one:,}" for one in plan.per_epoch)
        text += (
            f"<h2>Training</h2><p>Batches of {plan.batch} in an epoch: {epochs}; steps: {plan.steps}; "
            f"left out: {plan.left_out:,} samples."
        )
    if found.pace:
        stages = [(one.stage, one.name, f"{one.per_second:,.0f}", f"{one.share:.0%}") for one in found.pace.stages]
        heads = ("samples/s, one process", "share of time")
        text += f"<h2>Speed</h2><p>{escape(found.pace.sentence)}.{_table(('stage', 'items'), heads, stages)}"
    return text


def _table(left: Sequence[str], right: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose last columns are numbers."""
    heads = "".join(f"<th>{one}" for one in left) + "".join(f'<th class="n">{one}' for one in right)
    lines = ""
    for row in rows:
        cells = (f"<td{' class=n' * (place >= len(left))}>{escape(one)}" for place, one in enumerate(row))
        lines += f"<tr>{''.join(cells)}"
    return f'<div class="scroll"><table><tr>{heads}{lines}</table></div>'
