"""The Binder: encoders and heads that put every modality into one space."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_ssl.encoder_config import Head
from multimodal_ssl.errors import InputError, nearest
from multimodal_ssl.layers import TokenHead
from multimodal_ssl.tuning import rest
from multimodal_ssl.types import Encoder, Inputs, Modality


def to_device(inputs: Inputs, device: torch.device) -> Inputs:
    """Move an encoder's inputs to a device."""
    if isinstance(inputs, Tensor):
        return inputs.to(device, non_blocking=True)
    return {name: tensor.to(device, non_blocking=True) for name, tensor in inputs.items()}


@final
class Binder(nn.Module):
    """Turns items of several modalities into unit vectors [B, D] of one space.

    Args:
        encoders: name of the items -> their encoder.
        modalities: name of the items -> what they are; used to load what ``encode`` is given.
        dim: D.
        heads: name of the items -> from features to the space, ``linear`` if not given; ``mlp`` has one hidden layer of
            the encoder's width, ``transformer`` takes tokens in place of features, ``none`` takes the features as they
            are, ``adapter`` adds to them what it learns, ``teacher`` keeps them out of the space.
        recipe: what it was built from (JSON); part of the fingerprint, since preparation has options but no weights.
        preparation: name of the items -> what else their encoder was made of; see recipe.py.
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        modalities: Mapping[str, Modality],
        *,
        dim: int,
        heads: Mapping[str, Head] | None = None,
        recipe: str = "",
        preparation: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        for name in encoders:
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or hasattr(nn.ModuleDict, name):
                raise InputError(f"{name!r} can't be the name of items: use letters, digits and _, and not {name!r}")
        self.encoders = nn.ModuleDict(encoders)
        self.modalities = dict(modalities)
        self.dim, self.recipe, self.preparation = dim, recipe, dict(preparation or {})
        self._fingerprint: tuple[Any, str] = None, ""  # of which state
        chosen = heads or {}
        self.teachers = frozenset(name for name, head in chosen.items() if head == "teacher")
        self.heads = nn.ModuleDict(
            {name: _head(name, encoder, dim, chosen.get(name, "linear")) for name, encoder in encoders.items()}
        )

    def forward(self, inputs: Mapping[str, Inputs]) -> dict[str, Tensor]:
        """Return the unit vectors of prepared inputs, name -> [B, D], in float32 whatever the precision.

        Those of teachers are as wide as their features.
        """
        return {name: F.normalize(self._view(name, one).float(), dim=-1) for name, one in inputs.items()}

    def _view(self, name: str, inputs: Inputs) -> Tensor:
        encoder, head = self.encoder(name), self.heads[name]
        found: Tensor = head(*encoder.token_states(inputs)) if isinstance(head, TokenHead) else head(encoder(inputs))
        return found

    def train(self, mode: bool = True) -> Self:
        """Keep in eval mode what does not learn."""
        super().train(mode)
        if mode:
            rest(self.encoders)
        return self

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        first = next(itertools.chain(self.parameters(), self.buffers()), None)
        return torch.device("cpu") if first is None else first.device

    def encoder(self, name: str) -> Encoder:
        """Return the encoder of a name; raise InputError if there is none."""
        if name not in self.encoders:
            raise InputError(f"this Binder has no encoder for {name!r}: {nearest(name, self.encoders)}")
        encoder = self.encoders[name]
        assert isinstance(encoder, Encoder), "nn.ModuleDict forgets the type"
        return encoder

    @torch.inference_mode()
    def encode(self, name: str, items: Iterable[Any], *, batch_size: int = 256) -> NDArray[np.float32]:
        """Return the unit vectors [N, D] of raw items, paths or bytes of one modality.

        Raises InputError for an item that can't be read.
        """
        self.encoder(name)
        if isinstance(items, str | bytes | Path):
            raise InputError(f"encode takes a list of items, not one: give [{items!r:.60}]")
        vectors = [np.empty((0, self.dim), np.float32)]
        rest = iter(items)
        while part := list(itertools.islice(rest, batch_size)):
            vectors.append(self.encode_prepared(name, [self.prepare(name, item) for item in part]))
        return np.concatenate(vectors)

    def prepare(self, name: str, item: Any) -> Inputs:
        """Return what `encode_prepared` takes of a raw item, path or bytes; raise InputError if it can't be read."""
        encoder, modality = self.encoder(name), self.modalities[name]
        try:
            return encoder.prepare(modality.load(item))
        except (OSError, ValueError) as error:
            raise InputError(f"{item!r:.80} can't be read as {modality.name}: {error}") from error

    @torch.inference_mode()
    def encode_prepared(self, name: str, prepared: Sequence[Inputs]) -> NDArray[np.float32]:
        """Return the unit vectors [N, D] of one batch of prepared items."""
        with evaluating(self):
            inputs = self.encoder(name).collate(prepared)
            vectors: NDArray[np.float32] = self({name: to_device(inputs, self.device)})[name].cpu().numpy()
        return vectors

    def fingerprint(self) -> str:
        """Return the SHA-256 of recipe, weights and learnt preparation, in hex: equal means equal embeddings."""
        weights = {id(one): (one.data_ptr(), one._version) for one in (*self.parameters(), *self.buffers())}
        state = self.state_dict()
        learnt = [state[name].numpy().tobytes() for name in sorted(state) if name.endswith("_extra_state")]
        if self._fingerprint[0] != (weights, learnt):  # a change in place counts the version up
            self._fingerprint = (weights, learnt), fingerprint_of(self.recipe, state)
        return self._fingerprint[1]

    def with_encoders(self, encoders: Mapping[str, Encoder], modalities: Mapping[str, Modality]) -> Binder:
        """Return a Binder of other encoders of the same names and widths, with the heads of this one."""
        other = Binder(encoders, modalities, dim=self.dim, recipe=self.recipe)
        other.heads, other.teachers = self.heads, self.teachers
        return other


