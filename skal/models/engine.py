"""A frozen backbone on a CPU in OpenVINO, which computes several times faster than torch there."""

from __future__ import annotations

import logging
import math
import warnings
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..core.errors import pass_on_memory
from ..core.memory import take_mapped
from ..datasets.base import Images
from .network import ImageModule

WORTH = 10_000_000
"""Pixels of all images from which on the engine saves more time than it takes to be made."""
PIXELS_AT_ONCE = 60_000
"""Of the images that a thread is given at once: what was measured to be fastest."""
LOTS_A_THREAD = 4
N_CHECKED = 8
SHARE = {False: 1e-3, True: 4.5e-2}
"""Of the length of float32 features that the engine's may differ by, in float32 and in bfloat16:
1e-3 is the rounding of many layers, 4.5e-2 a cosine of 0.999."""

_log = logging.getLogger("skal")


class Engine:
    """A backbone compiled for images of one shape; what it cannot do, the backbone does.

    Called with the backbone's input, float32 (n, channels, height, width), it returns its features,
    (n, n_features). Each thread computes images of its own.
    """

    def __init__(self, backbone: nn.Module, model: Any, shape: torch.Size, bf16: bool) -> None:
        self._backbone: Any = backbone
        self._shape = shape
        self.is_on = True
        self._lot = _lot_of(shape)
        n_threads: int = torch.get_num_threads()
        self.batch_size: int = LOTS_A_THREAD * n_threads * self._lot
        compiled = _compiled(model, n_threads, "bf16" if bf16 else "f32")
        self._idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(n_threads):
            self._idle.put(compiled.create_infer_request())
        self._threads = ThreadPoolExecutor(n_threads)

    def __call__(self, images: Tensor) -> Tensor:
        fits = images.device.type == "cpu" and images.shape[1:] == self._shape and len(images)
        if not self.is_on or not fits or torch.is_grad_enabled():
            features: Tensor = self._backbone._call_impl(images)
            return features
        lots = torch.split(images, self._lot)
        return torch.cat(list(self._threads.map(self._infer, lots)))

    def _infer(self, images: Tensor) -> Tensor:
        missing = self._lot - len(images)
        whole = torch.cat([images, images[:1].expand(missing, *self._shape)]) if missing else images
        pixels = whole.permute(0, 2, 3, 1).float().contiguous().numpy()
        request = self._idle.get()
        try:
            request.infer({0: pixels}, share_inputs=True)
            features = torch.from_numpy(request.get_output_tensor(0).data.copy())
        finally:
            self._idle.put(request)
        return features[: len(images)]


def speed_up(
    module: ImageModule, X: Images, rows: NDArray[np.int64] | None = None, worth: int = WORTH
) -> int:
    """Let a frozen backbone run in an engine, if the images (or some rows) have pixels enough.

    The engine is made where the module is on a CPU, OpenVINO is installed and takes the backbone,
    and it answers as torch does for the first images. For fewer images an engine that is there is
    switched off, so that what comes out does not depend on what was asked before.

    Returns
    -------
    int
        The batch size to use at least, 0 where there is no engine.
    """
    n_images = len(X) if rows is None else len(rows)
    if module.mean.device.type != "cpu" or not n_images:
        return 0
    first = np.arange(min(n_images, N_CHECKED)) if rows is None else rows[:N_CHECKED]
    backbone: Any = module.network.backbone
    there = backbone._compiled_call_impl
    with torch.inference_mode():
        inputs = module.prepare(torch.from_numpy(take_mapped(X, first)))
        is_worth_it = n_images * inputs[0, 0].numel() >= worth
        if isinstance(there, Engine):
            there.is_on = is_worth_it
            return there.batch_size if is_worth_it else 0
        if there is not None or not is_worth_it:
            return 0
        engine = _first_like_torch(backbone, inputs, module.bf16)
    if engine is None:
        return 0
    # where torch keeps what a module was compiled to: it is neither copied nor pickled
    backbone._compiled_call_impl = engine
    return engine.batch_size


def _first_like_torch(backbone: nn.Module, inputs: Tensor, bf16: bool) -> Engine | None:
    """Return an engine that answers as torch does in float32, in bfloat16 if that will do."""
    expected, model = backbone(inputs), None
    for coarse in (True, False) if bf16 else (False,):
        try:
            model = model or _converted(backbone, inputs[0])
            engine = Engine(backbone, model, inputs[0].shape, coarse)
            found = engine(inputs)
        except ImportError:
            return None
        except Exception as error:  # a converter may raise anything for a layer it does not know
            pass_on_memory(error)
            _log.debug("OpenVINO does not take the backbone: %s", error)
            return None
        difference = float((found - expected).norm() / expected.norm())
        if found.shape == expected.shape and difference <= SHARE[coarse]:
            return engine
        _log.debug("OpenVINO answers otherwise: %.1e of the features' length", difference)
    return None


def _lot_of(shape: torch.Size) -> int:
    """Return how many images of a shape a thread is given at once."""
    n_images: int = 2 ** round(math.log2(PIXELS_AT_ONCE / (shape[1] * shape[2])))
    return max(1, n_images)


def _converted(backbone: nn.Module, image: Tensor) -> Any:
    """Convert a backbone to OpenVINO's, for lots of images of one shape, channels last.

    The front end is called itself: `openvino.convert_model` takes seconds more, and sends
    statistics of its use.
    """
    from openvino import Layout
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
    from openvino.preprocess import PrePostProcessor

    example = image.expand(_lot_of(image.shape), *image.shape).clone()
    jit: Any = torch.jit
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch deprecates its tracer, which the front end reads
        traced = jit.freeze(jit.trace(backbone, example, check_trace=False))
        decoder = TorchScriptPythonDecoder(traced, example_input=example, skip_freeze=True)
        front_end = FrontEndManager().load_by_framework("pytorch")
        model = front_end.convert(front_end.load(decoder))
    model.reshape(list(example.shape))
    processor = PrePostProcessor(model)  # torch's channels last is the engine's NHWC
    processor.input().tensor().set_layout(Layout("NHWC"))
    processor.input().model().set_layout(Layout("NCHW"))
    return processor.build()


def _compiled(model: Any, n_threads: int, precision: str) -> Any:
    """Compile a model for lots of which each thread computes one."""
    from openvino import Core

    options = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": n_threads,
        "NUM_STREAMS": n_threads,
    }
    return Core().compile_model(model, "CPU", options)
