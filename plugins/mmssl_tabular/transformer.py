"""A transformer over the columns of a row, to train from scratch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mmssl_tabular.modality import Row
from mmssl_tabular.schema import Schema
from multimodal_ssl import InputError, Inputs, TokenEncoder
from multimodal_ssl.layers import Transformer


class TabularTransformer(TokenEncoder):
    """FT-Transformer (Gorishniy et al. 2021) with mean pooling; numbers are encoded piecewise (Gorishniy et al. 2022).

    One token a column: of its bins, or of its category, plus its bias. A missing cell is a token of its own for each
    column, an unknown category too. The schema is learnt by ``adapt`` and is part of the state, as the bytes of its
    JSON; there is room for more columns and categories than it may have.

    Args:
        categories: columns of numbers that are none.
        columns: so many at most.
        vocabulary: so many categories at most, of all columns together.
        bins: of the encoding of a number.
        drop: share of columns left out in training (as the corruption of SCARF, Bahri et al. 2022).
    """

    modality = "tabular"
    adapt_to = 20_000  # every different number is kept meanwhile

    def __init__(
        self,
        *,
        categories: Sequence[str],
        columns: int,
        vocabulary: int,
        bins: int,
        width: int,
        depth: int,
        heads: int,
        drop: float,
    ) -> None:
        super().__init__()
        if width % heads:
            raise InputError(f"tabular-transformer: width {width} must be a multiple of heads {heads}")
        self.width, self.drop = width, drop
        self.categories, self.columns, self.vocabulary = categories, columns, vocabulary
        self.schema = Schema(bins=bins)
        std = width**-0.5
        self.numbers = nn.Parameter(torch.randn(columns, bins, width) * std)
        self.codes = nn.Embedding(1 + 2 * columns + vocabulary, width, padding_idx=0)  # see Encoded
        nn.init.normal_(self.codes.weight[1:], std=std)
        self.bias = nn.Parameter(torch.randn(columns, width) * std)
        self.blocks = Transformer(width, depth=depth, heads=heads)

    def by_depth(self) -> Sequence[nn.Module]:
        return self.blocks.by_depth()

    def adapt(self, items: Iterable[Row]) -> None:
        """Learn which columns there are, and what they hold."""
        self.schema.learn(items, categories=self.categories, columns=self.columns, vocabulary=self.vocabulary)

    def prepare(self, item: Row, rng: np.random.Generator | None = None) -> Inputs:
        """Return ``numbers`` [C, bins] and ``codes`` [C] of its C columns, see Encoded."""
        numbers, codes = self.schema.encode(item)
        if rng is not None and self.drop:
            gone = rng.random(len(codes)) < self.drop
            known = np.flatnonzero((codes == 0) | (codes > 2 * self.columns))
            known = known if len(known) else np.arange(len(codes))
            gone[known[rng.integers(len(known))]] = False  # else nothing might be left of a sparse row
            missing = 1 + 2 * np.arange(len(codes))
            unknown = missing + (
                (codes > 2 * self.columns) & (rng.random(len(codes)) < 0.5)
            )  # else none would be learnt
            codes, numbers = np.where(gone, unknown, codes), np.where(gone[:, np.newaxis], 0, numbers)
        return {"numbers": torch.from_numpy(numbers), "codes": torch.from_numpy(codes)}

    def embed(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        codes = inputs["codes"]
        count = codes.shape[1]
        tokens = torch.einsum("btq,tqf->btf", inputs["numbers"], self.numbers[:count])
        tokens = tokens + self.codes(codes) + self.bias[:count]
        return tokens, torch.ones_like(codes, dtype=torch.bool)

    def contextualise(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.blocks(tokens, mask)

    def get_extra_state(self) -> Tensor:
        """Return the JSON of the schema as bytes [n] (uint8)."""
        return torch.tensor(list(self.schema.dump().encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Take the schema that `get_extra_state` gave."""
        self.schema.restore(bytes(state.tolist()).decode())
