"""Gradients of single images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad, vmap

from .module import ImageModule, uncompiled

NUMBERS_AT_ONCE = 2**25  # gradients held at a time, 128 MiB of float32


def expected_gradient_length(module: ImageModule, images: Tensor, n_classes: int) -> Tensor:
    r"""Return the length of the loss's gradient, expected over the predicted labels.

    :math:`\sum_y p_y |\nabla_\theta L(x, y)|` with the cross entropy L and all trainable weights
    :math:`\theta`, float32 of shape (n,). The module is in evaluation mode, and the images (uint8)
    are on its device.
    """
    network = module.network
    weights = {name: p.detach() for name, p in network.named_parameters() if p.requires_grad}
    rest = {name: p.detach() for name, p in network.named_parameters() if not p.requires_grad}
    rest.update(network.named_buffers())
    temperature = module.temperature

    def loss(weights: dict[str, Tensor], pixels: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        logits = functional_call(network, {**weights, **rest}, (pixels[None],))[0] / temperature
        return F.cross_entropy(logits, label[None]), logits[0].softmax(-1)[label]

    per_image = vmap(grad(loss, has_aux=True), in_dims=(None, 0, None))
    n_weights = sum(p.numel() for p in weights.values())
    at_once = max(1, NUMBERS_AT_ONCE // max(n_weights, 1))
    expected = []
    with uncompiled(network):
        for part in torch.split(module.prepare(images), at_once):
            total = torch.zeros(len(part), device=images.device)
            for label in range(n_classes):
                found, proba = per_image(weights, part, torch.tensor(label, device=images.device))
                squared = sum(g.flatten(1).square().sum(dim=1) for g in found.values())
                total += proba * torch.as_tensor(squared).sqrt()
            expected.append(total)
    return torch.cat(expected)
