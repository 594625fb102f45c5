"""A picture of a space: one dot an item, coloured by modality, and lines between the items of some samples."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from multimodal_ssl.embed import Embedded
from multimodal_ssl.errors import InputError
from multimodal_ssl.ranking import Floats

DOTS = 10_000  # of all modalities together
SAMPLES = 30  # whose items are joined by lines
NEIGHBOURS = 15  # of UMAP
FEWEST = 4  # items that UMAP can lay out

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]


class Plane(NamedTuple):
    """Where items lie [N, 2], and what the two axes are."""

    places: Floats
    axes: tuple[str, str]


Projection = Callable[[Vectors], Plane]


def projection(by: str) -> Projection:
    """Return what lays vectors [N, D] into a plane, ``pca`` or ``umap``; raise InputError if that is not installed."""
    if by == "pca":
        return pca
    try:
        import umap
    except ImportError as error:
        raise InputError(
            "a map by umap needs the package umap-learn: install it with `pip install 'multimodal-ssl[umap]'`, or draw "
            "the map by pca"
        ) from error
    return lambda vectors: _umap(umap, vectors)


def pca(vectors: Vectors) -> Plane:
    """Lay vectors [N, D] onto their two principal axes (Pearson 1901), by the SVD of what is left without their mean.

    The farthest item along an axis has a positive coordinate, so that the picture isn't mirrored by chance.
    """
    wide = torch.from_numpy(vectors).double()
    left, values, _ = torch.linalg.svd(wide - wide.mean(0), full_matrices=False)
    places, shares = np.zeros((len(vectors), 2)), np.zeros(2)
    number = min(2, len(values))
    places[:, :number] = (left * values)[:, :number].numpy()
    shares[:number] = (values**2 / (values**2).sum().clamp_min(torch.finfo().tiny))[:number].numpy()
    farthest = places[np.abs(places).argmax(0), [0, 1]]
    first, second = (f"principal axis {i + 1}, {share:.1%} of the variance" for i, share in enumerate(shares))
    return Plane(places * np.where(farthest < 0, -1, 1), (first, second))


def _umap(umap: Any, vectors: Vectors) -> Plane:
    """Lay vectors [N, D] into a plane where neighbours stay neighbours (McInnes et al. 2018)."""
    if len(vectors) < FEWEST:
        raise InputError(f"a map by umap needs {FEWEST} items at least (given: {len(vectors)}): draw it by pca")
    model = umap.UMAP(
        n_neighbors=min(NEIGHBOURS, len(vectors) - 1), metric="cosine", random_state=0, n_jobs=1,
        init="spectral" if len(vectors) > NEIGHBOURS else "random",
    )  # fmt: skip
    return Plane(model.fit_transform(vectors).astype(np.float64), ("UMAP 1 (distances mean little)", "UMAP 2"))


def choose(
    items: Mapping[str, Embedded], *, dots: int = DOTS, samples: int = SAMPLES, seed: int = 0
) -> tuple[dict[str, Rows], list[str]]:
    """Return which rows of each modality stand in a picture, and the keys of the samples that are joined by lines.

    As many samples are drawn for any two modalities, or a rare one would have no line. All their items stand in the
    picture, the others are drawn, too: as many of each modality, if it has them.
    """
    rng = np.random.default_rng(seed)
    places = {name: {key: row for row, key in enumerate(one.keys)} for name, one in items.items()}
    shared = [some for a, b in itertools.combinations(places.values(), 2) if (some := [key for key in a if key in b])]
    each = -(-samples // max(1, len(shared)))
    joined = list(dict.fromkeys(some[i] for some in shared for i in rng.permutation(len(some))[:each]))
    rows = {}
    for name, one in places.items():
        first = np.array([one[key] for key in joined if key in one], np.int64)
        others = rng.permutation(np.setdiff1d(np.arange(len(items[name].vectors)), first))
        rows[name] = np.concatenate([first, others[: max(0, dots // len(items) - len(first))]])
    return rows, joined


def draw_map(path: Path, items: Mapping[str, Embedded], project: Projection = pca) -> None:
    """Draw embedded items, at most DOTS of them, into a picture."""
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    rows, joined = choose(items)
    places, names = project(np.concatenate([items[name].vectors[some] for name, some in rows.items()]))
    kind = np.repeat(np.arange(len(rows)), [len(some) for some in rows.values()])
    colours = np.array([f"C{number % 10}" for number in range(len(rows))])
    keys = [(number, items[name].keys[row]) for number, (name, some) in enumerate(rows.items()) for row in some]
    where = dict(zip(keys, places, strict=True))
    ends = [[(where[i, key], i) for i in range(len(rows)) if (i, key) in where] for key in joined]

    figure = Figure(figsize=(7, 7), layout="constrained")
    axes = figure.subplots()
    order = np.random.default_rng(0).permutation(len(places))  # or the last modality would cover the others
    size = float(np.clip(20_000 / len(places), 3, 24))
    axes.scatter(places[order, 0], places[order, 1], s=size, c=colours[kind[order]], alpha=0.5, linewidths=0)
    lines = [[a, b] for some in ends for (a, _), (b, _) in itertools.combinations(some, 2)]
    axes.add_collection(LineCollection(lines, colors="0.2", linewidths=0.7, alpha=0.6))
    for (x, y), number in itertools.chain.from_iterable(ends):
        axes.scatter(x, y, s=size + 12, color=colours[number], edgecolors="black", linewidths=0.7, zorder=3)
    axes.set(xlabel=names[0], ylabel=names[1])
    axes.set_aspect("equal")
    handles = [
        Line2D([], [], linestyle="", marker="o", color=colour, label=_told(name, len(rows[name]), len(one.keys)))
        for colour, (name, one) in zip(colours, items.items(), strict=True)
    ]
    if joined:
        handles.append(Line2D([], [], color="0.2", linewidth=0.7, label=f"the items of {len(joined)} samples"))
    figure.legend(handles=handles, loc="outside upper center", ncols=min(3, len(handles)), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, bbox_inches="tight", format="png")


def _told(name: str, drawn: int, of: int) -> str:
    return f"{name}: {drawn:,}" if drawn == of else f"{name}: {drawn:,} of {of:,}"
