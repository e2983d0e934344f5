"""Checks for authors of datasets, models and strategies. Each raises an AssertionError."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skactiveml.base import SingleAnnotatorPoolQueryStrategy
from skactiveml.pool import SubSamplingWrapper
from sklearn.base import clone

from .core.text import counted
from .datasets import MISSING_LABEL, ImageDataset
from .models import build_network
from .models.classifier import ImageClassifier
from .models.network import ImageModule
from .strategies.resolve import Strategy, resolve_strategy
from .strategies.scores import ScoredClassifier, Scores, example_scores
from .strategies.selection import select
from .strategies.trial import made_up_scores

__all__ = ["check_classifier", "check_dataset", "check_model", "check_strategy", "example_scores"]

N_IMAGES, N_CLASSES = 60, 3  # as in `example_scores`
LABELED = slice(0, 12)
IMAGES_AT_ONCE = 256


def check_dataset(data: ImageDataset) -> None:
    """Check that a dataset meets skal's requirements.

    Parameters
    ----------
    data : ImageDataset
        The dataset; its constructor has already checked shapes, dtypes and label ranges.

    Raises
    ------
    AssertionError
        If a check fails.
    """
    assert len(data.X), "X has no images"
    assert len(data.classes) >= 2, (
        f"{counted(len(data.classes), 'class', 'classes')}; expected at least 2"
    )
    assert len(set(data.classes)) == len(data.classes), "class names are not unique"
    assert data.X.shape[1] in (1, 3), f"{data.X.shape[1]} channels; expected 1 or 3"
    assert data.X.shape[2] == data.X.shape[3], "the images are not square"
    starts = range(0, len(data.X), IMAGES_AT_ONCE)
    parts = [np.unique(data.X[k : k + IMAGES_AT_ONCE]) for k in starts]
    assert len(np.unique(np.concatenate(parts))) > 1, "all pixels are equal"
    assert len(data.X_test), "X_test has no images"
    missing = set(range(len(data.classes))) - set(np.unique(data.y).tolist())
    assert not missing, f"X has no images of the classes {sorted(missing)}"
    first = {image.tobytes() for image in data.X[:256]}
    assert first.isdisjoint(image.tobytes() for image in data.X_test) or len(first) < 2, (
        "a test image is also in X"
    )


def check_model(
    name: str, *, image_sizes: tuple[int, ...] = (8, 28, 64), channels: tuple[int, ...] = (1, 3)
) -> None:
    """Check that a registered model meets the requirements of `ImageClassifier`.

    Parameters
    ----------
    name : str
        Its name in `MODELS`.
    image_sizes : tuple of int
        Heights and widths to test, in pixels.
    channels : tuple of int
        Numbers of channels to test.

    Raises
    ------
    AssertionError
        If a check fails.
    """
    options: dict[str, Any] = {"n_classes": N_CLASSES, "dropout": 0.25}
    generator = torch.Generator().manual_seed(0)
    for size in image_sizes:
        for n_channels in channels:
            module = ImageModule(
                name, (), False, in_channels=n_channels, image_size=size, **options
            )
            shape = (4, n_channels, size, size)
            images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
            logits, embeddings = module.train()(images)
            assert logits.shape == (4, N_CLASSES), f"logits of shape {tuple(logits.shape)}"
            assert embeddings.ndim == 2, f"embeddings of shape {tuple(embeddings.shape)}"
            logits.sum().backward()
            idle = [n for n, p in module.named_parameters() if p.requires_grad and p.grad is None]
            assert not idle, f"no gradient reaches {idle}"
            again = module.eval()(images)[0]
            assert torch.equal(again, module(images)[0]), "two forward passes in eval mode differ"
            one = module(images[:1])[0]
            assert torch.allclose(one, again[:1], atol=1e-4), "logits depend on the batch"
    network = build_network(name, in_channels=channels[0], image_size=image_sizes[-1], **options)
    dropouts = [layer for layer in network.modules() if "Dropout" in type(layer).__name__]
    assert dropouts, "the network has no dropout layer, which Monte Carlo dropout needs"


def check_classifier(classifier: ImageClassifier, data: ImageDataset) -> None:
    """Check that a classifier follows the conventions of scikit-learn and scikit-activeml.

    Parameters
    ----------
    classifier : ImageClassifier
        An unfitted classifier with the classes of `data`.
    data : ImageDataset
        A few small images.

    Raises
    ------
    AssertionError
        If a check fails.
    """
    y = np.where(np.arange(len(data.y)) < 12, data.y, MISSING_LABEL)
    fitted = clone(classifier).fit(data.X, y)
    proba = fitted.predict_proba(data.X_test)
    assert proba.shape == (len(data.X_test), len(data.classes)), f"shape {proba.shape}"
    assert proba.dtype == np.float32, f"{proba.dtype}; expected float32"
    assert np.allclose(proba.sum(axis=1), 1, atol=1e-5), "probabilities do not sum to 1"
    _, embeddings = fitted.predict_proba(data.X_test, extra_outputs="emb")
    assert embeddings.shape[0] == len(data.X_test), f"embeddings of shape {embeddings.shape}"
    assert np.array_equal(fitted.predict(data.X_test), fitted.classes_[proba.argmax(axis=1)])
    samples = fitted.sample_proba(data.X_test, 3)
    assert samples.shape == (3, *proba.shape), f"samples of shape {samples.shape}"
    assert np.array_equal(fitted.predict_proba(data.X_test), proba), "sampling left a trace"
    again = clone(classifier).fit(data.X, y).predict_proba(data.X_test)
    assert np.array_equal(again, proba), "equal seeds gave different networks"


def check_strategy(strategy: str | type, params: Mapping[str, Any] | None = None) -> None:
    """Check that a query strategy meets the requirements of skal and scikit-activeml.

    The strategy gets made-up scores with exactly what a run would provide. Its picks must be
    unlabelled, unique, and of the requested number: with distinct and with tied scores, with
    several, one or no classes labelled, and from pools smaller than the batch. Equal seeds must
    give equal picks; different seeds must break ties differently. For skal's own classes and
    others that take a `clf`, the interface of scikit-activeml is also checked: candidates as
    indices, as rows or omitted, utilities, `clone`, and `SubSamplingWrapper`.

    Parameters
    ----------
    strategy : str or class
        As for `skal.run`.
    params : mapping, optional
        Arguments of its constructor.

    Raises
    ------
    AssertionError
        If a check fails.
    SkalError
        If `select` rejects its picks.
    """
    chosen = resolve_strategy(strategy, params)
    differing, tied = (made_up_scores(chosen, ties) for ties in (False, True))
    for scores in (differing, tied):
        for y in (_labels(), _labels(n_classes=1), np.full(N_IMAGES, MISSING_LABEL)):
            for n in (1, 7, N_IMAGES - LABELED.stop, N_IMAGES):
                picks = _select(chosen, scores, n, seed=1, y=y)
                again = _select(chosen, scores, n, seed=1, y=y)
                assert np.array_equal(picks, again), "equal seeds gave different picks"
    drawn = {tuple(_select(chosen, tied, 3, seed=seed)) for seed in range(8)}
    assert len(drawn) > 1, "different seeds gave the same picks among tied images"
    takes_scores = chosen.needs in ("scores", "samples", "committee")
    if chosen.reads is not None or (takes_scores and chosen.facts.get("model", "clf") == "clf"):
        _check_interface(chosen, differing)


def _labels(n_classes: int = N_CLASSES) -> NDArray[np.int64]:
    y = np.full(N_IMAGES, MISSING_LABEL, dtype=np.int64)
    y[LABELED] = np.arange(LABELED.stop) % n_classes
    return y


def _select(
    chosen: Strategy, scores: Scores, n: int, seed: int, y: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    y = _labels() if y is None else y
    n = min(n, int((y == MISSING_LABEL).sum()))  # a larger n would log a notice
    return select(chosen, y, n, scores=scores, seed=seed)


def _check_interface(chosen: Strategy, scores: Scores) -> None:
    """Check `query` as users of scikit-activeml call it."""
    X, y = np.arange(N_IMAGES)[:, None], _labels()
    query: SingleAnnotatorPoolQueryStrategy = clone(chosen.make(0))
    asked = {"clf": ScoredClassifier(scores), "fit_clf": False, "return_utilities": True}
    wrapped = SubSamplingWrapper(
        query, max_candidates=20, missing_label=MISSING_LABEL, random_state=0
    )
    picks, _ = wrapped.query(X, y, batch_size=5, **asked)
    assert len(set(np.asarray(picks).tolist())) == 5, "a wrapper was given a sample twice"
    open_ = np.flatnonzero(y == MISSING_LABEL)[::2]
    for candidates, columns in ((None, N_IMAGES), (open_, N_IMAGES), (X[open_], len(open_))):
        picks, utilities = query.query(X, y, candidates=candidates, batch_size=5, **asked)
        assert len(set(np.asarray(picks).tolist())) == 5, "a sample was picked twice"
        assert utilities.shape == (5, columns), f"utilities of shape {utilities.shape}"
        if candidates is None:
            allowed = np.flatnonzero(y == MISSING_LABEL)
        elif columns == N_IMAGES:
            allowed = open_
        else:
            allowed = np.arange(columns)
        assert set(picks) <= set(allowed.tolist()), "a picked sample is not a candidate"
        for number in range(len(picks)):
            assert np.isnan(utilities[number, picks[:number]]).all(), "a pick kept its utility"
            left = np.setdiff1d(allowed, picks[:number])
            assert np.isfinite(utilities[number, left]).all(), "a candidate has no utility"
        if columns == N_IMAGES:
            outside = np.setdiff1d(np.arange(N_IMAGES), allowed)
            assert np.isnan(utilities[:, outside]).all(), "a non-candidate has a utility"
