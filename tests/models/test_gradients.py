"""The expected gradient length of all weights, against autograd one image and class at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import skal
from skal.models import inference
from skal.models.inference import NotFittedError
from skal.strategies import ExpectedGradientLength, resolve_strategy
from skal.testing import example_scores


def classifier(model: str = "lenet", **params: object) -> skal.ImageClassifier:
    options = {"classes": [0, 1, 2], "steps": 5, "precision": "fp32", "random_state": 0}
    return skal.ImageClassifier(model, **{**options, **params})


def fit(tiny: skal.ImageDataset, model: str = "lenet", **params: object) -> skal.ImageClassifier:
    return classifier(model, **params).fit(tiny.X, np.where(np.arange(90) < 12, tiny.y, -1))


def spelt_out(fitted: skal.ImageClassifier, X: np.ndarray) -> np.ndarray:
    """Return the expected length by a backward pass for each image and class."""
    module = fitted.neural_net_.module_.eval()
    weights = [p for p in module.parameters() if p.requires_grad]
    expected = []
    for image in X:
        logits, _ = module(torch.from_numpy(image[None]))
        proba = logits.detach().softmax(-1)[0].double()
        total = 0.0
        for label in range(logits.shape[1]):
            loss = F.cross_entropy(logits, torch.tensor([label]))
            found = torch.autograd.grad(loss, weights, retain_graph=True)
            squared = sum(float(g.double().square().sum()) for g in found)
            total += float(proba[label]) * squared**0.5
        expected.append(total)
    return np.array(expected)


@pytest.mark.parametrize("model", ["small-cnn", "lenet"])
def test_lengths_are_those_of_single_backward_passes(tiny: skal.ImageDataset, model: str) -> None:
    fitted = fit(tiny, model, steps=2)
    X = tiny.X[:4]
    lengths = fitted.expected_gradient_length(X)
    assert fitted.expected_gradient_length(X[:0]).shape == (0,)
    assert lengths.shape == (4,)
    assert lengths.dtype == np.float32
    np.testing.assert_allclose(lengths, spelt_out(fitted, X), rtol=2e-3)


def test_a_temperature_counts(tiny: skal.ImageDataset) -> None:
    fitted = fit(tiny)
    before = fitted.expected_gradient_length(tiny.X[:6])
    fitted.neural_net_.module_.temperature.fill_(3.0)
    after = fitted.expected_gradient_length(tiny.X[:6])
    np.testing.assert_allclose(after, spelt_out(fitted, tiny.X[:6]), rtol=1e-3)
    assert not np.allclose(before, after, rtol=0.05)


def test_an_images_length_does_not_depend_on_the_others(
    tiny: skal.ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted = fit(tiny)
    together = fitted.expected_gradient_length(tiny.X[:10])
    n_weights = sum(p.numel() for p in fitted.neural_net_.module_.parameters())
    # three images' gradients fit into memory at a time
    monkeypatch.setattr(inference, "NUMBERS_AT_ONCE", 3 * n_weights)
    np.testing.assert_allclose(fitted.expected_gradient_length(tiny.X[:10]), together, rtol=1e-4)
    np.testing.assert_allclose(fitted.expected_gradient_length(tiny.X[4:5]), together[4], rtol=1e-4)


def test_it_leaves_the_network_as_it_was(tiny: skal.ImageDataset) -> None:
    fitted = fit(tiny, "small-cnn")
    before = fitted.predict_proba(tiny.X_test)
    state = {name: t.clone() for name, t in fitted.neural_net_.module_.state_dict().items()}
    fitted.expected_gradient_length(tiny.X)
    assert np.array_equal(fitted.predict_proba(tiny.X_test), before)
    for name, tensor in fitted.neural_net_.module_.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_a_certain_prediction_has_next_to_no_gradient(tiny: skal.ImageDataset) -> None:
    fitted = fit(tiny)
    unsure = fitted.expected_gradient_length(tiny.X[:5])
    fitted.neural_net_.module_.temperature.fill_(1e-4)
    sure = fitted.expected_gradient_length(tiny.X[:5])
    assert np.isfinite(sure).all()
    assert (sure < 1e-3 * unsure).all()


def test_an_unfitted_classifier_says_so(tiny: skal.ImageDataset) -> None:
    with pytest.raises(NotFittedError, match="is not fitted"):
        classifier().expected_gradient_length(tiny.X)


class TestAsAStrategy:
    def test_of_all_layers_the_longest_expected_gradients_are_picked(
        self, tiny: skal.ImageDataset
    ) -> None:
        fitted = fit(tiny)
        y = np.where(np.arange(90) < 12, tiny.y, -1)
        query = ExpectedGradientLength(layers="all", random_state=0)
        picks = query.query(tiny.X, y, fitted, fit_clf=False, batch_size=5)
        lengths = fitted.expected_gradient_length(tiny.X)[12:]
        assert picks.tolist() == (12 + np.argsort(-lengths)[:5]).tolist()

    def test_a_run_picks_by_all_layers(self, tiny: skal.ImageDataset) -> None:
        settings = {"n_init": 6, "n_query": 5, "n_rounds": 1, "steps": 3, "precision": "fp32"}
        run, again, last = (
            skal.run(tiny, "expected-gradient-length", strategy_params=params, **settings)
            for params in ({"layers": "all"}, {"layers": "all"}, {})
        )
        picked = [[row["index"] for row in found.queries] for found in (run, again, last)]
        assert picked[0] == picked[1]
        assert picked[0][:6] == picked[2][:6]
        # the network of round 0 is that of a run that ends there
        first = skal.run(tiny, "random", **{**settings, "n_rounds": 0}).classifier
        left = np.setdiff1d(np.arange(90), picked[0][:6])
        lengths = first.expected_gradient_length(tiny.X[left])
        assert picked[0][6:] == left[np.argsort(-lengths)[:5]].tolist()

    def test_gradients_of_all_layers_are_computed_only_when_asked_for(self) -> None:
        of_all = resolve_strategy("expected-gradient-length", {"layers": "all"})
        assert of_all.request.gradient_length
        assert not resolve_strategy("expected-gradient-length").request.gradient_length
        assert not resolve_strategy("badge").request.gradient_length

    def test_a_classifier_without_gradients_is_named(self) -> None:
        from skactiveml.classifier import ParzenWindowClassifier

        X = example_scores().embeddings
        query = ExpectedGradientLength(layers="all")
        clf = ParzenWindowClassifier(classes=[0, 1, 2], missing_label=-1)
        with pytest.raises(TypeError, match=r"expected_gradient_length.*got Parzen"):
            query.query(X, np.full(60, -1), clf)
