"""What processes tell each other, so that every objective sees the whole batch and one process and many agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_gather


def gather(views: Mapping[str, Tensor], weight: Tensor, group: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Join views [b, D], weight [b] and group [b] of all processes, in the order of their ranks.

    The gradient flows back to every process. As each of them computes the same loss, a view receives `world` times its
    gradient, and the mean over processes that DistributedDataParallel takes makes it the gradient of one process.
    Processes may hold batches of different sizes, since samples may be unreadable.
    """
    if not _several():
        return dict(views), weight, group
    sizes = [torch.zeros((), dtype=torch.int64, device=weight.device) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, torch.tensor(len(weight), device=weight.device))
    counts = [int(size) for size in sizes]

    def join(rows: Tensor) -> Tensor:
        padded = rows.new_zeros((max(counts), *rows.shape[1:]))
        padded = torch.cat([rows, padded[len(rows) :]])
        everywhere = all_gather(padded)  # type: ignore[no-untyped-call]  # torch gives it no types
        return torch.cat([one[:count] for one, count in zip(everywhere, counts, strict=True)])

    return {name: join(view) for name, view in views.items()}, join(weight), join(group)


def share(keys: Sequence[str], unreadable: Sequence[tuple[str, str]]) -> tuple[list[list[str]], list[tuple[str, str]]]:
    """Return the keys of each process, and the unreadable samples of all."""
    everywhere = [(list(keys), list(unreadable))]
    if _several():
        everywhere *= dist.get_world_size()
        dist.all_gather_object(everywhere, everywhere[0])
    return [keys for keys, _ in everywhere], [one for _, lost in everywhere for one in lost]


def add_counts(counts: Mapping[str, int]) -> Counter[str]:
    """Return the sum of the counts of all processes."""
    everywhere: list[Mapping[str, int]] = [dict(counts)]
    if _several():
        everywhere *= dist.get_world_size()
        dist.all_gather_object(everywhere, dict(counts))
    return sum(map(Counter, everywhere), Counter())


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
