"""The classifier, as scikit-activeml's and scikit-learn's users meet it."""

from __future__ import annotations

import inspect
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skactiveml.base import SkactivemlClassifier
from skactiveml.classifier import SkorchClassifier
from sklearn.base import clone
from skorch.callbacks import Callback
from skorch.dataset import Dataset

import skal
from skal.core.errors import DataError, ParameterError, RunFolderError, UnknownNameError
from skal.models import Network
from skal.models.devices import resolve_bf16
from skal.models.inference import NotFittedError
from skal.models.iterators import SliceBatches
from skal.models.network import DropoutSampler, ImageModule
from skal.models.persistence import load_classifier, save_classifier
from skal.models.training import TrainBatches


def classifier(**params: object) -> skal.ImageClassifier:
    return skal.ImageClassifier(**{"classes": [0, 1, 2], "steps": 30, "random_state": 0, **params})


@pytest.fixture
def y(tiny: skal.ImageDataset) -> np.ndarray:
    return np.where(np.arange(len(tiny.y)) < 30, tiny.y, -1)


def test_it_learns_from_the_labelled_images(tiny: skal.ImageDataset, y: np.ndarray) -> None:
    fitted = classifier().fit(tiny.X, y)
    assert isinstance(fitted, SkactivemlClassifier)
    assert fitted.score(tiny.X_test, tiny.y_test) > 0.9


def test_of_classes_that_are_as_probable_the_first_is_predicted_each_time(
    tiny: skal.ImageDataset, y: np.ndarray
) -> None:
    one = classifier(steps=1, random_state=None).fit(tiny.X, y)
    both = skal.Committee(classifier(steps=1), n_members=2).fit(tiny.X, y)
    for network in (one, *both.estimators_):
        *_, last = network.neural_net_.module_.parameters()
        *_, weight = (p for p in network.neural_net_.module_.parameters() if p.ndim == 2)
        for parameter in (weight, last):
            torch.nn.init.zeros_(parameter)
    for fitted in (one, both):
        assert len(np.unique(fitted.predict_proba(tiny.X_test))) == 1
        assert not fitted.predict(tiny.X_test).any()
    costs = np.array([[0, 1, 1], [1, 0, 1], [1, 0.5, 0]])
    dear = classifier(steps=1, cost_matrix=costs).fit(tiny.X, y)
    labels, embeddings = dear.predict(tiny.X_test, extra_outputs="emb")
    cheapest = (dear.predict_proba(tiny.X_test) @ costs).argmin(axis=1)
    assert np.array_equal(labels, cheapest) and len(embeddings) == len(labels)


def test_it_does_not_read_unlabelled_images(tiny: skal.ImageDataset, y: np.ndarray) -> None:
    other = tiny.X.copy()
    other[30:] = 255
    first = classifier().fit(tiny.X, y).predict_proba(tiny.X_test)
    assert np.array_equal(first, classifier().fit(other, y).predict_proba(tiny.X_test))


def test_equal_seeds_give_equal_networks_and_others_differ(
    tiny: skal.ImageDataset, y: np.ndarray
) -> None:
    fit = {seed: classifier(random_state=seed).fit(tiny.X, y) for seed in (0, 1)}
    first, second = (c.predict_proba(tiny.X_test) for c in fit.values())
    assert np.array_equal(first, clone(fit[0]).fit(tiny.X, y).predict_proba(tiny.X_test))
    assert not np.array_equal(first, second)


def test_the_callers_torch_state_is_left_alone(tiny: skal.ImageDataset, y: np.ndarray) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fitted = classifier(steps=2).fit(tiny.X, y)
    fitted.sample_proba(tiny.X_test, 3)
    assert torch.equal(torch.rand(3), expected)


def test_a_pickle_and_a_clone_are_as_the_original(tiny: skal.ImageDataset, y: np.ndarray) -> None:
    fitted = classifier().fit(tiny.X, y)
    copy = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(copy.predict_proba(tiny.X_test), fitted.predict_proba(tiny.X_test))
    assert clone(fitted).get_params() == fitted.get_params()
    assert not hasattr(clone(fitted), "neural_net_")


