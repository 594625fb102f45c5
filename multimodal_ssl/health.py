"""Signs that training goes wrong, each with advice."""

from __future__ import annotations


def diagnose(loss: float, spread: float, chance: float | None) -> str | None:
    """Return what is wrong after warm-up, or None.

    Args:
        loss: mean over the last steps.
        spread: 1 - |mean of the unit vectors|^2 of the modality where it is smallest: 0 is collapsed, 1 is spread out.
        chance: the loss where nothing is learnt, if the objective knows it.
    """
    if spread < 0.01:
        return (
            f"the embeddings have collapsed to one point (spread {spread:.4f}, a healthy space has > 0.5): "
            "lower train.lr, train with a larger train.batch, or check that the items of a modality differ"
        )
    if chance is not None and abs(loss - chance) < 0.02 * chance:
        return (
            f"the loss stays at {chance:.3f}, that of guessing: nothing is learnt. Check that the items of a sample "
            "belong together, raise or lower train.lr, and look whether augmentation leaves anything to recognise"
        )
    return None
