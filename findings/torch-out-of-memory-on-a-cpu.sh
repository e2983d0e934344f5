#!/usr/bin/env bash
# torch 2.14.1: where a CPU has no memory left, neither torch.OutOfMemoryError nor MemoryError is raised.
#
# It is a plain RuntimeError, so that `except torch.OutOfMemoryError: batch_size //= 2`, which works on a GPU, lets a run
# on a CPU die. Its text is all that tells it from others. Output:
#
#     RuntimeError, no OutOfMemoryError, no MemoryError: DefaultCPUAllocator
set -euo pipefail
"$(dirname "$0")/check" torch==2.14.1 numpy==2.4.6 <<'PYTHON'
import torch

try:
    torch.empty(2**50, dtype=torch.uint8)
except RuntimeError as error:
    assert type(error) is RuntimeError, type(error)
    assert not isinstance(error, (torch.OutOfMemoryError, MemoryError))
    assert "DefaultCPUAllocator" in str(error), error
    print("RuntimeError, no OutOfMemoryError, no MemoryError: DefaultCPUAllocator")
else:
    raise SystemExit("a petabyte was there")
PYTHON
