"""Run frozen backbones on CPUs in OpenVINO, several times as fast as in torch."""

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
from ..datasets.base import Images
from .network import ImageModule

WORTH = 10_000_000
"""Pixels of all images from which on the engine saves more time than building it takes."""
PIXELS_AT_ONCE = 60_000
"""Pixels of a thread's batch; measured to be fastest."""
LOTS_A_THREAD = 4
N_CHECKED, PATCHES = 8, 14
SHARE = {False: 1e-3, True: 4.5e-2}
"""Tolerated relative difference from torch's float32 features, in float32 and in bfloat16: 1e-3 is
the rounding error of many layers, 4.5e-2 a cosine of 0.999."""

_log = logging.getLogger("skal")


class Engine:
    """A backbone compiled for one image shape, which falls back to torch for other inputs.

    It maps the backbone's input, float32 (n, channels, height, width), to features (n, n_features).
    Each thread processes its own images.
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
    """Run a frozen backbone in an engine if the images (or some rows) have enough pixels.

    This requires a module on a CPU and OpenVINO, which must support the backbone and agree with
    torch on made-up images: on those, so that the engine and its precision are the same for all
    images and in all processes. With fewer pixels an existing engine is switched off, so that
    results do not depend on earlier calls.

    Returns
    -------
    int
        The least batch size to use, 0 without an engine.
    """
    n_images = len(X) if rows is None else len(rows)
    if module.mean.device.type != "cpu" or not n_images:
        return 0
    backbone: Any = module.network.backbone
    existing = backbone._compiled_call_impl
    pixels = module.input_size**2 if module.input_size else math.prod(X.shape[2:])
    is_worth_it = n_images * pixels >= worth
    if isinstance(existing, Engine):
        existing.is_on = is_worth_it
        return existing.batch_size if is_worth_it else 0
    if existing is not None or not is_worth_it:
        return 0
    with torch.inference_mode():
        inputs = module.prepare(torch.from_numpy(_made_up(X.shape[1:])))
        engine = _like_torch(backbone, inputs, module.bf16)
    if engine is None:
        return 0
    # where torch keeps a module's compiled version, which is neither copied nor pickled
    backbone._compiled_call_impl = engine
    return engine.batch_size


def _made_up(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return `N_CHECKED` fixed images of a shape, of coloured patches."""
    channels, height, width = shape
    colours = np.random.default_rng(0).integers(
        0, 256, (N_CHECKED, channels, PATCHES, PATCHES), dtype=np.uint8
    )
    rows, columns = (np.arange(size) * PATCHES // size for size in (height, width))
    images: NDArray[np.uint8] = colours[:, :, rows[:, None], columns]
    return images


def _like_torch(backbone: nn.Module, inputs: Tensor, bf16: bool) -> Engine | None:
    """Return an engine that agrees with torch's float32, in bfloat16 if that is accurate enough."""
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
            _log.debug("OpenVINO does not support the backbone: %s", error)
            return None
        difference = float((found - expected).norm() / expected.norm())
        if found.shape == expected.shape and difference <= SHARE[coarse]:
            return engine
        _log.debug("OpenVINO's features differ by %.1e of their norm", difference)
    return None


def _lot_of(shape: torch.Size) -> int:
    """Return the size of a thread's batch for images of a shape."""
    n_images: int = 2 ** round(math.log2(PIXELS_AT_ONCE / (shape[1] * shape[2])))
    return max(1, n_images)


def _converted(backbone: nn.Module, image: Tensor) -> Any:
    """Convert a backbone to OpenVINO, for thread batches of images of one shape, channels last.

    Calls the front end directly, since `openvino.convert_model` takes seconds more and sends usage
    statistics.
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
    """Compile a model to run one batch per thread."""
    from openvino import Core

    options = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": n_threads,
        "NUM_STREAMS": n_threads,
    }
    return Core().compile_model(model, "CPU", options)
