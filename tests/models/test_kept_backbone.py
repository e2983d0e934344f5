"""The network that comes along is built where images are to be embedded, and only there."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

import skal
from skal.core.errors import DataError
from skal.models.backbone import Backbone
from skal.models.features import features_of
from skal.models.kept_backbone import ready_backbone

SHAPE = (3, 64, 64)
IMAGES = np.random.default_rng(0).integers(0, 256, (6, *SHAPE), dtype=np.uint8)


BUILT: list[str] = []


class Frozen(skal.ImageClassifier):
    """Takes down which networks are built."""

    def backbone(self, image_shape: tuple[int, ...]) -> Backbone:
        BUILT.append(self.model)
        return super().backbone(image_shape)


def frozen(model: str = "efficientnet-lite0-stages") -> Frozen:
    pretrained = model.startswith("efficientnet")
    return Frozen(model, classes=[0, 1], pretrained=pretrained, freeze=True)


@pytest.fixture
def built() -> list[str]:
    BUILT.clear()
    return BUILT


def test_what_was_kept_of_a_network_is_that_network(tmp_path: Path, built: list[str]) -> None:
    first, again = (ready_backbone(frozen(), SHAPE, tmp_path) for _ in range(2))
    assert len(built) == 1 and again.key == first.key
    state = first.network.backbone.state_dict()
    kept = again.network.backbone.state_dict()
    assert kept.keys() == state.keys() and all(kept[name].equal(state[name]) for name in state)
    assert first.answers is not None and again.answers is not None
    assert (again.answers.found == first.answers.found).all()
    assert len(built) == 1


def test_features_that_are_kept_need_no_network_and_others_build_it(
    tmp_path: Path, built: list[str]
) -> None:
    expected = features_of(ready_backbone(frozen(), SHAPE, tmp_path), IMAGES[:4], tmp_path)
    backbone = ready_backbone(frozen(), SHAPE, tmp_path)
    assert (features_of(backbone, IMAGES[:4], tmp_path) == expected).all()
    assert len(built) == 1
    features = features_of(backbone, IMAGES, tmp_path)
    assert len(built) == 2
    np.testing.assert_allclose(features, skal.embed(frozen(), IMAGES), rtol=0, atol=1e-3)


def test_a_head_with_the_weights_alone_is_saved_and_answers_of_images(
    tmp_path: Path, built: list[str]
) -> None:
    features = features_of(ready_backbone(frozen(), SHAPE, tmp_path), IMAGES, tmp_path)
    classifiers = [frozen().fit(features, [0, 1, 0, 1, -1, -1]) for _ in range(2)]
    contents = []
    for classifier in classifiers:
        classifier.take_backbone(ready_backbone(frozen(), SHAPE, tmp_path))
        skal.save_classifier(classifier, tmp_path)
        contents.append((tmp_path / "model.safetensors").read_bytes())
    assert contents[0] == contents[1] and len(built) == 1
    loaded = skal.load_classifier(tmp_path)
    for classifier in (*classifiers, loaded):
        np.testing.assert_allclose(
            classifier.predict_proba(IMAGES), loaded.predict_proba(features), atol=2e-3
        )
    with pytest.raises(DataError, match="the network was trained on"):
        frozen().fit(features, [0, 1, 0, 1, -1, -1]).take_backbone(
            ready_backbone(frozen(), SHAPE, tmp_path)
        ).predict_proba(IMAGES[..., :32, :32])


def test_damage_in_the_midst_of_the_weights_is_noticed(tmp_path: Path, built: list[str]) -> None:
    first = ready_backbone(frozen(), SHAPE, tmp_path)
    (path,) = tmp_path.glob("network-*.safetensors")
    times, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2 + 400_000] ^= 1  # where the seal does not look
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    again = ready_backbone(frozen(), SHAPE, tmp_path)
    assert len(built) == 2 and again.key == first.key
    ready_backbone(frozen(), SHAPE, tmp_path)
    assert len(built) == 2, "it was kept again"


def test_where_a_file_of_the_code_was_changed_the_network_is_built_anew(
    tmp_path: Path, built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "code_of_a_network"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    for number, content in enumerate(("a = 1\n", "a = 2, 3\n"), start=1):
        (package / "layers.py").write_text(content)
        for _ in range(2):
            ready_backbone(frozen(), SHAPE, tmp_path, {package.name: ("*.py",)})
        assert len(built) == number


def test_what_is_kept_and_what_is_built_can_be_pickled(tmp_path: Path) -> None:
    for _ in range(2):
        backbone = pickle.loads(pickle.dumps(ready_backbone(frozen(), SHAPE, tmp_path)))
        assert backbone(IMAGES).shape == (len(IMAGES), 2128)


def test_where_code_of_the_network_is_missing_the_builder_says_so(tmp_path: Path) -> None:
    backbone = ready_backbone(frozen(), SHAPE, tmp_path, {"no_such_package": ("*.py",)})
    assert backbone(IMAGES).shape == (len(IMAGES), 2128)
    assert not list(tmp_path.glob("network-*"))


def test_networks_that_do_not_come_along_are_always_built(tmp_path: Path, built: list[str]) -> None:
    for _ in range(2):
        ready_backbone(frozen("small-cnn"), SHAPE, tmp_path)
    assert built == ["small-cnn"] * 2 and not list(tmp_path.glob("network-*"))
