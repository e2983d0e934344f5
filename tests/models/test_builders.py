"""Networks, their weights, and what is done to pixels."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision

import skal
from skal.core.errors import DataError, UnknownNameError
from skal.models import AUGMENTATIONS, build_network
from skal.models.network import ImageModule, flip, shift
from skal.models.weights import tell_once

OPTIONS = {"n_classes": 3, "in_channels": 3, "dropout": 0.25}


@pytest.fixture(scope="module")
def imagenet_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict as torchvision's downloads are, with its own last layer of 1000 classes."""
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.manual_seed(3)
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), path)
    return path


def test_small_images_get_a_small_stem() -> None:
    for size, stem in ((63, (3, 3)), (64, (7, 7))):
        network = build_network("resnet18", image_size=size, **OPTIONS)
        assert network.backbone.conv1.kernel_size == stem


def test_weights_are_loaded_and_bring_their_stem(imagenet_weights: Path) -> None:
    network = build_network("resnet18", image_size=32, weights=imagenet_weights, **OPTIONS)
    state = torch.load(imagenet_weights, weights_only=True)
    assert torch.equal(network.backbone.conv1.weight, state["conv1.weight"])
    assert torch.equal(network.backbone.layer4[1].bn2.bias, state["layer4.1.bn2.bias"])
    assert network.mean == (0.485, 0.456, 0.406)
    assert network.head[-1].out_features == 3


