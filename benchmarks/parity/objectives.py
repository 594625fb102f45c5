"""Compare `symile` and `gram` with the authors' code, values and gradients, in float64.

    uv venv /tmp/peers && uv pip install --python /tmp/peers --no-deps symile==0.1.0
    PYTHONPATH=/tmp/peers/lib/python3.11/site-packages python benchmarks/parity/objectives.py

GRAM has no package: its volume is written here from its published formula with torch.linalg.det, its loss as InfoNCE
of negative volumes over a temperature, without the label smoothing that its code adds.
"""

from __future__ import annotations

import itertools
from unittest.mock import patch

import torch
from symile import Symile
from torch import Tensor
from torch.nn import functional as F

from multimodal_ssl.objectives.joint import gram, symile

BATCH, DIM, SCALE = 12, 16, 9.0


def views(count: int, seed: int) -> list[Tensor]:
    """Return unit vectors [B, D] in float64, one tensor a modality."""
    generator = torch.Generator().manual_seed(seed)
    found = torch.randn(count, BATCH, DIM, generator=generator, dtype=torch.float64)
    return [one.requires_grad_() for one in F.normalize(found, dim=-1)]


def peer_gram(given: list[Tensor]) -> Tensor:
    """Return the loss by determinants of Gram matrices, one pair of rows after the other."""
    anchor, *others = given
    volumes = torch.empty(BATCH, BATCH, dtype=torch.float64)
    for i, j in itertools.product(range(BATCH), repeat=2):
        rows = torch.stack([anchor[i], *(one[j] for one in others)])
        volumes[i, j] = torch.linalg.det(rows @ rows.T).abs().sqrt()
    logits, target = -SCALE * volumes, torch.arange(BATCH)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def largest(ours: Tensor, theirs: Tensor, given: list[Tensor]) -> tuple[float, float]:
    """Return how far values and gradients differ at most."""
    pairs = zip(torch.autograd.grad(ours, given), torch.autograd.grad(theirs, given), strict=True)
    return abs(ours - theirs).item(), max(float((a - b).abs().max()) for a, b in pairs)


def main() -> None:
    """Print the largest differences over ten batches."""
    group, weight = torch.arange(BATCH), torch.ones(BATCH, dtype=torch.float64)
    print("| objective | modalities | loss | gradient |\n|---|---|---|---|")
    for count in (2, 3, 4, 5):
        found = []
        for seed in range(10):
            given = views(count, seed)
            ours = gram(given[0], given[1:], torch.tensor(SCALE), group[:, None] == group[None], weight).loss
            found.append(largest(ours, peer_gram(given), given))
        print(f"| gram | {count} | {max(one[0] for one in found):.1e} | {max(one[1] for one in found):.1e} |")
    for count in (3, 4):
        found = []
        for seed in range(10):
            given = views(count, seed)
            factor = DIM ** ((count - 2) / 2)  # ours scales MIPs to the size of cosines
            ours = symile(given, torch.tensor(SCALE / factor), None, group, weight).loss
            found.append(largest(ours, Symile("n_squared")(given, SCALE), given))
        print(f"| symile, all | {count} | {max(one[0] for one in found):.1e} | {max(one[1] for one in found):.1e} |")
    for count in (3, 4):
        found = []
        for seed in range(10):
            given = views(count, seed)
            orders = [torch.arange(BATCH).roll(1 + shift) for shift in range(count)]
            drawn = iter([one for at in range(count) for place, one in enumerate(orders) if place != at])
            factor = DIM ** ((count - 2) / 2)
            ours = symile(given, torch.tensor(SCALE / factor), orders, group, weight).loss
            with patch("torch.randperm", lambda _, drawn=drawn: next(drawn)):
                theirs = Symile("n")(given, SCALE)
            found.append(largest(ours, theirs, given))
        print(f"| symile, linear | {count} | {max(one[0] for one in found):.1e} | {max(one[1] for one in found):.1e} |")


if __name__ == "__main__":
    main()
