"""torch's optimisers without the wrappers that only `torch.compile` needs.

torch wraps each of their methods. The wrappers import torch._dynamo, which takes as long as
importing torch, and cost time in each step.
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