def test_embeddings_and_logits_explain_the_probabilities(
    tiny: skal.ImageDataset, y: np.ndarray
) -> None:
    fitted = classifier(precision="fp32").fit(tiny.X, y)
    proba, embeddings, logits = fitted.predict_proba(tiny.X_test, extra_outputs=["emb", "logits"])
    linear = fitted.neural_net_.module_.network.head[-1]
    expected = embeddings @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(proba, powers / powers.sum(axis=1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(fitted.head_proba(embeddings), proba, atol=1e-6)


def test_class_labels_may_be_any_integers(tiny: skal.ImageDataset, y: np.ndarray) -> None:
    names = np.array([7, 30, 12])
    fitted = classifier(classes=names).fit(tiny.X, np.where(y < 0, -1, names[y]))
    assert fitted.classes_.tolist() == [7, 12, 30]
    predicted = fitted.predict(tiny.X_test)
    assert (predicted == names[tiny.y_test]).mean() > 0.9


def test_classes_never_seen_keep_their_column(tiny: skal.ImageDataset, y: np.ndarray) -> None:
    only_two = np.where(y == 2, -1, y)
    proba = classifier().fit(tiny.X, only_two).predict_proba(tiny.X_test)
    assert proba.shape == (30, 3)


@pytest.mark.parametrize("n_labeled", [0, 1, 2, 3])
def test_hardly_any_label_is_enough_to_go_on(tiny: skal.ImageDataset, n_labeled: int) -> None:
    y = np.where(np.arange(len(tiny.y)) < n_labeled, tiny.y, -1)
    proba = classifier(steps=2).fit(tiny.X, y).predict_proba(tiny.X_test)
    assert np.isfinite(proba).all()


def test_batches_of_one_image_left_over_do_not_break_batch_norm(tiny: skal.ImageDataset) -> None:
    y = np.where(np.arange(len(tiny.y)) < 9, tiny.y, -1)
    fitted = classifier(train_batch_size=8, steps=None, epochs=2).fit(tiny.X, y)
    # 18 images in batches of 8, of which the first epoch ends within the second
    assert fitted.neural_net_.history[:, "train_batch_count"] == [2, 1]


def test_unfitted_classifiers_refuse_to_predict(tiny: skal.ImageDataset) -> None:
    with pytest.raises(NotFittedError, match=r"call fit\(X, y\) first"):
        classifier().head_proba(np.zeros((2, 4), np.float32))
    for ask in ("predict", "predict_proba", "sample_proba"):
        with pytest.raises(NotFittedError, match=r"call fit\(X, y\) first"):
            getattr(classifier(), ask)(tiny.X_test)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"classes": None}, ParameterError, "all class labels"),
        ({"model": "smal-cnn"}, UnknownNameError, "did you mean small-cnn"),
        ({"optimizer": "adamv"}, UnknownNameError, "did you mean adamw"),
        ({"device": "cud"}, UnknownNameError, "did you mean cuda"),
        ({"augmentation": ("flop",)}, UnknownNameError, "did you mean flip"),
        ({"steps": 0}, ParameterError, "steps: got 0; expected a whole number from 1 to"),
        ({"steps": "2"}, ParameterError, "steps: got '2'; expected a whole number"),
        ({"steps": 2.5}, ParameterError, "steps: got 2.5; expected a whole number"),
        ({"dropout": "a"}, ParameterError, "dropout: got 'a'; expected a number"),
        ({"lr": "a"}, ParameterError, "lr: got 'a'; expected"),
        ({"augmentation": "flip"}, ParameterError, r"'flip'; expected a tuple .*\('flip',\)"),
        ({"classes": [0, 1]}, DataError, r"the label 2; expected one of the classes \[0, 1\]"),
        ({"steps": 5, "epochs": 5}, ParameterError, "not both"),
        ({"dropout": 1.0}, ParameterError, "dropout: got 1.0; expected a number .* below 1"),
        ({"lr": 0}, ParameterError, "lr: got 0; expected a number above 0"),
        (
            {"pretrained": True},
            ParameterError,
            "no pretrained weights; models that have: eff",
        ),
    ],
)
def test_wrong_parameters_are_named(
    tiny: skal.ImageDataset, params: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        classifier(**params).fit(tiny.X, tiny.y)


def test_labels_are_ids_and_no_names(tiny: skal.ImageDataset) -> None:
    names = np.array(tiny.classes)[tiny.y]
    with pytest.raises(DataError, match=r"y contains text, such as '\w+'; expected class ids"):
        classifier(steps=1).fit(tiny.X, names)
    with pytest.raises(DataError, match="y contains text, such as 'x'; expected class ids"):
        classifier(steps=1).fit(tiny.X[:2], np.array(["x", 0], object))
    named = skal.ImageClassifier(
        "lenet", classes=list(tiny.classes), missing_label=None, steps=1, random_state=0
    )
    assert set(named.fit(tiny.X, names).predict(tiny.X)) <= set(tiny.classes)


def test_pixels_must_be_uint8_images_of_the_shape_trained_on(tiny: skal.ImageDataset) -> None:
    fitted = classifier(steps=1).fit(tiny.X, tiny.y)
    with pytest.raises(DataError, match="expected unscaled uint8 pixels"):
        fitted.predict_proba(tiny.X_test / 255)
    with pytest.raises(DataError, match=r"\(1, 10, 10\); the network was trained on \(1, 12, 12\)"):
        fitted.predict_proba(tiny.X_test[:, :, :10, :10])
    with pytest.raises(DataError, match="expected square"):
        classifier().fit(tiny.X[:, :, :10], tiny.y)
    for model in ("small-cnn", "resnet18"):
        with pytest.raises(DataError, match="2 channels; expected 1"):
            classifier(model=model).fit(np.repeat(tiny.X, 2, axis=1), tiny.y)


def test_of_no_images_there_are_empty_predictions(tiny: skal.ImageDataset) -> None:
    for model in ("small-cnn", "lenet", "resnet18"):
        fitted = classifier(model=model, steps=1).fit(tiny.X, tiny.y)
        none = tiny.X[:0]
        proba, embeddings, logits = fitted.predict_proba(none, extra_outputs=["emb", "logits"])
        assert proba.shape == logits.shape == (0, 3)
        assert embeddings.shape == (0, fitted.neural_net_.module_.network.head[-1].in_features)
        assert fitted.sample_proba(none, 4).shape == (4, 0, 3)
        assert fitted.predict(none).shape == (0,)


def test_training_on_draws_other_batches_each_time(tiny: skal.ImageDataset) -> None:
    drawn: list[list[int]] = []

    class Watch(Callback):  # type: ignore[misc]
        def on_batch_begin(self, net: object, batch: object, **kwargs: object) -> None:
            drawn.append(batch[1].tolist())  # type: ignore[index]

    for _ in range(2):
        watched = classifier(steps=1, callbacks=[("watch", Watch())]).fit(tiny.X, tiny.y)
        watched.partial_fit(tiny.X, tiny.y).partial_fit(tiny.X, tiny.y)
    assert drawn[:3] == drawn[3:]
    assert drawn[1] != drawn[2]


def test_scikit_activeml_still_has_the_private_methods_that_are_overridden() -> None:
    expected = {
        "_net_parts": ["self", "X", "y"],
        "_validate_data_kwargs": ["self"],
        "_normalize_extra_outputs": ["extra_outputs", "allowed_names", "primary_name"],
        "_initialize_fallbacks": ["self", "P"],
        "initialize": ["self", "X", "y", "enforce_check_X_y"],
    }
    for name, parameters in expected.items():
        method = getattr(SkorchClassifier, name, None)
        assert method is not None, f"scikit-activeml's SkorchClassifier has no {name} any more"
        found = list(inspect.signature(method).parameters)
        assert found == parameters, f"SkorchClassifier.{name} takes {found} now, not {parameters}"


@pytest.mark.parametrize("bf16", [True, False])
def test_torch_without_a_list_of_capabilities_is_asked_by_its_probes(
    monkeypatch: pytest.MonkeyPatch, bf16: bool
) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16, raising=False)
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
    assert resolve_bf16("auto", "cpu") is bf16


