"""Where networks compute: seeds, settings of torch, devices."""

from __future__ import annotations

import torch

from skal.models.devices import torch_seed


def test_torch_seed_leaves_the_callers_state_as_it_was() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with torch_seed(5):
        inside = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with torch_seed(5):
        assert torch.equal(torch.rand(3), inside)


def test_torch_seed_is_undone_after_an_error() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    try:
        with torch_seed(5):
            torch.rand(3)
            raise KeyError
    except KeyError:
        pass
    assert torch.equal(torch.rand(3), expected)
