"""Models of transformers and sentence-transformers, by hub name or local folder, with their own preparation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from mmssl_pretrained.options import Seconds
from multimodal_ssl import hookimpl

if TYPE_CHECKING:
    from multimodal_ssl import Encoder
    from multimodal_ssl.hookspecs import Register


def hf_text(
    *, model: str, pooling: Literal["mean", "cls", "last", "projected"] = "mean", length: int | None = None
) -> Encoder:
    """Any transformers AutoModel for texts by hub name or local folder.

    Args:
        model: a name on the hub or a local folder.
        pooling: the mean of the tokens, the first or the last one; projected: the joint space of CLIP, SigLIP or CLAP.
        length: texts are cut after so many tokens; None is as many as tokenizer and model take.
    """
    from mmssl_transformers.text import HuggingFaceText

    return HuggingFaceText(model=model, pooling=pooling, length=length)


def sentence_transformers_text(*, model: str, prompt: str | None = None, length: int | None = None) -> Encoder:
    """A model of sentence-transformers (transformer, Pooling, Dense, Normalize) by hub name or local folder.

    Args:
        model: a name on the hub or a local folder with a modules.json.
        prompt: the name of one of the model's prompts, put before each text; None is its default, if it has one.
        length: texts are cut after so many tokens; None is what the model's own config says.
    """
    from mmssl_transformers.sentences import SentenceTransformersText

    return SentenceTransformersText(model=model, prompt=prompt, length=length)


def hf_image(*, model: str, pooling: Literal["cls", "mean", "pooled", "projected"] | None = None) -> Encoder:
    """Any transformers AutoModel for images by hub name or local folder, with its own image processor.

    Args:
        model: a name on the hub or a local folder.
        pooling: the class token, the mean of the patches, what the model pools itself, or the joint space of CLIP or
            SigLIP; None is the last of these that the model was trained for.
    """
    from mmssl_transformers.image import HuggingFaceImage

    return HuggingFaceImage(model=model, pooling=pooling)


def hf_audio(
    *, model: str, pooling: Literal["mean", "cls", "pooled", "projected"] | None = None, seconds: Seconds | None = None
) -> Encoder:
    """Any transformers AutoModel for sounds (CLAP, AST, Whisper, wav2vec 2.0, HuBERT, WavLM), by name or local folder.

    Args:
        model: a name on the hub or a local folder.
        pooling: the mean of the real frames, the class token, what the model pools itself, or CLAP's joint space; None
            is the last of these that the model has.
        seconds: longer sounds are cropped to their middle, or anywhere to augment; None leaves that to the model's
            feature extractor, where it has a window of its own.
    """
    from mmssl_transformers.audio import HuggingFaceAudio

    return HuggingFaceAudio(model=model, pooling=pooling, seconds=seconds)


@hookimpl
def register_encoders(register: Register) -> None:
    register("hf-text", hf_text, modalities=("text",))
    register("hf-image", hf_image, modalities=("image",))
    register("hf-audio", hf_audio, modalities=("audio",))
    register("sentence-transformers-text", sentence_transformers_text, modalities=("text",))