def test_partial_fit_trains_on(tiny: skal.ImageDataset, y: np.ndarray) -> None:
    once = classifier(steps=3).fit(tiny.X, y)
    before = once.predict_proba(tiny.X_test)
    for _ in range(3):
        once.partial_fit(tiny.X, y)
    after = once.predict_proba(tiny.X_test)
    truth = np.arange(len(tiny.y_test)), tiny.y_test
    assert np.log(after[truth]).mean() > np.log(before[truth]).mean()


def test_a_memmap_that_cannot_be_written_is_fine(
    tiny: skal.ImageDataset, y: np.ndarray, tmp_path: Path
) -> None:
    np.save(tmp_path / "X.npy", tiny.X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    fitted = classifier().fit(mapped, y)
    assert np.array_equal(
        fitted.predict_proba(mapped), classifier().fit(tiny.X, y).predict_proba(tiny.X)
    )


class Recorder(torch.nn.Module):
    """Keeps what it is given and passes it on."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        self.seen.append(values)
        return values


class TestMonteCarloDropout:
    def test_samples_differ_and_scatter_around_the_prediction(
        self, tiny: skal.ImageDataset, y: np.ndarray
    ) -> None:
        fitted = classifier(steps=10, dropout=0.5).fit(tiny.X, y)
        samples = fitted.sample_proba(tiny.X_test, 50)
        assert samples.shape == (50, 30, 3)
        assert samples.std(axis=0).max() > 0.001
        np.testing.assert_allclose(samples.sum(axis=2), 1, atol=1e-5)

    def test_a_sample_is_one_network_whatever_the_batches(
        self, tiny: skal.ImageDataset, y: np.ndarray
    ) -> None:
        fitted = classifier(steps=5, precision="fp32").fit(tiny.X, y)
        whole = fitted.sample_proba(tiny.X_test, 4)
        parts = [fitted.sample_proba(tiny.X_test[i : i + 7], 4) for i in range(0, 30, 7)]
        np.testing.assert_allclose(whole, np.concatenate(parts, axis=1), atol=1e-5)

    def test_a_mask_is_drawn_once_for_all_images_and_keeps_the_mean(self) -> None:
        recorder = Recorder()
        module = ImageModule.__new__(ImageModule)
        torch.nn.Module.__init__(module)
        module.network = Network(
            torch.nn.Flatten(), torch.nn.Sequential(torch.nn.Dropout(0.5), recorder)
        )
        module.bf16 = False
        module.register_buffer("temperature", torch.ones(()))
        sampler = DropoutSampler(module.eval(), n_samples=200, seed=0)
        for _ in range(2):  # two batches of the same pass
            sampler(torch.zeros(3, 1, 4, 4), torch.ones(3, 16))
        masks = torch.stack(recorder.seen).reshape(2, 200, 3, 16)
        assert torch.equal(masks, masks[:1, :, :1].expand_as(masks))
        assert set(masks.unique().tolist()) == {0.0, 2.0}
        assert abs(masks.mean() - 1) < 0.1
        assert len(masks[0, :, 0].unique(dim=0)) > 190

    def test_dropout_in_the_backbone_takes_whole_passes(
        self, tiny: skal.ImageDataset, y: np.ndarray
    ) -> None:
        @skal.MODELS.register("dropout-everywhere")
        def build(*, n_classes: int, in_channels: int, image_size: int, dropout: float) -> Network:
            backbone = torch.nn.Sequential(
                torch.nn.Conv2d(in_channels, 4, 3),
                torch.nn.Dropout2d(0.5),
                torch.nn.AdaptiveAvgPool2d(1),
                torch.nn.Flatten(),
            )
            return Network(backbone, torch.nn.Linear(4, n_classes))

        try:
            fitted = classifier(model="dropout-everywhere", steps=5).fit(tiny.X, y)
            samples = fitted.sample_proba(tiny.X_test, 8)
            again = np.concatenate(
                [fitted.sample_proba(tiny.X_test[i : i + 9], 8) for i in range(0, 30, 9)], axis=1
            )
        finally:
            skal.MODELS.remove("dropout-everywhere")
        assert samples.std(axis=0).max() > 0.001
        np.testing.assert_allclose(samples, again, atol=1e-2)

    def test_the_state_before_is_restored(self, tiny: skal.ImageDataset, y: np.ndarray) -> None:
        fitted = classifier(steps=5).fit(tiny.X, y)
        before = fitted.predict_proba(tiny.X_test)
        fitted.sample_proba(tiny.X_test, 3)
        module = fitted.neural_net_.module_
        assert not any("forward" in vars(layer) for layer in module.modules())
        assert np.array_equal(fitted.predict_proba(tiny.X_test), before)

    def test_equal_seeds_give_equal_samples(self, tiny: skal.ImageDataset, y: np.ndarray) -> None:
        fitted = classifier(steps=5).fit(tiny.X, y)
        first = fitted.sample_proba(tiny.X_test, 3, random_state=1)
        assert np.array_equal(first, fitted.sample_proba(tiny.X_test, 3, random_state=1))
        assert not np.array_equal(first, fitted.sample_proba(tiny.X_test, 3, random_state=2))
        state = np.random.RandomState
        third = fitted.sample_proba(tiny.X_test, 3, random_state=state(1))
        assert np.array_equal(third, fitted.sample_proba(tiny.X_test, 3, random_state=state(1)))

    def test_by_default_masks_are_not_drawn_from_the_seed_of_the_weights(
        self, tiny: skal.ImageDataset, y: np.ndarray
    ) -> None:
        fitted = classifier(steps=5, random_state=4).fit(tiny.X, y)
        default = fitted.sample_proba(tiny.X_test, 3)
        assert np.array_equal(default, fitted.sample_proba(tiny.X_test, 3))
        assert not np.array_equal(default, fitted.sample_proba(tiny.X_test, 3, random_state=4))

    @pytest.mark.parametrize("n_samples", [0, -1, 2.5])
    def test_a_wrong_number_of_samples_is_named(
        self, tiny: skal.ImageDataset, n_samples: int
    ) -> None:
        fitted = classifier(steps=1).fit(tiny.X, tiny.y)
        with pytest.raises(ParameterError, match=f"n_samples={n_samples}; expected a whole number"):
            fitted.sample_proba(tiny.X_test, n_samples)

    def test_without_dropout_it_says_so(self, tiny: skal.ImageDataset, y: np.ndarray) -> None:
        fitted = classifier(steps=1, dropout=0.0).fit(tiny.X, y)
        with pytest.raises(ParameterError, match="needs a model with dropout"):
            fitted.sample_proba(tiny.X_test, 3)


class TestBatches:
    def test_training_takes_every_image_equally_often_in_full_batches(self) -> None:
        X = np.arange(10, dtype=np.uint8)[:, None, None, None]
        train = TrainBatches(Dataset(X, np.arange(10)), batch_size=4, steps=5)
        epochs = [list(train), list(train)]
        assert [len(epoch) for epoch in epochs] == [3, 2]  # each ends when all were seen
        assert train.left == 0
        batches = [batch for epoch in epochs for batch in epoch]
        assert [len(y) for _, y in batches] == [4] * 5
        seen = torch.cat([y for _, y in batches])
        assert torch.bincount(seen).tolist() == [2] * 10
        assert all((images.flatten() == y).all() for images, y in batches)

    def test_the_budget_grows_with_the_labels(self) -> None:
        steps = {
            n: TrainBatches(Dataset(np.zeros((n, 1, 2, 2), np.uint8), np.zeros(n)), 64).steps
            for n in (20, 640, 6400)
        }
        assert steps == {20: 200, 640: 200, 6400: 2000}

    def test_slices_come_in_order_and_whole(self) -> None:
        X = np.arange(10, dtype=np.uint8)[:, None, None, None]
        batches = [images.flatten().tolist() for images, _ in SliceBatches(Dataset(X), 4)]
        assert batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


class TestSaving:
    def test_what_is_loaded_predicts_the_same(
        self, tiny: skal.ImageDataset, y: np.ndarray, tmp_path: Path
    ) -> None:
        for model in ("small-cnn", "lenet", "resnet18"):
            fitted = classifier(model=model, steps=1).fit(tiny.X, y)
            save_classifier(fitted, tmp_path, class_names=tiny.classes)
            loaded = load_classifier(tmp_path)
            assert np.array_equal(
                loaded.predict_proba(tiny.X_test), fitted.predict_proba(tiny.X_test)
            )
            assert loaded.predict(tiny.X_test).tolist() == fitted.predict(tiny.X_test).tolist()
        assert json.loads((tmp_path / "model.json").read_text())["class_names"] == [*tiny.classes]

    def test_loading_runs_no_pickle(
        self, tiny: skal.ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        save_classifier(classifier(steps=1).fit(tiny.X, tiny.y), tmp_path)

        def refuse(*args: object, **kwargs: object) -> None:
            raise AssertionError("a pickle was loaded")

        for name in ("load", "loads", "Unpickler"):
            monkeypatch.setattr(pickle, name, refuse)
        monkeypatch.setattr(torch, "load", refuse)
        assert load_classifier(tmp_path).predict_proba(tiny.X_test).shape == (30, 3)

    def test_damaged_or_missing_files_are_named(
        self, tiny: skal.ImageDataset, tmp_path: Path
    ) -> None:
        with pytest.raises(RunFolderError, match="no usable model in"):
            load_classifier(tmp_path)
        save_classifier(classifier(steps=1).fit(tiny.X, tiny.y), tmp_path)
        (tmp_path / "model.safetensors").write_bytes(b"nonsense")
        with pytest.raises(RunFolderError, match="no usable model in"):
            load_classifier(tmp_path)

    @pytest.mark.parametrize(
        "damage",
        [
            lambda content: [1],
            lambda content: {},
            lambda content: {**content, "format": "one"},
            lambda content: {**content, "params": None},
            lambda content: {**content, "image_shape": 5},
            lambda content: {**content, "image_shape": ["a", 12, 12]},
            lambda content: {**content, "params": {**content["params"], "colour": 1}},
            lambda content: {**content, "params": {**content["params"], "model": "vgg"}},
            lambda content: {**content, "params": {**content["params"], "model": "lenet"}},
            lambda content: {**content, "params": {**content["params"], "steps": "x"}},
            lambda content: {**content, "params": {**content["params"], "classes": [0, 1]}},
        ],
    )
    def test_every_damage_of_the_description_is_one_line(
        self, tiny: skal.ImageDataset, tmp_path: Path, damage: Callable[[Any], Any]
    ) -> None:
        save_classifier(classifier(steps=1).fit(tiny.X, tiny.y), str(tmp_path))
        path = tmp_path / "model.json"
        path.write_text(json.dumps(damage(json.loads(path.read_text()))))
        with pytest.raises(RunFolderError, match="no usable model in") as caught:
            load_classifier(str(tmp_path))
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_weights_that_are_no_numbers_classify_nothing(
        self, tiny: skal.ImageDataset, tmp_path: Path, value: float
    ) -> None:
        fitted = classifier(steps=1).fit(tiny.X, tiny.y)
        with torch.no_grad():
            next(fitted.neural_net_.module_.parameters()).view(-1)[0] = value
        save_classifier(fitted, tmp_path)
        with pytest.raises(RunFolderError, match=r"no usable model .* NaN or infinite"):
            load_classifier(tmp_path)

    @pytest.mark.parametrize("name", ["model.safetensors", "model.json"])
    def test_a_flipped_bit_is_found(
        self, tiny: skal.ImageDataset, tmp_path: Path, name: str
    ) -> None:
        save_classifier(classifier(steps=1).fit(tiny.X, tiny.y), tmp_path, class_names=["a"] * 3)
        path = tmp_path / name
        content = bytearray(path.read_bytes())
        content[content.index(b'"a"') + 1 if name == "model.json" else -100] ^= 1
        path.write_bytes(content)
        with pytest.raises(RunFolderError, match=f"no usable model .*{name}.* is damaged"):
            load_classifier(tmp_path)

    def test_what_a_newer_skal_wrote_is_said_to_be(
        self, tiny: skal.ImageDataset, tmp_path: Path
    ) -> None:
        save_classifier(classifier(steps=1).fit(tiny.X, tiny.y), tmp_path)
        path = tmp_path / "model.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
        with pytest.raises(RunFolderError, match="format 99, written by a newer skal"):
            load_classifier(tmp_path)

    def test_an_unfitted_one_is_not_saved(self, tmp_path: Path) -> None:
        with pytest.raises(NotFittedError, match="only a fitted"):
            save_classifier(classifier(), tmp_path)
