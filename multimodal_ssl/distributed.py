"""Views of all processes, so that every objective sees the whole batch and one process and many agree."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_gather


def gather(
    views: Mapping[str, Tensor], weight: Tensor, group: Tensor
) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor]:
    """Join views [b, D], weight [b] and group [b] of all processes, and tell which rows [B] are this process's own.

    The gradient flows back to every process. As each of them computes the same loss, a view receives `world` times its
    gradient, and the mean over processes that DistributedDataParallel takes makes it the gradient of one process.
    Processes may hold batches of different sizes, since samples may be unreadable.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return dict(views), weight, group, torch.ones_like(weight, dtype=torch.bool)
    sizes = [torch.zeros((), dtype=torch.int64, device=weight.device) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, torch.tensor(len(weight), device=weight.device))
    counts = [int(size) for size in sizes]

    def join(rows: Tensor) -> Tensor:
        padded = rows.new_zeros((max(counts), *rows.shape[1:]))
        padded = torch.cat([rows, padded[len(rows) :]])
        everywhere = all_gather(padded)  # type: ignore[no-untyped-call]  # torch gives it no types
        return torch.cat([one[:count] for one, count in zip(everywhere, counts, strict=True)])

    own = torch.zeros(sum(counts), dtype=torch.bool, device=weight.device)
    first = sum(counts[: dist.get_rank()])
    own[first : first + counts[dist.get_rank()]] = True
    return {name: join(view) for name, view in views.items()}, join(weight), join(group), own
