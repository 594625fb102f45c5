"""The layers of a tower in the order of depth, found by watching it and not by their names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

SHARE = 0.9  # of the parameters of all blocks: one of them has less


class Depth(NamedTuple):
    """Which parts of a tower are its blocks, in their order, and which come after the last.

    Attributes:
        blocks: names of modules, such as the blocks of a transformer or the stages of a ResNet.
        after: names of modules, and of parameters that belong to none of them, that follow the last block.
    """

    blocks: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    def layers(self, tower: nn.Module) -> tuple[nn.Module, ...]:
        """Return the blocks, the last one joined with what follows it; see ``Encoder.by_depth``."""
        if not self.blocks:
            return ()
        *lower, last = (tower.get_submodule(name) for name in self.blocks)
        modules = dict(tower.named_modules())
        behind: list[nn.Module] = [modules[name] for name in self.after if name in modules]
        alone = [tower.get_parameter(name) for name in self.after if name not in modules]
        return *lower, nn.ModuleList([last, *behind, nn.ParameterList(alone)])


def find_depth(tower: nn.Module, run: Callable[[], Tensor]) -> Depth:
    """Return the depth of a tower of which `run` gives features.

    The blocks are those siblings of one type that hold the most parameters. Their order is the one in which they run.
    With all their outputs cut off, gradients still reach only what follows the last.
    """
    siblings = _siblings(tower)
    ran: list[str] = []

    def cut(name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(_: nn.Module, __: Any, output: Any) -> Any:
            ran.append(name)
            return _detach(output)

        return hook

    handles = [tower.get_submodule(name).register_forward_hook(cut(name)) for name in siblings]
    training = tower.training
    try:
        tower.eval()
        with torch.enable_grad():
            features = run()
    finally:
        tower.train(training)
        for handle in handles:
            handle.remove()
    blocks = tuple(dict.fromkeys(ran))
    inside = {id(one) for name in blocks for one in tower.get_submodule(name).parameters()}
    others = [one for one in tower.parameters() if one.requires_grad and id(one) not in inside]
    if len(blocks) < 2 or not features.requires_grad or not others:
        return Depth(blocks if len(blocks) > 1 else ())
    gradients = torch.autograd.grad(features.sum(), others, allow_unused=True)
    after = {id(one) for one, gradient in zip(others, gradients, strict=True) if gradient is not None}
    return Depth(blocks, tuple(_names(tower, after, "")))


def _siblings(tower: nn.Module) -> list[str]:
    """Return the names of those children of one module, and of one type, that together hold the most parameters.

    Where one of them holds nearly all, as beside a stem, they are no blocks.
    """
    best: list[str] = []
    most = 0
    for parent, module in tower.named_modules():
        kinds: dict[type, list[str]] = {}
        for name, child in module.named_children():
            # A list of modules is never run itself.
            if not isinstance(child, nn.ModuleList) and next(child.parameters(), None) is not None:
                kinds.setdefault(type(child), []).append(f"{parent}.{name}" if parent else name)
        for names in kinds.values():
            sizes = [sum(one.numel() for one in tower.get_submodule(name).parameters()) for name in names]
            if sum(sizes) > most and max(sizes) < SHARE * sum(sizes):
                best, most = names, sum(sizes)
    return best


def _detach(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.detach()
    return type(output)(_detach(one) for one in output) if type(output) in (tuple, list) else output


def _names(module: nn.Module, wanted: set[int], prefix: str) -> Iterator[str]:
    """Yield the names of the largest modules of which all parameters are wanted, and of wanted parameters beside."""
    for name, child in module.named_children():
        ids = {id(one) for one in child.parameters()}
        if ids and ids <= wanted:
            yield f"{prefix}{name}"
        elif ids & wanted:
            yield from _names(child, wanted, f"{prefix}{name}.")
    for name, parameter in module.named_parameters(recurse=False):
        if id(parameter) in wanted:
            yield f"{prefix}{name}"
