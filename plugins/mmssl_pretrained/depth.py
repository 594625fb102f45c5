"""The layers of a tower in the order of depth, found by watching it and not by their names."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from multimodal_ssl import Inputs

SHARE = 0.9  # of the parameters of all blocks: one of them has less


class Depth(NamedTuple):
    """Which parts of a tower are its blocks, in their order, and what follows each of them before the next.

    Attributes:
        blocks: names of modules, such as the blocks of a transformer or the stages of a ResNet.
        behind: for each block, names of modules, and of parameters that belong to none of them, that follow it.
    """

    blocks: tuple[str, ...] = ()
    behind: tuple[tuple[str, ...], ...] = ()

    def layers(self, tower: nn.Module) -> tuple[nn.Module, ...]:
        """Return the blocks, each joined with what follows it; see ``Encoder.by_depth``."""
        modules = dict(tower.named_modules())
        return tuple(
            nn.ModuleList(
                [
                    modules[block],
                    *(modules[name] for name in names if name in modules),
                    nn.ParameterList(tower.get_parameter(name) for name in names if name not in modules),
                ]
            )
            if names
            else modules[block]
            for block, names in zip(self.blocks, self.behind, strict=True)
        )


def find_depth(tower: nn.Module, forward: Callable[[Inputs], Tensor], inputs: Inputs) -> Depth:
    """Return the depth of a tower with which `forward` gives features of inputs, by two runs.

    Give an encoder's own method, not the encoder: what hooks on it wait for is no such run.

    The blocks are those siblings of one type that run once each and hold the most parameters, in the order in which
    they run: a layer that runs again and again, as ALBERT's, is at no depth.
    With all their outputs cut off, gradients of what a block takes reach only what stands between it and the one
    before, and those of the features what follows the last. Low-rank updates change nothing.
    """
    with _without_updates(tower):
        return _find_depth(tower, forward, inputs)


def _find_depth(tower: nn.Module, forward: Callable[[Inputs], Tensor], inputs: Inputs) -> Depth:
    device = next(tower.parameters()).device
    inputs = inputs.to(device) if isinstance(inputs, Tensor) else {name: one.to(device) for name, one in inputs.items()}
    frozen = [one for one in tower.parameters() if not one.requires_grad]
    modes = {module: module.training for module in tower.modules()}
    try:
        tower.eval().requires_grad_(True)
        with torch.no_grad():
            _, ran = _watch(tower, lambda: forward(inputs), [name for name, _ in tower.named_modules() if name], _keep)
        with torch.enable_grad():
            siblings = _siblings(tower, {name for name, times in ran.items() if times == 1})
            taken: dict[str, Tensor] = {}
            with _noting(tower, siblings, taken):
                features, detached = _watch(tower, lambda: forward(inputs), siblings, _detach)
            blocks = tuple(detached)
            inside = {id(one) for name in blocks for one in tower.get_submodule(name).parameters()}
            others = [one for one in tower.parameters() if id(one) not in inside]
            reached = [_reached(total, others) for total in (*(taken.get(name) for name in blocks), features.sum())]
    finally:
        for one in frozen:
            one.requires_grad_(False)
        for module, mode in modes.items():
            module.training = mode
    if not blocks:
        return Depth()
    below, *between, after = reached
    found: list[tuple[str, ...]] = []
    for block, ids in zip(blocks, between, strict=False):
        # What several blocks take, as positions, lies below them all; so does a branch that ran before the block.
        below |= {id(one) for name in _before(ran, block) for one in tower.get_submodule(name).parameters()}
        found.append(tuple(_names(tower, ids - below - after, "")))
        below |= ids
    return Depth(blocks, (*found, tuple(_names(tower, after, ""))))


def _before(ran: Counter[str], block: str) -> Iterator[str]:
    """Yield the modules that had run when a block had, but for it and those that it is in."""
    for name in ran:
        if name == block:
            return
        yield name


@contextmanager
def _noting(tower: nn.Module, names: Iterable[str], taken: dict[str, Tensor]) -> Iterator[None]:
    """Note for a while the sum of what each of these modules takes, where it comes of weights."""

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def before(_: nn.Module, args: Any, kwargs: Any) -> None:
            sums = [one.sum() for one in _tensors((args, kwargs)) if one.requires_grad]
            if sums:
                taken[name] = torch.stack(sums).sum()

        return before

    handles = [tower.get_submodule(name).register_forward_pre_hook(hook(name), with_kwargs=True) for name in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in tuples, lists and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _tensors(one)


def _reached(total: Tensor | None, weights: Sequence[nn.Parameter]) -> set[int]:
    """Return the ids of those weights that a sum depends on."""
    if total is None or not total.requires_grad or not weights:
        return set()
    gradients = torch.autograd.grad(total, weights, allow_unused=True, retain_graph=True)
    return {id(one) for one, gradient in zip(weights, gradients, strict=True) if gradient is not None}


@contextmanager
def _without_updates(tower: nn.Module) -> Iterator[None]:
    """Take low-rank updates out of a tower for a while.

    In an attention of torch they put other weights in the place of its own each time it runs: gradients reach neither.
    """
    if "peft" not in sys.modules:  # nothing has updates; to import it takes seconds
        yield
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    places = [
        (tower.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], layer)
        for name, layer in tower.named_modules(remove_duplicate=False)
        if name and isinstance(layer, BaseTunerLayer)
    ]
    try:
        for parent, child, layer in places:
            setattr(parent, child, layer.get_base_layer())
        yield
    finally:
        for parent, child, layer in places:
            setattr(parent, child, layer)


def _watch(
    tower: nn.Module, run: Callable[[], Tensor], names: Iterable[str], change: Callable[[Any], Any]
) -> tuple[Tensor, Counter[str]]:
    """Return what `run` gives while the outputs of these modules are changed, and how often each ran, in order."""
    ran: Counter[str] = Counter()

    def hook(name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def after(_: nn.Module, __: Any, output: Any) -> Any:
            ran[name] += 1
            return change(output)

        return after

    handles = [tower.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    try:
        return run(), ran
    finally:
        for handle in handles:
            handle.remove()


def _siblings(tower: nn.Module, ran: set[str]) -> list[str]:
    """Return the names of those children of one module, and of one type, that together hold the most parameters.

    Where one of them holds nearly all, as beside a stem, they are no blocks.
    """
    best: list[str] = []
    most = 0
    for parent, module in tower.named_modules():
        kinds: dict[type, list[str]] = {}
        for child, one in module.named_children():
            name = f"{parent}.{child}" if parent else child
            if name in ran:
                kinds.setdefault(type(one), []).append(name)
        for names in kinds.values():
            sizes = [sum(one.numel() for one in tower.get_submodule(name).parameters()) for name in names]
            if sum(sizes) > most and max(sizes) < SHARE * sum(sizes):
                best, most = names, sum(sizes)
    return best


def _keep(output: Any) -> Any:
    return output


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
