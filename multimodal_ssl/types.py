"""The nouns of the toolkit.

Shape letters, here and everywhere: B batch, D joint width, F feature width, T tokens, N items, K results.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import default_collate

from multimodal_ssl.errors import UnreadableError
from multimodal_ssl.layers import mean_token

SHORT = 256  # tokens

Inputs: TypeAlias = Any
"""What an encoder takes: one tensor or a dict of tensors, the first axis of each being the batch."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What a person sees or hears of one item.

    Attributes:
        text, png, wav: what the modality has.
        path: the file that the item was read from; told by the data engine.
        caption: the texts that the item was seen with; told by the data engine.
    """

    text: str | None = None
    png: bytes | None = None
    wav: bytes | None = None
    path: str | None = None
    caption: str | None = None


class LazyItem(ABC):
    """An item that is read when it is used, in a worker, such as a member of an archive.

    It is small, can be pickled, and two of the same ``repr`` are the same item.
    """

    @abstractmethod
    def read(self) -> Any:
        """Return what ``Modality.load`` takes; raise ValueError or OSError if it can't be read."""


def _no_measures(_: Any) -> Mapping[str, float]:
    return {}


@dataclass(frozen=True, slots=True)
class BrokenItem(LazyItem):
    """An item of which a stream knows that it can't be read: why is told when its sample is used."""

    reason: str

    def read(self) -> Any:
        raise ValueError(self.reason)


@dataclass(frozen=True, slots=True)
class Modality:
    """A kind of signal.

    Attributes:
        name: e.g. ``image``.
        type: the Python type of one raw item.
        load: a path, bytes, a plain value or a raw item -> raw item. Raises ValueError or OSError if it can't.
        preview: raw item -> Preview.
        measure: raw item -> how large it is, by name with its unit where it has one, e.g. ``{"seconds": 3.2}``.
    """

    name: str
    type: type
    load: Callable[[Any], Any]
    preview: Callable[[Any], Preview]
    measure: Callable[[Any], Mapping[str, float]] = _no_measures

    def open(self, item: Any) -> Any:
        """Return the raw item that an item of a Sample stands for."""
        return self.load(item.read() if isinstance(item, LazyItem) else item)


