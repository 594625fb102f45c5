"""What the transformers of all modalities have to keep."""

from __future__ import annotations

import torch
from torch import nn

from multimodal_ssl import TokenEncoder
from multimodal_ssl.layers import Transformer


def check_padding_mask(one: TokenEncoder, layers: Transformer, width: int, generator: torch.Generator) -> None:
    """Compare `contextualise` with its layers under torch's own padding mask: values, and gradients in training."""
    for parameter in one.parameters():
        nn.init.normal_(parameter, std=0.1, generator=generator)
    tokens = torch.randn(3, 6, width, generator=generator).requires_grad_()
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 0, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0]], dtype=torch.bool)
    with torch.set_grad_enabled(one.training):
        found = one.contextualise(tokens, mask)
        expected = layers.layers(tokens, src_key_padding_mask=~mask)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    if one.training:
        wanted = [tokens, *layers.parameters()]
        gradients = [torch.autograd.grad(out[mask].square().sum(), wanted) for out in (found, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)
