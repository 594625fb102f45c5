"""Between what encoders were before training and what they are after: their weights, blended (WiSE-FT).

The heads are those of the trained run: before it there were none.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch import Tensor

from multimodal_ssl.binder import Binder
from multimodal_ssl.errors import InputError
from multimodal_ssl.pipeline import open_config
from multimodal_ssl.plugins import Catalog
from multimodal_ssl.recipe import load, rebuild, save_binder, start_encoders

STATISTICS = ("running_mean", "running_var")  # of BatchNorm


def untrained(run: Path | str, *, catalog: Catalog | None = None) -> Binder:
    """Return the Binder of a run with its encoders as they were before training, and its trained heads."""
    return blend(run, 0.0, catalog=catalog)


def blend(run: Path | str, alpha: float, *, catalog: Catalog | None = None) -> Binder:
    """Return the Binder of a run whose encoders have the weights (1 - alpha) before + alpha after training.

    That is WiSE-FT (Wortsman et al. 2022, eq. 1); of LoRA it is alpha times the update. What preparation learnt is that
    of the run.
    """
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha is {alpha}: give a number from 0 (before training) to 1 (after)")
    catalog = catalog or Catalog.discover()
    run = Path(run)
    after = load(run, catalog=catalog)
    config = open_config(run / "config.yaml")
    torch.manual_seed(config.seed)
    first = rebuild(run, catalog=catalog)
    start_encoders(first, config)
    before = first.state_dict()
    if 0 < alpha < 1 and any("lora_B" in name and one.any() for name, one in before.items()):
        raise InputError(
            f"{run} began with low-rank updates of another run: what lies between two of them is of no such rank; "
            "give alpha 0 or 1"
        )
    weights = {name for name, _ in after.named_parameters()}
    mixed = {
        name: _mix(name, before[name], tensor, alpha)
        if name.startswith("encoders.") and (name in weights or name.endswith(STATISTICS))
        else tensor
        for name, tensor in after.state_dict().items()
    }
    after.load_state_dict(mixed)
    return after.eval()


def _mix(name: str, before: Tensor, after: Tensor, alpha: float) -> Tensor:
    if "lora_A" in name and alpha:  # the update is B A: it grows by B, which begins at 0
        return after
    return torch.lerp(before.to(after), after, alpha) if after.is_floating_point() else after


def save_blend(run: Path | str, alpha: float, into: Path | str, *, catalog: Catalog | None = None) -> Binder:
    """Write a blend as a run of its own into a new folder; the rest of the run comes with it. Return its Binder."""
    run, into = Path(run), Path(into)
    if into.exists():
        raise InputError(f"{into} is there already: give a folder that is not")
    binder = blend(run, alpha, catalog=catalog)
    shutil.copytree(run, into, ignore=shutil.ignore_patterns("checkpoints", "tensorboard", "report.json", "index"))
    save_binder(into, binder, blended={"run": str(run), "alpha": alpha})
    return binder
