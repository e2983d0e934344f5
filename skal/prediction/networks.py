"""File formats of exported networks."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ..core.errors import RunFolderError
from ..datasets.base import Images
from ..models.classifier import ImageClassifier
from ..models.description import check_model
from ..models.network import FrozenNetwork, ImageModule
from ..models.persistence import rebuild
from ..models.tensors import content_of, tensors_of

SKAL = "skal"
"""Metadata key of the network's description in a file."""
INPUT, OUTPUTS = "images", ("probabilities", "embeddings")
AT_ONCE = 64
"""Batch size of an exported network."""
OPSET = 18

Answer = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Probabilities, shape (n, n_classes), and embeddings, shape (n, n_features)."""


class Deployed(nn.Module):
    """A fitted network with its preprocessing and softmax, in float32: uint8 images to `Answer`."""

    mean: Tensor
    std: Tensor
    temperature: Tensor

    def __init__(self, module: ImageModule, size: int) -> None:
        super().__init__()
        network = module.network
        self.backbone, self.head = network.backbone, network.head
        self.neck: nn.Module = nn.Identity()
        if isinstance(network, FrozenNetwork):
            self.neck = nn.Sequential(network.scaling, network.neck)
        for name in ("mean", "std", "temperature"):
            self.register_buffer(name, getattr(module, name).clone())
        self.channels = module.in_channels
        self.size = size if module.input_size is None else int(module.input_size)
        self.resized = self.size != size

    @classmethod
    def of(cls, classifier: ImageClassifier) -> Deployed:
        """Return the module of a fitted classifier, in evaluation mode."""
        module: Any = classifier.neural_net_.module_
        return cls(module, classifier.image_shape_[-1]).eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        pixels = images.float() / 255
        if self.resized:
            pixels = F.interpolate(pixels, (self.size, self.size), mode="bilinear")
        pixels = pixels.expand(-1, self.channels, -1, -1)
        embeddings = self.neck(self.backbone((pixels - self.mean) / self.std))
        return F.softmax(self.head(embeddings) / self.temperature, dim=1), embeddings


Facts: TypeAlias = Mapping[str, Any]
"""Description of a network: the content of ``model.json``."""


@dataclass(frozen=True, eq=False)
class ExportedNetwork:
    """A network read from a file; `answer` takes at most `AT_ONCE` uint8 images."""

    description: Facts
    answer: Callable[[Images], Answer]

    def __call__(self, images: Images) -> Answer:
        """Return probabilities and embeddings of any number of images."""
        parts = [self.answer(images[k : k + AT_ONCE]) for k in range(0, len(images), AT_ONCE)]
        proba, embeddings = zip(*parts, strict=True)
        return np.concatenate(proba), np.concatenate(embeddings)


Found: TypeAlias = tuple[ExportedNetwork | ImageClassifier, dict[str, Any]]


class NetworkFormat:
    """Base class of file formats: write a network to one file, and read it."""

    suffix = ""
    extra = ""
    modules: tuple[str, ...] = ()
    """Modules needed in addition to torch; `extra` installs them."""
    runs_code = False
    """Whether reading a file may run code in it."""

    def write(self, classifier: ImageClassifier, description: Facts, path: Path) -> None:
        """Write a fitted network, usually as `Deployed`, and its description."""
        raise NotImplementedError

    def read(self, path: Path, trust: bool = False) -> Found:
        """Read a network and its description from a file with this format's suffix."""
        raise NotImplementedError


class Onnx(NetworkFormat):
    """ONNX, with the weights in the same file."""

    suffix, extra, modules = ".onnx", "onnx", ("onnx", "onnxruntime", "onnxscript")

    def write(self, classifier: ImageClassifier, description: Facts, path: Path) -> None:
        import onnx

        with _quiet_exporter():
            program: Any = torch.onnx.export(
                Deployed.of(classifier),
                (example_images(description, 2),),
                input_names=[INPUT],
                output_names=[*OUTPUTS],
                dynamic_shapes={INPUT: {0: torch.export.Dim("n", min=1)}},
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        model = program.model_proto
        onnx.helper.set_model_props(model, {SKAL: json.dumps(description)})
        onnx.save_model(model, path, save_as_external_data=False)

    def read(self, path: Path, trust: bool = False) -> tuple[ExportedNetwork, dict[str, Any]]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(
            path, options, providers=onnxruntime.get_available_providers()
        )
        text = session.get_modelmeta().custom_metadata_map.get(SKAL)

        def answer(images: Images) -> Answer:
            proba, embeddings = session.run(None, {INPUT: np.ascontiguousarray(images)})
            return proba, embeddings

        description = _described(text)
        return ExportedNetwork(description, answer), description


class TorchScript(NetworkFormat):
    """TorchScript, traced."""

    suffix, runs_code = ".pt", True

    def write(self, classifier: ImageClassifier, description: Facts, path: Path) -> None:
        network = Deployed.of(classifier)
        with torch.inference_mode(), _quiet_exporter():
            jit: Any = torch.jit
            traced = jit.trace(network, example_images(description, 2), check_trace=False)
            jit.save(traced, path, _extra_files={SKAL: json.dumps(description)})

    def read(self, path: Path, trust: bool = False) -> tuple[ExportedNetwork, dict[str, Any]]:
        files = {SKAL: ""}
        with _quiet_exporter():
            jit: Any = torch.jit
            module = jit.load(path, map_location="cpu", _extra_files=files)

        def answer(images: Images) -> Answer:
            with torch.inference_mode():
                proba, embeddings = module(torch.tensor(images))
            return proba.numpy(), embeddings.numpy()

        description = _described(files[SKAL])
        return ExportedNetwork(description, answer), description


class StateDict(NetworkFormat):
    """Only the weights, under their names in skal's network."""

    suffix = ".safetensors"

    def write(self, classifier: ImageClassifier, description: Facts, path: Path) -> None:
        state = classifier.neural_net_.module_.state_dict()
        tensors = {name: tensor.contiguous() for name, tensor in state.items()}
        path.write_bytes(content_of(tensors, {SKAL: json.dumps(description)}))

    def read(self, path: Path, trust: bool = False) -> tuple[ImageClassifier, dict[str, Any]]:
        content = path.read_bytes()
        size = int.from_bytes(content[:8], "little")
        text = json.loads(content[8 : 8 + size]).get("__metadata__", {}).get(SKAL)
        description = _described(text)
        check_model(path, description, trust)
        return rebuild(description, tensors_of(content), "cpu"), description


def _described(text: str | bytes | None) -> dict[str, Any]:
    if not text:
        raise RunFolderError("the file was not written by skal export-model")
    return dict(json.loads(text))


def example_images(description: Mapping[str, Any], n: int) -> Tensor:
    shape = (n, *description["image_shape"])
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, np.uint8))


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Suppress the warnings of torch's exporters."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            log.setLevel(level)
