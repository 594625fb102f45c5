"""What symile and pairs answer where c = a xor b: which a belongs to b and c, of all that there are.

    python benchmarks/exclusive_or.py --seeds 0 1 2

Any two of the three are independent, bit by bit. Towers are MLPs; the answer is the best a for the product of b and c.
Chance is 1 / 64.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_ssl import Catalog, Objective
from multimodal_ssl.report import device_name

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "exclusive-or" / "objectives.json"
BITS, WIDTH, BATCH, STEPS, QUERIES = 6, 32, 128, 400, 2000
PAIRS = [("a", "b"), ("a", "c"), ("b", "c")]
OBJECTIVES = ("symile", "info-nce", "pairs", "centroid")


def draw(count: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Return rows of bits [count, BITS]."""
    a, b = (torch.randint(2, (count, BITS), generator=generator).float() for _ in range(2))
    return {"a": a, "b": b, "c": (a + b) % 2}


def accuracy(objective: Objective, seed: int) -> float:
    """Train towers and return the share of queries that are answered right."""
    torch.manual_seed(seed)
    towers = nn.ModuleDict(
        {name: nn.Sequential(nn.Linear(BITS, 64), nn.ReLU(), nn.Linear(64, WIDTH)) for name in "abc"}
    )
    optimizer = torch.optim.AdamW([*towers.parameters(), *objective.parameters()], lr=5e-3)
    generator = torch.Generator().manual_seed(1 + seed)

    def embed(items: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: F.normalize(towers[name](2 * one - 1), dim=1) for name, one in items.items()}

    place = 2 ** torch.arange(2 * BITS)
    for _ in range(STEPS):
        items = draw(BATCH, generator)
        group = torch.cat([items["a"], items["b"]], 1).long() @ place  # equal rows are no negatives of each other
        loss = objective(embed(items), torch.ones(BATCH), group).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        items = draw(QUERIES, generator)
        found = embed(items)
        every = torch.tensor(list(itertools.product((0.0, 1.0), repeat=BITS)))
        best = (found["b"] * found["c"] @ embed({"a": every})["a"].T).argmax(1)
        return float((every[best] == items["a"]).all(1).float().mean())


def main() -> None:
    """Record all objectives and seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    seeds = parser.parse_args().seeds
    catalog = Catalog.discover()
    found = {
        name: [accuracy(catalog.create("objectives", name, PAIRS, options={}), seed) for seed in seeds]
        for name in OBJECTIVES
    }
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    told = {"commit": commit, "device": device_name(), "seeds": seeds, "steps": STEPS, "accuracy": found}
    RESULTS.write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