@dataclass(frozen=True, slots=True)
class Sample:
    """Items that were seen together. Nobody checked that they agree.

    Attributes:
        key: unique in its source.
        items: modality -> raw item, or anything its ``Modality.load`` takes, or a LazyItem of that. Paths and lazy
            items are opened in a worker.
        group: samples of one group are never each other's negatives and all count as hits; "" is a group of its own.
        weight: how far the source trusts the pairing, in (0, 1].
        metadata: what else is known of it, such as its licence: name -> plain value.
    """

    key: str
    items: Mapping[str, Any]
    group: str = ""
    weight: float = 1.0
    metadata: Mapping[str, str | float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is known of the samples of a MapSource before any is read.

    Attributes:
        present: which items each sample has, [N, M] (bool), in the order of ``source.modalities``.
        group: [N] (int64), equal where the groups are; None: each sample is a group of its own.
        length: how long each item is in units of its own (characters, seconds), [N, M] (float32), 0 where there is
            none; None: nothing is known.
        frequency: how often each sample is visited in an epoch, [N] (float32); None: once.
    """

    present: NDArray[np.bool_]
    group: NDArray[np.int64] | None = None
    length: NDArray[np.float32] | None = None
    frequency: NDArray[np.float32] | None = None

    def take(self, rows: NDArray[np.int64]) -> Manifest:
        """Return what is known of these rows [n]."""
        return Manifest(
            self.present[rows],
            None if self.group is None else self.group[rows],
            None if self.length is None else self.length[rows],
            None if self.frequency is None else self.frequency[rows],
        )


class Columns(NamedTuple):
    """Samples [B], item by item.

    Attributes:
        keys, groups, weights, metadata: of the samples.
        items: name -> raw items, as `Modality.load` returns them, the rows of an array [B, ...].
    """

    keys: Sequence[str]
    groups: Sequence[str]
    weights: Sequence[float]
    metadata: Sequence[Mapping[str, str | float | None]]
    items: Mapping[str, NDArray[Any]]


class PairingSource(ABC):
    """A supply of Samples.

    It may consist of shards, each of which can be entered in the middle: override ``num_shards`` and ``read``.

    Attributes:
        modalities: name in ``Sample.items`` -> registered modality, e.g. ``{"outline": "series"}``.
        skipped: what could not even be made a sample, such as a broken line: where, and why. It may grow while the
            source is read, but stays the same object, which sources that are made of this one keep.
        num_shards: of which it consists.
    """

    modalities: Mapping[str, str]
    skipped: Sequence[tuple[str, str]] = ()
    num_shards: int = 1

    @abstractmethod
    def __iter__(self) -> Iterator[Sample]:
        """Yield the samples in an order that is the same every time."""

    def read(self, shard: int, start: int) -> Iterator[Sample]:
        """Yield the samples of one shard from the start-th on, in an order that is the same every time."""
        return itertools.islice(self, start, None)


class MapSource(PairingSource):
    """A PairingSource with random access: it is shuffled as a whole and resumed at once."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples."""

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Return one sample; raise UnreadableError if it can't be read. Runs in a worker."""

    def __iter__(self) -> Iterator[Sample]:
        """Yield the samples that can be read, in their order."""
        for index in range(len(self)):
            try:
                yield self[index]
            except UnreadableError:
                continue

    def columns(self, rows: Sequence[int], names: Sequence[str]) -> Columns | None:
        """Return many samples at once, if these items of them lie ready in arrays; else they are read one by one."""
        return None

    def manifest(self) -> Manifest:
        """Return what is known of all samples without reading them; unless overridden, that each has every item."""
        return Manifest(np.ones((len(self), len(self.modalities)), bool))


class Encoder(nn.Module, ABC):
    """Turns raw items of one modality into features.

    Preparation belongs to the encoder, because tokenizer, mel and resize settings belong to the weights.

    Attributes:
        modality: the registered modality whose raw items it takes.
        width: F, the width of its features.
        adapt_to: how many raw items, at most, `adapt` is given; they are spread over the sources.
    """

    modality: str
    width: int
    adapt_to: int = 100_000

    @abstractmethod
    def prepare(self, item: Any, rng: np.random.Generator | None = None) -> Inputs:
        """Turn one raw item into input tensors without a batch axis; augment it if given an rng. Runs in a worker."""

    @abstractmethod
    def forward(self, inputs: Inputs) -> Tensor:
        """Return features [B, F]."""

    @property
    def token_width(self) -> int:
        """How wide its tokens are, for heads that pool them themselves; 0: it gives none."""
        return 0

    def token_states(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Return what it pools its features from [B, T, token_width], and which of that is real [B, T] (bool)."""
        raise NotImplementedError(f"{type(self).__name__} gives no tokens")

    def by_depth(self) -> Sequence[nn.Module]:
        """Return its layers in the order of depth, for tuning by depth; what is in none of them lies below the first.

        What follows the last block, such as a norm, belongs to it: put both into one module. Empty: it has no depth.
        """
        return ()

    def describe(self) -> Mapping[str, Any]:
        """Tell what its features depend on beside its options and weights, such as a tokenizer, as plain JSON.

        It is asked before it is tuned. What the cache kept is found again only if this is the same. So is a run loaded;
        but if ``versions``, of the libraries it uses by their names, are others, what else it tells may differ.
        """
        return {}

    def collate(self, prepared: Sequence[Inputs]) -> Inputs:
        """Join prepared items into a batch; override it where their lengths differ."""
        return default_collate(list(prepared))

    def prepare_rows(
        self, items: NDArray[Any], slots: Sequence[int], rng: np.random.Generator | None = None
    ) -> Inputs | None:
        """Prepare and collate raw items that are the rows of an array; None: they are prepared one by one.

        Args:
            slots: the place of each in the batch of all processes, whose rngs are equal.
        """
        return None

    def adapt(self, items: Iterable[Any]) -> None:
        """Learn before training what preparation needs (a vocabulary, a mean) from raw items of the sources."""

    def tally(self, inputs: Inputs) -> Mapping[str, int]:
        """Count what the user should know of a batch, e.g. ``{"truncated": 3}``."""
        return {}


class TokenEncoder(Encoder):
    """An Encoder whose features come from tokens, so that they can be masked, dropped or shuffled on the way."""

    @abstractmethod
    def embed(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Return tokens [B, T, F] with their positions added, and which of them are real [B, T] (bool)."""

    @abstractmethod
    def contextualise(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Let the real tokens see each other: [B, T, F], [B, T] -> [B, T, F]."""

    def pool(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return the mean of the real tokens, [B, F]."""
        return mean_token(tokens, mask)

    @property
    def token_width(self) -> int:
        return self.width

    def token_states(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        tokens, mask = self.embed(inputs)
        # On a CPU the flash kernel takes twice as long as plain products where there are few tokens.
        short = tokens.device.type == "cpu" and tokens.shape[1] <= SHORT
        with sdpa_kernel(SDPBackend.MATH) if short else nullcontext():
            return self.contextualise(tokens, mask), mask

    def forward(self, inputs: Inputs) -> Tensor:
        return self.pool(*self.token_states(inputs))


class Alignment(NamedTuple):
    """What an Objective says of a batch.

    Attributes:
        loss: scalar.
        agreement: [B] in [0, 1], how far the model believes that each sample belongs together. Detached.
    """

    loss: Tensor
    agreement: Tensor


class Objective(nn.Module, ABC):
    """Tells how well the views of a batch line up. Owns temperatures and biases, one set per pair of modalities.

    Attributes:
        trusts: whether ``weight`` should hold the running agreement of each sample (see trust.py).
        wants_groups: whether samples of one group are to meet in a batch; else they are kept apart where that can be.
        taught_by: names of the items that are a teacher's embeddings; no other objective can have such.
    """

    trusts: bool = False
    wants_groups: bool = False
    taught_by: Collection[str] = ()

    @abstractmethod
    def forward(self, views: Mapping[str, Tensor], weight: Tensor, group: Tensor) -> Alignment:
        """Compare unit vectors, modality -> [B, D]; weight [B]; group [B] (int64, equal means same group)."""

    def terms(self, names: Collection[str]) -> int:
        """Return of how many losses that of a batch with these items is the mean; 0: it teaches nothing.

        Training plans no batches that teach nothing, and more of those that are the mean of more.
        """
        return int(len(names) >= 2)

    def loss_at_chance(self, batch: int) -> float | None:
        """Return the loss of views that say nothing of each other, if it is known: training warns of it."""
        return None
