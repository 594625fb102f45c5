"""Signs that training goes wrong, each with advice."""

from __future__ import annotations

import math


def diagnose(loss: float, spread: float, batch: int) -> str | None:
    """Return what is wrong after warm-up, or None.

    Args:
        loss: mean over the last steps.
        spread: 1 - |mean of the unit vectors|^2 of the modality where it is smallest: 0 is collapsed, 1 is spread out.
        batch: samples a step.
    """
    if spread < 0.01:
        return (
            f"the embeddings have collapsed to one point (spread {spread:.4f}, a healthy space has > 0.5): "
            "lower train.lr, train with a larger train.batch, or check that the items of a modality differ"
        )
    if abs(loss - math.log(batch)) < 0.02 * math.log(batch):
        return (
            f"the loss stays at ln(batch) = {math.log(batch):.3f}: nothing is learnt. Check that the items of a sample "
            "belong together, raise or lower train.lr, and look whether augmentation leaves anything to recognise"
        )
    return None