def fingerprint_of(recipe: str, state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a recipe and the state of what it made, in hex."""
    digest = hashlib.sha256(recipe.encode())
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into eval mode for a while."""
    if not any(one.training for one in module.modules()):  # to set every flag takes longer than to encode a text
        yield
        return
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)


@contextmanager
def on_gpu(binder: Binder) -> Iterator[torch.device]:
    """Let a Binder compute on the GPU for a while, if there is one; give where it computes."""
    before = binder.device
    binder.to("cuda" if torch.cuda.is_available() else before)
    try:
        yield binder.device
    finally:
        binder.to(before)


class Adapter(nn.Module):
    """A residual of one hidden layer that begins at 0, so that training begins in the space of the features.

    CLIP-Adapter, Gao et al. 2021, eq. 2, with a ratio that is learnt.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden, self.output = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.output.weight)

    def forward(self, features: Tensor) -> Tensor:
        """Return features [B, F] with what is added."""
        size = features.norm(dim=-1, keepdim=True)
        return features + size * self.output(F.gelu(self.hidden(F.normalize(features, dim=-1))))


def _head(name: str, encoder: Encoder, dim: int, head: Head) -> nn.Module:
    width = encoder.width
    if head == "teacher":
        return nn.Identity()
    if head in ("none", "adapter"):
        if width != dim:
            raise InputError(
                f"encoders.{name}: head: {head}, but its features are {width} wide: set binder.dim={width}"
            )
        return nn.Identity() if head == "none" else Adapter(width)
    if head == "transformer":
        if not encoder.token_width:
            raise InputError(f"encoders.{name}: head: transformer, but it gives no tokens: take linear, mlp or adapter")
        return TokenHead(encoder.token_width, dim)
    if head == "linear":
        return nn.Linear(width, dim, bias=False)
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, dim, bias=False))
