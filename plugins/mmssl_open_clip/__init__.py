"""The towers of open_clip models, as encoders of images and of texts.

model is an architecture, a model config (.json), local-dir:folder or hf-hub:name; pretrained is a tag or a checkpoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from multimodal_ssl import hookimpl

if TYPE_CHECKING:
    from multimodal_ssl import Encoder
    from multimodal_ssl.hookspecs import Register


def open_clip_image(*, model: str, pretrained: str | None = None) -> Encoder:
    """The image tower of an open_clip model, with its own preprocessing."""
    from mmssl_open_clip.image import OpenClipImage

    return OpenClipImage(model=model, pretrained=pretrained)


def open_clip_text(*, model: str, pretrained: str | None = None) -> Encoder:
    """The text tower of an open_clip model, with its own tokenizer."""
    from mmssl_open_clip.text import OpenClipText

    return OpenClipText(model=model, pretrained=pretrained)


@hookimpl
def register_encoders(register: Register) -> None:
    register("open-clip-image", open_clip_image, modalities=("image",))
    register("open-clip-text", open_clip_text, modalities=("text",))
