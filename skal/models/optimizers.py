"""torch's optimisers, without what only `torch.compile` needs.

Around each of their methods torch has a wrapper that imports torch._dynamo, which takes as long as
to import torch, and that costs time at each step.
"""

from __future__ import annotations

import inspect

import torch
from torch import optim


class _Plain(optim.Optimizer):
    add_param_group = inspect.unwrap(optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(optim.Optimizer.zero_grad)
    state_dict = inspect.unwrap(optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(optim.Optimizer.load_state_dict)


class AdamW(_Plain, optim.AdamW):
    """`torch.optim.AdamW`."""

    step = torch.no_grad()(inspect.unwrap(optim.AdamW.step))


class SGD(_Plain, optim.SGD):
    """`torch.optim.SGD`."""

    step = torch.no_grad()(inspect.unwrap(optim.SGD.step))
