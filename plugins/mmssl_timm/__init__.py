"""Models of timm, as encoders of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multimodal_ssl import hookimpl

if TYPE_CHECKING:
    from multimodal_ssl import Encoder
    from multimodal_ssl.hookspecs import Register


def timm_image(*, model: str, pretrained: bool | str = True) -> Encoder:
    """Any model of timm, without its classifier and with its own preprocessing.

    Args:
        model: a name of timm such as vit_base_patch14_dinov2.lvd142m, hf-hub:owner/name or local-dir:folder.
        pretrained: whether to begin with the model's weights, or the path of a checkpoint to begin with.
    """
    from mmssl_timm.image import TimmImage

    return TimmImage(model=model, pretrained=pretrained)


@hookimpl
def register_encoders(register: Register) -> None:
    register("timm-image", timm_image, modalities=("image",))
