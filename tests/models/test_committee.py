"""Networks trained on bootstrap samples, as a classifier of scikit-activeml."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import skactiveml.pool
from made_up import watched
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.utils import estimator_checks
from sklearn.utils.validation import check_is_fitted
from skorch.callbacks import Callback

import skal
from skal import Committee
from skal.core.errors import DataError, ParameterError
from skal.strategies import CommitteeVariance, MCDropoutBALD

LABELED = np.arange(24)


@pytest.fixture
def y(tiny: skal.ImageDataset) -> np.ndarray:
    return np.where(np.arange(90) < len(LABELED), tiny.y, -1)


def committee(n_members: Any = 3, random_state: int = 0, **params: Any) -> Committee:
    options = {"classes": [0, 1, 2], "steps": 5, "precision": "fp32", "random_state": 0, **params}
    return Committee(skal.ImageClassifier(**options), n_members, random_state=random_state)


class TestFit:
    def test_members_are_trained_on_bootstrap_samples_of_what_is_labelled(
        self, tiny: skal.ImageDataset, y: np.ndarray
    ) -> None:
        seen: list[tuple[np.ndarray, np.ndarray]] = []

        class Watch(Callback):  # type: ignore[misc]
            def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **_: Any) -> None:
                seen.append((X, y))

        committee(4, callbacks=[Watch()]).fit(tiny.X, y)
        assert len(seen) == 4
        index = {image.tobytes(): row for row, image in enumerate(tiny.X)}
        samples = []
        for X, labels in seen:
            rows = [index[image.tobytes()] for image in X]
            assert labels.tolist() == tiny.y[rows].tolist()
            assert len(rows) == len(LABELED)
            assert set(rows) < set(LABELED)  # with replacement: some are left out
            samples.append(tuple(rows))
        assert len(set(samples)) == 4

    def test_equal_seeds_give_equal_committees_and_others_do_not(
        self, tiny: skal.ImageDataset, y: np.ndarray
    ) -> None:
        first, again, other = (
            committee(random_state=seed).fit(tiny.X, y).sample_proba(tiny.X) for seed in (0, 0, 1)
        )
        assert np.array_equal(first, again)
        assert not np.allclose(first, other)

    def test_members_differ_and_the_classifier_stays_as_it_was(
        self, tiny: skal.ImageDataset, y: np.ndarray
    ) -> None:
        fitted = committee().fit(tiny.X, y)
        samples = fitted.sample_proba(tiny.X)
        for one, other in ((0, 1), (0, 2), (1, 2)):
            assert not np.allclose(samples[one], samples[other], atol=1e-3)
        assert not hasattr(fitted.classifier, "neural_net_")

    def test_members_differ_by_more_than_their_first_weights(
        self, tiny: skal.ImageDataset, y: np.ndarray
    ) -> None:
        # one image a class: a sample of three leaves a class out more often than not
        few = np.where(np.arange(90) < 3, tiny.y, -1)
        fitted = committee(8).fit(tiny.X, few)
        votes = fitted.sample_proba(tiny.X[:3]).argmax(axis=2)
        assert len({tuple(vote) for vote in votes}) > 2

    def test_without_a_label_members_stay_as_they_were_initialised(
        self, tiny: skal.ImageDataset
    ) -> None:
        samples = committee().fit(tiny.X, np.full(90, -1)).sample_proba(tiny.X[:5])
        np.testing.assert_allclose(samples.sum(axis=2), 1, atol=1e-5)

    def test_one_label_is_enough(self, tiny: skal.ImageDataset) -> None:
        one = np.where(np.arange(90) < 1, tiny.y, -1)
        assert committee().fit(tiny.X, one).predict(tiny.X).shape == (90,)

    @pytest.mark.parametrize("n_members", [1, 0, 2.5, True, "many"])
    def test_a_committee_has_two_members_at_least(
        self, tiny: skal.ImageDataset, y: np.ndarray, n_members: object
    ) -> None:
        with pytest.raises(ParameterError, match=r"n_members=.*a whole number from 2 on"):
            committee(n_members).fit(tiny.X, y)

    def test_weights_are_refused(self, tiny: skal.ImageDataset, y: np.ndarray) -> None:
        with pytest.raises(ParameterError, match="sample_weight"):
            committee().fit(tiny.X, y, np.ones(90))


class TestPredict:
    def test_it_predicts_by_the_mean_of_its_members(
        self, tiny: skal.ImageDataset, y: np.ndarray
    ) -> None:
        fitted = committee().fit(tiny.X, y)
        check_is_fitted(fitted)
        members = np.stack([member.predict_proba(tiny.X_test) for member in fitted.estimators_])
        samples = fitted.sample_proba(tiny.X_test)
        assert samples.dtype == np.float32
        np.testing.assert_allclose(samples, members, atol=1e-6)
        np.testing.assert_allclose(fitted.predict_proba(tiny.X_test), members.mean(0), atol=1e-6)
        assert fitted.predict(tiny.X_test).tolist() == members.mean(0).argmax(1).tolist()
        assert np.array_equal(fitted.sample_proba(tiny.X_test, 2), samples[:2])

    def test_more_members_than_there_are_cannot_be_asked_for(
        self, tiny: skal.ImageDataset, y: np.ndarray
    ) -> None:
        fitted = committee().fit(tiny.X, y)
        with pytest.raises(ParameterError, match="asked for 4 members; the committee has 3"):
            fitted.sample_proba(tiny.X, 4)

    def test_classes_are_answered_in_the_users_own_numbers(self, tiny: skal.ImageDataset) -> None:
        classifier = skal.ImageClassifier(classes=[3, 5, 9], steps=2, random_state=0)
        y = np.where(np.arange(90) < 12, np.array([3, 5, 9])[tiny.y], -1)
        fitted = Committee(classifier, 2, random_state=0).fit(tiny.X, y)
        assert fitted.classes_.tolist() == [3, 5, 9]
        assert set(fitted.predict(tiny.X)) <= {3, 5, 9}

    def test_it_can_be_cloned(self, tiny: skal.ImageDataset, y: np.ndarray) -> None:
        fitted = committee(n_members=2).fit(tiny.X, y)
        again = clone(fitted)
        assert again.n_members == 2
        assert not hasattr(again, "estimators_")
        assert np.array_equal(
            again.fit(tiny.X, y).predict_proba(tiny.X), fitted.predict_proba(tiny.X)
        )


class TestAsEstimator:
    """What scikit-learn asks of a classifier."""

    @pytest.mark.parametrize(
        "check",
        [
            "check_no_attributes_set_in_init",
            "check_get_params_invariance",
            "check_set_params",
            "check_estimator_repr",
            "check_estimator_cloneable",
            "check_mixin_order",
        ],
    )
    @pytest.mark.parametrize("kind", [Committee, skal.ImageClassifier])
    def test_parameters_are_as_scikit_learn_has_them(self, kind: type, check: str) -> None:
        made = committee() if kind is Committee else committee().classifier
        getattr(estimator_checks, check)(kind.__name__, made)

    def test_it_is_scored_and_validated(self, tiny: skal.ImageDataset, y: np.ndarray) -> None:
        fitted = committee(2, steps=30).fit(tiny.X, y)
        accuracy = (fitted.predict(tiny.X_test) == tiny.y_test).mean()
        assert fitted.score(tiny.X_test, tiny.y_test) == accuracy > 0.8
        scores = cross_val_score(committee(2, steps=30), tiny.X, tiny.y, cv=2, error_score="raise")
        assert scores.min() > 0.8

    def test_unfitted_it_says_so(self, tiny: skal.ImageDataset) -> None:
        for ask in ("predict", "predict_proba", "sample_proba"):
            with pytest.raises(NotFittedError, match=r"Committee is not fitted; call fit"):
                getattr(committee(), ask)(tiny.X)
        with pytest.raises(NotFittedError):
            committee().score(tiny.X, tiny.y)

    def test_classes_and_costs_are_those_of_its_classifier(
        self, tiny: skal.ImageDataset, y: np.ndarray
    ) -> None:
        plain = committee()
        assert plain.set_params(classifier__classes=[0, 1, 2, 3]).classes == [0, 1, 2, 3]
        assert plain.set_params(classifier=skal.ImageClassifier(classes=[0, 1])).classes == [0, 1]
        costs = np.array([[0, 9, 9], [0.1, 0, 9], [0.1, 9, 0]])
        careful = committee(cost_matrix=costs).fit(tiny.X, y)
        expected = (careful.predict_proba(tiny.X) @ costs).argmin(1)
        assert careful.predict(tiny.X).tolist() == expected.tolist()
        assert expected.tolist() != careful.predict_proba(tiny.X).argmax(1).tolist()

    def test_a_pickle_predicts_the_same(self, tiny: skal.ImageDataset, y: np.ndarray) -> None:
        fitted = committee(2).fit(tiny.X, y)
        copy = pickle.loads(pickle.dumps(fitted))
        assert np.array_equal(copy.predict_proba(tiny.X), fitted.predict_proba(tiny.X))

    def test_a_fit_that_fails_leaves_it_as_it_was(
        self, tiny: skal.ImageDataset, y: np.ndarray
    ) -> None:
        fitted = committee(2).fit(tiny.X, y)
        before = fitted.predict_proba(tiny.X_test)
        with pytest.raises(DataError, match="expected one of the classes"):
            fitted.fit(tiny.X, np.where(y == 2, 7, y))
        assert np.array_equal(fitted.predict_proba(tiny.X_test), before)

    def test_what_is_no_image_classifier_is_refused(self, tiny: skal.ImageDataset) -> None:
        with pytest.raises(ParameterError, match="expected an ImageClassifier"):
            Committee(DummyClassifier()).fit(tiny.X, tiny.y)


class TestWithScikitActiveml:
    def test_committee_variance_takes_it_for_a_classifier(
        self, tiny: skal.ImageDataset, y: np.ndarray
    ) -> None:
        query = CommitteeVariance(n_samples=3, random_state=0)
        picks, utilities = query.query(tiny.X, y, committee(), batch_size=5, return_utilities=True)
        samples = committee().fit(tiny.X, y).sample_proba(tiny.X).astype(float)
        expected = ((samples - samples.mean(0)) ** 2).mean(0).sum(1)
        np.testing.assert_allclose(utilities[0, 24:], expected[24:], atol=1e-6)
        assert picks.tolist() == (24 + np.argsort(-expected[24:])[:5]).tolist()

    def test_other_strategies_that_sample_take_it_too(
        self, tiny: skal.ImageDataset, y: np.ndarray
    ) -> None:
        fitted = committee(4).fit(tiny.X, y)
        query = MCDropoutBALD(n_samples=4, random_state=0)
        picks = query.query(tiny.X, y, fitted, fit_clf=False, batch_size=5)
        assert len(set(picks.tolist())) == 5
        assert (y[picks] == -1).all()

    @pytest.mark.parametrize("method", ["KL_divergence", "vote_entropy", "variation_ratios"])
    def test_query_by_committee_takes_it_for_an_ensemble(
        self, tiny: skal.ImageDataset, y: np.ndarray, method: str
    ) -> None:
        query = skactiveml.pool.QueryByCommittee(
            method=method,
            sample_predictions_method_name="sample_proba",
            missing_label=-1,
            random_state=0,
        )
        picks = query.query(tiny.X, y, ensemble=committee(), batch_size=5)
        assert len(set(picks.tolist())) == 5
        assert (y[picks] == -1).all()
        again = query.query(tiny.X, y, ensemble=committee(), batch_size=5)
        assert picks.tolist() == again.tolist()

    def test_a_committee_smaller_than_asked_for_is_named(
        self, tiny: skal.ImageDataset, y: np.ndarray
    ) -> None:
        with pytest.raises(ParameterError, match="asked for 5 members; the committee has 3"):
            CommitteeVariance().query(tiny.X, y, committee(), batch_size=2)


@pytest.mark.parametrize("name", ["committee-variance", "query-by-committee"])
def test_a_run_trains_as_many_networks_as_asked_for_in_each_round(
    tiny: skal.ImageDataset, name: str
) -> None:
    settings = {"n_init": 6, "n_query": 5, "n_rounds": 1, "steps": 2}

    def n_trained(n_samples: int | None) -> int:
        params: dict[str, Any] = {} if n_samples is None else {"n_samples": n_samples}
        if name == "query-by-committee" and params:
            params = {"sample_predictions_dict": params}
        trained: list[int] = []

        def tell(n: int, training: bool) -> float:
            if training:
                trained.append(n)
            return 1.0

        with watched(tell) as model:
            skal.run(tiny, name, model=model, strategy_params=params, **settings)
        return len(trained) // settings["steps"]

    assert n_trained(None) == 2 + 5  # the networks of two rounds, and the members for one query
    assert n_trained(3) == 2 + 3
