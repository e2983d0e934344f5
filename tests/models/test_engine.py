"""A frozen backbone in a faster engine: what it answers is what torch answers."""

import copy
import pickle
import sys

import numpy as np
import pytest
import torch

from skal import ImageClassifier
from skal.models import engine
from skal.models.backbone import Backbone
from skal.models.devices import Device
from skal.models.engine import speed_up
from skal.models.network import uncompiled

BACKBONES = [
    ("efficientnet-lite0", (3, 64, 64)),
    ("efficientnet-lite0", (1, 28, 28)),
    ("efficientnet-lite0-stages", (3, 64, 64)),
    ("torchvision:resnet18", (3, 64, 64)),
    ("timm:vit_tiny_patch16_224", (3, 224, 224)),
    ("small-cnn", (3, 32, 32)),
]


def photos(n, shape, seed=0):
    """Return images with some structure: noise that was enlarged."""
    channels, height, _ = shape
    small = np.random.default_rng(seed).integers(0, 256, (n, channels, 4, 4), dtype=np.uint8)
    rows = np.arange(height) * 4 // height
    return small[:, :, rows[:, None], rows]


def built(model="efficientnet-lite0", shape=(3, 64, 64)):
    return Backbone.build(model, shape, Device("cpu"), pretrained="lite0" in model)


def by_torch(backbone, X):
    with uncompiled(backbone.module.network):
        return backbone(X).astype(np.float32)


def by_engine(backbone, X):
    assert speed_up(backbone.module, X, worth=0) > 0
    with torch.inference_mode():
        return backbone.module.embed(torch.from_numpy(X)).numpy()


@pytest.mark.parametrize(("model", "shape"), BACKBONES)
def test_the_engine_answers_as_torch_does(model, shape):
    backbone, X = built(model, shape), photos(21, shape)
    found, expected = by_engine(backbone, X), by_torch(backbone, X)
    assert np.linalg.norm(found - expected) < 1e-3 * np.linalg.norm(expected)
    assert found.shape == expected.shape


def test_images_stay_in_order_whatever_their_number():
    backbone, X = built(), photos(40, (3, 64, 64))
    whole = by_engine(backbone, X)
    for n in (1, 7, 40):
        np.testing.assert_allclose(by_engine(backbone, X[:n]), whole[:n], rtol=1e-4, atol=1e-4)


def test_what_comes_out_does_not_depend_on_what_was_asked_before():
    backbone, X = built(), photos(30, (3, 64, 64))
    few = by_torch(backbone, X[:5])
    by_engine(backbone, X)
    np.testing.assert_array_equal(backbone(X[:5]).astype(np.float32), few)
    many = np.broadcast_to(X[:1], (3000, 3, 64, 64))
    assert speed_up(backbone.module, many) > 0
    assert speed_up(backbone.module, X[:5]) == 0


def test_few_images_are_not_worth_an_engine():
    backbone, X = built(), photos(3, (3, 64, 64))
    assert speed_up(backbone.module, X) == 0
    assert speed_up(backbone.module, X[:0], worth=0) == 0
    many = np.broadcast_to(X[:1], (3000, 3, 64, 64))
    assert speed_up(backbone.module, many) > 0
    assert speed_up(built().module, many, rows=np.arange(3)) == 0


def test_without_openvino_torch_computes(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    backbone, X = built(), photos(5, (3, 64, 64))
    assert speed_up(backbone.module, X, worth=0) == 0
    np.testing.assert_array_equal(backbone(X), by_torch(backbone, X).astype(np.float16))


class Drawing(torch.nn.Module):
    """Answers otherwise each time."""

    def forward(self, images):
        return images.flatten(1)[:, :8] + torch.randn(len(images), 8)


class Complicated(torch.nn.Module):
    """Is no graph of operations."""

    def forward(self, images):
        return torch.from_numpy(np.sort(images.numpy().reshape(len(images), -1))[:, :8].copy())


@pytest.mark.parametrize("layer", [Drawing, Complicated])
def test_a_backbone_that_the_engine_cannot_compute_stays_in_torch(layer):
    backbone, X = built("small-cnn", (3, 32, 32)), photos(9, (3, 32, 32))
    backbone.module.network.backbone = layer().eval()
    assert speed_up(backbone.module, X, worth=0) == 0
    assert backbone(X).shape == (9, 8)


def test_where_bfloat16_is_too_coarse_the_engine_computes_in_float32(monkeypatch):
    monkeypatch.setitem(engine.SHARE, True, 0.0)
    backbone = Backbone.build("small-cnn", (3, 32, 32), Device("cpu", True), pretrained=False)
    X = photos(21, (3, 32, 32))
    found, expected = by_engine(backbone, X), by_torch(built("small-cnn", (3, 32, 32)), X)
    assert np.linalg.norm(found - expected) < 1e-3 * np.linalg.norm(expected)


def test_the_precision_does_not_depend_on_which_images_come_first():
    """Else processes that begin with other parts of a folder would answer otherwise."""
    X = np.repeat(np.uint8([0, 255]), 9)[:, None, None, None] * np.ones((3, 64, 64), np.uint8)
    backbones = [
        Backbone.build("efficientnet-lite0", (3, 64, 64), Device("cpu", True), pretrained=True)
        for _ in range(2)
    ]
    first, other = (
        by_engine(b, images) for b, images in zip(backbones, (X, X[::-1].copy()), strict=True)
    )
    np.testing.assert_allclose(other[::-1], first, rtol=1e-4, atol=1e-4)


def test_a_copy_of_the_network_has_no_engine_and_answers_alike():
    backbone, X = built(), photos(5, (3, 64, 64))
    speed_up(backbone.module, X, worth=0)
    images = torch.from_numpy(X)
    with torch.inference_mode():
        expected = backbone.module.embed(images)
        for other in (
            copy.deepcopy(backbone.module),
            pickle.loads(pickle.dumps(backbone.module)),
        ):
            torch.testing.assert_close(other.embed(images), expected, rtol=1e-3, atol=1e-3)


def test_a_frozen_classifier_predicts_and_has_gradients_with_an_engine():
    X, y = photos(24, (3, 64, 64)), np.arange(24) % 2
    options = {"pretrained": True, "freeze": True, "random_state": 0}
    # in bfloat16 an engine that is too far from float32 is not used, as on some processors here
    options["precision"] = "fp32"
    classifier = ImageClassifier("efficientnet-lite0", classes=[0, 1], **options)
    classifier.fit(X, y)
    before = classifier.predict_proba(X), classifier.expected_gradient_length(X)
    module = classifier.neural_net_.module_
    assert speed_up(module, X, worth=0) > 0
    np.testing.assert_array_equal(classifier.predict_proba(X), before[0])
    np.testing.assert_allclose(classifier.expected_gradient_length(X), before[1], atol=1e-3)
