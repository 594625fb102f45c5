"""What all encoders of ImageBind share."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mmssl_imagebind.checkpoint import open_tower
from mmssl_imagebind.tower import Size
from multimodal_ssl import Encoder


class ImageBindEncoder(Encoder):
    """One tower of ImageBind (Girdhar et al. 2023); features are the official embeddings but for the logit scale.

    A run keeps the trained weights: to load it, the file that ``checkpoint`` names must still be there.

    Args:
        tower: its name in the checkpoint.
        checkpoint: the path of imagebind_huge.pth (CC-BY-NC 4.0: not for commercial use) or of a .pth or .safetensors
            file of the same names; None begins with random weights.
        size: of the tower, as the checkpoint has it.
    """

    def __init__(self, tower: str, checkpoint: str | None, size: Size) -> None:
        super().__init__()
        self.width = size.output
        self.tower = open_tower(tower, checkpoint, size)

    def by_depth(self) -> Sequence[nn.Module]:
        return self.tower.by_depth()

    def mean_over_views(self, views: Tensor) -> Tensor:
        """Return features [B, F] of items that are seen S times each, [B, S, ...]: the mean of S unit vectors."""
        return self.tower(views.flatten(0, 1)).unflatten(0, views.shape[:2]).mean(1)
