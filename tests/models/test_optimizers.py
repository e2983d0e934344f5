"""torch's optimisers without what only `torch.compile` needs."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from skal.models import optimizers
from skal.models.settings import OPTIMIZERS


def trained(kind: Any, **options: Any) -> tuple[list[torch.Tensor], Any]:
    torch.manual_seed(0)
    net = torch.nn.Linear(8, 3)
    optimizer = kind(net.parameters(), **options)
    for _ in range(5):
        optimizer.zero_grad()
        net(torch.randn(16, 8)).square().mean().backward()
        optimizer.step()
    return [weights.detach() for weights in net.parameters()], optimizer


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("fused", [True, False])
def test_they_do_what_those_of_torch_do(name: str, fused: bool) -> None:
    kind, options = OPTIMIZERS[name]
    options = {"lr": 0.01, **options, "fused": fused}
    ours, optimizer = trained(getattr(optimizers, kind), **options)
    theirs, other = trained(getattr(torch.optim, kind), **options)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    other.load_state_dict(optimizer.state_dict())
    optimizer.load_state_dict(other.state_dict())


def test_a_fit_imports_nothing_of_the_compiler_and_nothing_that_draws() -> None:
    code = (
        "import sys, numpy as np, skal, skal.runs.run\n"
        "clf = skal.ImageClassifier('lenet', classes=[0, 1], steps=2, random_state=0)\n"
        "clf.fit(np.zeros((4, 1, 8, 8), np.uint8), [0, 1, 0, 1])\n"
        "assert not {'torch._dynamo', 'matplotlib'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