def test_pretrained_weights_are_torchvisions(
    imagenet_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = torch.load(imagenet_weights, weights_only=True)
    monkeypatch.setattr(
        torchvision.models.ResNet18_Weights, "get_state_dict", lambda *args, **kwargs: state
    )
    network = build_network("resnet18", image_size=64, pretrained=True, **OPTIONS)
    assert torch.equal(network.backbone.conv1.weight, state["conv1.weight"])


def test_without_network_pretrained_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise URLError("no route")

    monkeypatch.setattr(torchvision.models.ResNet18_Weights, "get_state_dict", offline)
    with pytest.raises(DataError, match=r"resnet18-\w+\.pth.*--weights FILE"):
        build_network("resnet18", image_size=64, pretrained=True, **OPTIONS)


def test_weights_that_do_not_fit_are_refused(imagenet_weights: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"do not fit the model: .* and \d+ more"):
        build_network("small-cnn", image_size=32, weights=imagenet_weights, **OPTIONS)
    state = torch.load(imagenet_weights, weights_only=True)
    some = dict(list(state.items())[:50])
    torch.save(some, tmp_path / "some.pth")
    with pytest.raises(DataError, match=r"of the backbone's 100 tensors fit; .* is missing"):
        build_network("resnet18", image_size=64, weights=tmp_path / "some.pth", **OPTIONS)


def test_weights_that_fit_in_part_are_taken_and_the_rest_is_named(
    imagenet_weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tell_once.cache_clear()
    state = torch.load(imagenet_weights, weights_only=True)
    state["layer1.0.bn1.weight"] = torch.zeros(5)
    path = tmp_path / "wrong.pth"
    torch.save(state, path)
    for _ in range(2):  # as every round builds one
        network = build_network("resnet18", image_size=64, weights=path, **OPTIONS)
    assert torch.equal(network.backbone.conv1.weight, state["conv1.weight"])
    assert torch.equal(network.backbone.layer1[0].bn1.weight, torch.ones(64))
    (warning,) = (record for record in caplog.records if record.levelname == "WARNING")
    told = "99 of the backbone's 100 tensors fit; layer1.0.bn1.weight has shape (5,), expected"
    assert told in warning.getMessage()


@pytest.mark.parametrize("prefix", ["module.", "model.", "backbone.", "module.backbone."])
@pytest.mark.parametrize("model", ["resnet18", "torchvision:resnet18"])
def test_weights_of_wrapped_networks_fit(
    model: str,
    prefix: str,
    imagenet_weights: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "skal")
    state = torch.load(imagenet_weights, weights_only=True)
    state["fc.weight"], state["fc.bias"] = torch.zeros(7, 512), torch.zeros(7)
    path = tmp_path / "wrapped.safetensors"
    safetensors.torch.save_file({prefix + name: value for name, value in state.items()}, path)
    network = build_network(model, image_size=64, weights=path, **OPTIONS)
    assert torch.equal(network.backbone.conv1.weight, state["conv1.weight"])
    (told,) = caplog.messages
    assert f"{str(path)!r}: 100 of the backbone's 100 tensors fit; fc." in told


def test_files_that_hold_no_weights_are_refused(tmp_path: Path) -> None:
    for name in ("weights.pth", "weights.safetensors"):
        path = tmp_path / name
        with pytest.raises(DataError, match=r"weights .*': No such file or directory$"):
            build_network("resnet18", image_size=64, weights=path, **OPTIONS)
    path = tmp_path / "weights.pth"
    for nonsense in (b"nonsense", b"hello\n", b"", b"PK\x03\x04"):
        path.write_bytes(nonsense)
        with pytest.raises(DataError, match=r"cannot read the weights .* expected a state dict"):
            build_network("resnet18", image_size=64, weights=path, **OPTIONS)
    torch.save([1, 2], path)
    with pytest.raises(DataError, match="contains no tensor; expected a state dict"):
        build_network("resnet18", image_size=64, weights=path, **OPTIONS)


@pytest.mark.parametrize("model", ["small-cnn", "lenet", "resnet18"])
def test_the_weights_of_a_run_start_another(
    model: str, tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    fitted = skal.ImageClassifier(model, classes=[0, 1, 2], steps=1).fit(tiny.X, tiny.y)
    skal.save_classifier(fitted, tmp_path)
    weights = tmp_path / "model.safetensors"
    network = build_network(
        model, n_classes=7, in_channels=1, image_size=12, dropout=0.25, weights=weights
    )
    expected = fitted.neural_net_.module_.network.backbone.state_dict()
    for name, tensor in network.backbone.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    other = skal.ImageClassifier(model, classes=[*range(5)], steps=1, weights=str(weights))
    assert other.fit(tiny.X, tiny.y).predict_proba(tiny.X_test).shape == (30, 5)
    weights.write_bytes(b"nonsense")
    with pytest.raises(DataError, match="cannot read the weights"):
        other.fit(tiny.X, tiny.y)


def test_unknown_models_are_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown model 'resnet81'; did you mean resnet18"):
        build_network("resnet81", image_size=64, **OPTIONS)


def test_grey_images_pass_through_a_colour_network() -> None:
    module = ImageModule(
        "resnet18", (), False, n_classes=3, in_channels=1, image_size=16, dropout=0.25
    )
    images = torch.randint(0, 256, (2, 1, 16, 16), dtype=torch.uint8)
    prepared = module.eval().prepare(images)
    assert prepared.shape == (2, 3, 16, 16)
    expected = (images.float() / 255 - 0.5) / 0.25
    torch.testing.assert_close(prepared, expected.expand(-1, 3, -1, -1))
    assert module(images)[0].shape == (2, 3)


class TestAugmentation:
    def test_flipping_mirrors_about_half_of_the_images(self) -> None:
        torch.manual_seed(0)
        images = torch.rand(400, 3, 6, 6)
        flipped = flip(images)
        mirrored = (flipped == images.flip(3)).flatten(1).all(1)
        kept = (flipped == images).flatten(1).all(1)
        assert (mirrored ^ kept).all()
        assert 150 < mirrored.sum() < 250

    def test_shifting_moves_each_image_by_its_own_offset(self) -> None:
        torch.manual_seed(0)
        images = torch.rand(300, 2, 16, 16) + 0.1
        moved = shift(images)
        assert moved.shape == images.shape
        offsets = set()
        for before, after in zip(images.numpy(), moved.numpy(), strict=True):
            padded = np.pad(before, ((0, 0), (2, 2), (2, 2)))
            hits = [
                (down, right)
                for down in range(5)
                for right in range(5)
                if np.array_equal(padded[:, down : down + 16, right : right + 16], after)
            ]
            assert len(hits) == 1
            offsets.update(hits)
        assert len(offsets) == 25

    def test_it_is_for_training_alone(self) -> None:
        module = ImageModule(
            "small-cnn",
            ("flip", "shift"),
            False,
            n_classes=3,
            in_channels=1,
            image_size=16,
            dropout=0.25,
        )
        images = torch.randint(0, 256, (20, 1, 16, 16), dtype=torch.uint8)
        assert torch.equal(module.eval().prepare(images), module.prepare(images))
        assert not torch.equal(module.train().prepare(images), module.eval().prepare(images))

    def test_all_that_datasets_declare_exist(self) -> None:
        assert set(skal.load_dataset("digits").augmentation) <= set(AUGMENTATIONS)
        assert {"flip", "shift"} <= set(AUGMENTATIONS)
