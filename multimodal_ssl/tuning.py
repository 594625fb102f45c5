"""How far an encoder is trained: not at all, from a depth on, through low-rank updates; and how fast each part."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from multimodal_ssl.encoder_config import EncoderConfig, LoraConfig
from multimodal_ssl.errors import InputError
from multimodal_ssl.types import Encoder


def tune(name: str, encoder: Encoder, config: EncoderConfig) -> None:
    """Let of an encoder learn in place what its config says; raise InputError where it has no such part.

    Low-rank updates are not its affair: they change what the encoder is made of; see `add_lora`.
    """
    counts = config.unfreeze or config.layer_decay < 1
    blocks = encoder.by_depth() if counts else ()  # some look for their blocks by running
    if counts and not blocks:
        option = "unfreeze" if config.unfreeze else "layer_decay"
        raise InputError(f"encoders.{name}: {config.name!r} has no blocks, which {option} counts by: leave it out")
    if config.frozen:
        encoder.requires_grad_(False)
    elif config.unfreeze:
        if config.unfreeze > len(blocks):
            raise InputError(
                f"encoders.{name}: unfreeze={config.unfreeze}, but {config.name!r} has {len(blocks)} blocks"
            )
        unused = [one for one in encoder.parameters() if not one.requires_grad]
        encoder.requires_grad_(False)
        for block in blocks[-config.unfreeze :]:
            block.requires_grad_(True)
        for parameter in unused:
            parameter.requires_grad_(False)


def add_lora(name: str, encoder: Encoder, config: LoraConfig) -> None:
    """Put low-rank updates beside the linear layers of an encoder and freeze all else; first they change nothing.

    Raises InputError where there is none to update; the first forward does, where the encoder goes past the updates.
    """
    from peft import LoraConfig as Updates
    from peft import inject_adapter_in_model
    from peft.tuners.lora import LoraLayer as Layer

    kinds = (nn.Linear, nn.MultiheadAttention)
    attentions = {one for one, module in encoder.named_modules() if isinstance(module, nn.MultiheadAttention)}
    layers = [
        one
        for one, module in encoder.named_modules()
        # The projections within an attention of torch are reached through it, and peft knows only those whose queries,
        # keys and values are of one width; what is frozen already is not used.
        if isinstance(module, kinds)
        and getattr(module, "_qkv_same_embed_dim", True)
        and any(weight.requires_grad for weight in module.parameters())
        and not any(one.startswith(f"{parent}.") for parent in attentions)
    ]
    targets = [one for one in layers if config.targets is None or re.search(config.targets, one)]
    if not layers:
        raise InputError(f"encoders.{name}: lora needs linear layers that learn, and it has none: use unfreeze or lr")
    if not targets:
        some = ", ".join(layers[:5])
        raise InputError(f"encoders.{name}: lora.targets={config.targets!r} is part of no linear layer's name ({some})")
    if (config.dora or config.dropout) and not attentions.isdisjoint(targets):
        raise InputError(
            f"encoders.{name}: lora.dora and lora.dropout do nothing in attentions of torch, such as "
            f"{sorted(attentions.intersection(targets))[0]}: leave them out, or name other layers in lora.targets"
        )
    encoder.requires_grad_(False)
    inject_adapter_in_model(
        Updates(
            r=config.rank,
            lora_alpha=config.alpha,
            lora_dropout=config.dropout,
            use_dora=config.dora,
            target_modules="|".join(map(re.escape, targets)),  # of a list it takes suffixes
        ),
        encoder,
    )
    for module in encoder.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0  # torch's fused path in eval mode reads weights past the updates
        elif isinstance(module, Layer) and isinstance(module.get_base_layer(), nn.MultiheadAttention):
            keeper = _Keeper()
            module.register_forward_pre_hook(keeper.keep)
            module.register_forward_hook(keeper.restore)
    _Reached(name, encoder, {one: encoder.get_submodule(one) for one in targets})


class _Reached:
    """Refuses updates that nothing reaches, since the encoder reads the weights of their layers itself.

    What the first forward never runs is told by the last part of its name: single layers may be left out at random.
    """

    def __init__(self, name: str, encoder: Encoder, layers: Mapping[str, nn.Module]) -> None:
        self.name, self.left = name, {one.rpartition(".")[2] for one in layers}
        self.handles = [
            layer.register_forward_hook(partial(self.note, one.rpartition(".")[2])) for one, layer in layers.items()
        ]
        self.handles.append(encoder.register_forward_hook(self.check))

    def note(self, kind: str, *_: object) -> None:
        """Note that a layer of a kind was run."""
        self.left.discard(kind)

    def check(self, *_: object) -> None:
        """Look at the end of the encoder's first forward, once."""
        for handle in self.handles:
            handle.remove()
        if self.left:
            raise InputError(
                f"encoders.{self.name}: lora changes nothing in {', '.join(sorted(self.left))}, whose weights the "
                "encoder reads itself: name other layers in lora.targets, or use unfreeze"
            )


class _Keeper:
    """Keeps an attention's frozen weights to the bit: peft adds the update to them for each call, and takes it away.

    What is left of that by rounding would change them a little at each step.
    """

    def __init__(self) -> None:
        self.kept: dict[str, Tensor] = {}

    def keep(self, attention: nn.Module, *_: object) -> None:
        """Remember them."""
        self.kept = {name: one.clone() for name, one in attention.state_dict().items() if "lora_" not in name}

    def restore(self, attention: nn.Module, *_: object) -> None:
        """Put them back."""
        with torch.no_grad():
            for name, one in attention.state_dict().items():
                if name in self.kept:
                    one.copy_(self.kept[name])
        self.kept = {}


def is_frozen(encoder: nn.Module) -> bool:
    """Tell whether nothing of an encoder learns."""
    return not any(one.requires_grad for one in encoder.parameters())


def rest(module: nn.Module) -> None:
    """Put into eval mode all within a module that has weights of which none learns: no dropout, no batch statistics."""
    weights = list(module.parameters())
    if weights and not any(one.requires_grad for one in weights):
        module.eval()
        return
    for child in module.children():
        rest(child)


def rates(encoders: Mapping[str, Encoder], configs: Mapping[str, EncoderConfig]) -> dict[int, float]:
    """Return by the id of each parameter of the encoders its learning rate, relative to that of all.

    With layer_decay the last block learns at the encoder's rate, each before it and what lies below the first at the
    share of the one after it (BEiT, Bao et al. 2022, appendix H; Howard and Ruder 2018, section 3.2).
    """
    found: dict[int, float] = {}
    for name, encoder in encoders.items():
        config = configs[name]
        blocks = encoder.by_depth() if config.layer_decay < 1 else ()
        found |= {id(one): config.lr * config.layer_decay ** len(blocks) for one in encoder.parameters()}
        for depth, block in enumerate(blocks):
            factor = config.lr * config.layer_decay ** (len(blocks) - 1 - depth)
            found |= {id(one): factor for one in block.parameters()}
    return found


def parameter_groups(model: nn.Module, weight_decay: float, rates: Mapping[int, float]) -> Iterator[dict[str, Any]]:
    """Yield matrices with weight decay, biases, norms and temperatures without, each with its `rate`."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            decay = weight_decay if parameter.ndim >= 2 else 0.0
            groups.setdefault((rates.get(id(parameter), 1.0), decay), []).append(parameter)
    for (rate, decay), parameters in groups.items():
        yield {"params": parameters, "weight_decay": decay, "rate": rate}
