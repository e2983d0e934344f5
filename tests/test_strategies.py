"""What is picked, against computations of its own."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
import skactiveml.pool
from skactiveml.base import SingleAnnotatorPoolQueryStrategy
from skactiveml.classifier import ParzenWindowClassifier, SklearnClassifier
from skactiveml.pool import SubSamplingWrapper
from sklearn.naive_bayes import GaussianNB

import skal
from skal.errors import ParameterError, SkalError, UnknownNameError
from skal.scoring import ScoredClassifier, Scores
from skal.strategies import (
    STRATEGIES,
    Badge,
    MCDropoutBALD,
    ScoreStrategy,
    check_strategy_works,
    resolve_strategy,
    select,
)
from skal.strategies.badge import kmeanspp_gradients
from skal.strategies.bald import mutual_information
from skal.testing import N_IMAGES, check_strategy, example_scores

INDEX = np.arange(N_IMAGES)[:, None]
NONE_LABELED = np.full(N_IMAGES, -1)


def gradients(scores: Scores) -> np.ndarray:
    """The gradient embeddings, spelt out: (n, C * D)."""
    error = scores.proba.astype(float) - np.eye(3)[scores.proba.argmax(1)]
    return np.einsum("nc,nd->ncd", error, scores.embeddings.astype(float)).reshape(N_IMAGES, -1)


def ask(strategy: object, **params: object) -> np.ndarray:
    scores = params.pop("scores", example_scores())
    n = params.pop("n", 8)
    y = params.pop("y", NONE_LABELED)
    seed = params.pop("seed", 0)
    chosen = resolve_strategy(strategy, params)
    return select(chosen, y, n, scores=scores, n_classes=3, seed=seed)


class TestUncertainty:
    def test_picks_are_those_of_the_formulas(self) -> None:
        proba = np.sort(example_scores().proba.astype(float), axis=1)
        utilities = {
            "least-confidence": 1 - proba[:, -1],
            "margin": proba[:, -2] - proba[:, -1],
            "entropy": -(proba * np.log(proba)).sum(1),
        }
        for name, utility in utilities.items():
            assert ask(name).tolist() == np.argsort(-utility)[:8].tolist(), name


class TestBadge:
    def test_the_first_pick_is_the_longest_gradient(self) -> None:
        assert ask("badge", n=3)[0] == np.linalg.norm(gradients(example_scores()), axis=1).argmax()

    def test_later_picks_are_drawn_by_the_squared_distance_to_the_nearest(self) -> None:
        scores, g = example_scores(), gradients(example_scores())
        weights = np.empty((6, N_IMAGES))
        rng = np.random.RandomState(0)
        picks = kmeanspp_gradients(scores.proba, scores.embeddings, 6, rng, weights)
        for number in range(1, 6):
            squared = ((g[:, None] - g[picks[:number]]) ** 2).sum(2).min(1)
            expected = squared / squared.sum()
            expected[picks[:number]] = np.nan
            np.testing.assert_allclose(weights[number], expected, atol=1e-6)

    def test_draws_follow_those_weights(self) -> None:
        scores, g = example_scores(), gradients(example_scores())
        first = np.linalg.norm(g, axis=1).argmax()
        squared = ((g - g[first]) ** 2).sum(1)
        second = [
            kmeanspp_gradients(scores.proba, scores.embeddings, 2, np.random.RandomState(seed))[1]
            for seed in range(4000)
        ]
        seen = np.bincount(second, minlength=N_IMAGES) / 4000
        np.testing.assert_allclose(seen, squared / squared.sum(), atol=0.025)

    def test_the_first_draw_agrees_with_scikit_activemls(self) -> None:
        # its further ones do not: there the origin stays a centre
        scores = example_scores()
        params = {"clf_embedding_flag_name": {"extra_outputs": "emb"}, "missing_label": -1}
        given = {"clf": ScoredClassifier(scores), "fit_clf": False, "return_utilities": True}
        ours, our_utilities = Badge(**params).query(INDEX, NONE_LABELED, **given)
        theirs, their_utilities = skactiveml.pool.Badge(**params).query(
            INDEX, NONE_LABELED, **given
        )
        assert ours.tolist() == list(theirs)
        np.testing.assert_allclose(our_utilities, their_utilities, atol=1e-6)

    def test_images_that_coincide_are_drawn_evenly_and_once(self) -> None:
        scores = example_scores(ties=True)
        picks = [tuple(ask("badge", scores=scores, seed=seed)) for seed in range(200)]
        assert all(len(set(batch)) == 8 for batch in picks)
        assert len({batch[1] for batch in picks}) > 40

    def test_certain_predictions_have_no_gradient_and_still_make_a_batch(self) -> None:
        proba = np.eye(3, dtype=np.float32)[np.arange(N_IMAGES) % 3]
        scores = Scores(np.arange(3), proba, example_scores().embeddings)
        assert len(set(ask("badge", scores=scores, n=20).tolist())) == 20

    def test_it_takes_the_place_of_scikit_activemls_with_any_classifier(self) -> None:
        rng = np.random.default_rng(0)
        X, y = rng.normal(size=(40, 2)), np.full(40, -1)
        y[:6] = [0, 1, 2, 0, 1, 2]
        classifier = ParzenWindowClassifier(classes=[0, 1, 2], missing_label=-1)
        query = Badge(random_state=0)
        picks = query.query(X, y, classifier, batch_size=5)
        assert len(set(picks.tolist())) == 5
        assert (y[picks] == -1).all()
        wrapped = SubSamplingWrapper(query, max_candidates=10, missing_label=-1, random_state=0)
        picks = wrapped.query(X, y, batch_size=3, clf=classifier)
        assert len(set(np.asarray(picks).tolist())) == 3
        labelled = query.query(X, y, classifier, candidates=[0, 1, 7, 9], batch_size=2)
        assert set(labelled.tolist()) == {7, 9}


class TestBald:
    def test_utilities_are_the_mutual_information(self) -> None:
        samples = example_scores().mc_proba.astype(float)
        expected = []
        for image in range(N_IMAGES):
            mean = samples[:, image].mean(0)
            within = np.mean([-(p * np.log(p)).sum() for p in samples[:, image]])
            expected.append(-(mean * np.log(mean)).sum() - within)
        np.testing.assert_allclose(mutual_information(samples), expected, atol=1e-9)
        assert ask("bald").tolist() == np.argsort(expected)[::-1][:8].tolist()

    def test_certain_and_agreeing_networks_give_no_information(self) -> None:
        samples = np.zeros((5, 4, 3))
        samples[..., 1] = 1
        np.testing.assert_allclose(mutual_information(samples), 0, atol=1e-12)
        disagreeing = np.eye(2)[np.array([0, 1])][:, None]
        np.testing.assert_allclose(mutual_information(disagreeing), np.log(2), atol=1e-12)

    def test_it_agrees_with_scikit_activemls_greedy_bald(self) -> None:
        theirs = ask("skactiveml.pool:GreedyBALD", n=15)
        assert theirs.tolist() == ask("bald", n=15).tolist()

    def test_ties_fall_at_random(self) -> None:
        scores = example_scores(ties=True)
        assert len({int(ask("bald", scores=scores, n=1, seed=s)[0]) for s in range(200)}) > 40

    def test_it_works_with_any_classifier_that_samples(self) -> None:
        class Sampling(ParzenWindowClassifier):  # type: ignore[misc]
            def sample_proba(self, X: np.ndarray, n_samples: int) -> np.ndarray:
                return np.random.default_rng(0).dirichlet(np.ones(3), (n_samples, len(X)))

        X, y = np.random.default_rng(0).normal(size=(40, 2)), np.full(40, -1)
        y[:3] = [0, 1, 2]
        query = MCDropoutBALD(n_samples=7, random_state=0)
        picks = query.query(X, y, Sampling(classes=[0, 1, 2], missing_label=-1), batch_size=4)
        assert len(set(picks.tolist())) == 4

    def test_it_says_what_the_classifier_lacks(self) -> None:
        with pytest.raises(TypeError, match="has no sample_proba"):
            MCDropoutBALD().query(
                INDEX, NONE_LABELED, SklearnClassifier(GaussianNB(), [0, 1], missing_label=-1)
            )


class TestSelect:
    def test_what_is_left_is_taken_when_more_is_asked(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        y = np.zeros(N_IMAGES, int)
        y[[3, 8, 9]] = -1
        assert ask("badge", y=y, n=5).tolist() == [3, 8, 9]
        assert "only 3 are left" in caplog.text

    def test_parameters_reach_the_strategy_and_wrong_ones_are_named(self) -> None:
        assert resolve_strategy("bald", {"n_samples": 7}).n_samples == 7
        with pytest.raises(UnknownNameError, match="n_sample'; did you mean n_samples"):
            resolve_strategy("bald", {"n_sample": 7})
        with pytest.raises(SkalError, match=r"strategy margin failed: .*methd") as caught:
            ask("margin", method="methd")
        assert caught.value.exit_code == 1

    @pytest.mark.parametrize("wrong", ["abc", 0, 1, 2.5, None])
    def test_a_wrong_number_of_samples_is_found_at_once(self, wrong: object) -> None:
        with pytest.raises(ParameterError, match=r"n_samples=.*expected a whole number, 2 or more"):
            resolve_strategy("bald", {"n_samples": wrong})
        inner = {"sample_predictions_dict": {"n_samples": wrong}}
        with pytest.raises(ParameterError, match="expected a whole number, 2 or more"):
            resolve_strategy("skactiveml.pool:GreedyBALD", inner)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("bagde", "unknown strategy 'bagde'; did you mean badge"),
            ("skactiveml.pool:Falcn", "did you mean Falcun"),
            ("no.such.module:Thing", "cannot import 'no.such.module:Thing'"),
            ("skactiveml.pool:uncertainty_scores", "is not a query strategy"),
            ("skactiveml.pool:ExpectedModelChangeMaximization", "cannot be used in this loop"),
        ],
    )
    def test_names_that_cannot_be_used_are_explained(self, name: str, message: str) -> None:
        with pytest.raises(SkalError, match=message):
            resolve_strategy(name)

    def test_an_instance_brings_its_parameters(self) -> None:
        chosen = resolve_strategy(MCDropoutBALD(n_samples=5, random_state=3))
        assert dict(chosen.given) == {"n_samples": 5}
        assert chosen.n_samples == 5
        assert not chosen.needs_embeddings
        assert resolve_strategy(Badge).params == resolve_strategy("badge").params

    @pytest.mark.parametrize(
        ("answer", "message"),
        [
            ([1, 1, 2], "picked 1 of 3 images more than once"),
            ([1, 2], r"returned int64 of shape \(2,\)"),
            ([0, 1, 2], "labelled already"),
            ([1, 2, 99], "not in 0 to 59"),
            ([0.5, 1, 2], "returned float64"),
        ],
    )
    def test_a_strategy_that_breaks_its_promise_is_caught(
        self, answer: list[float], message: str
    ) -> None:
        class Broken(SingleAnnotatorPoolQueryStrategy):  # type: ignore[misc]
            def query(self, X: object, y: object, **kwargs: object) -> np.ndarray:
                return np.array(answer)

        y = NONE_LABELED.copy()
        y[0] = 1
        with pytest.raises(SkalError, match=message):
            ask(Broken, y=y, n=3)


class TestTryingOut:
    @pytest.mark.parametrize("n_classes", [1, 2, 10, 200])
    @pytest.mark.parametrize("name", STRATEGIES.names())
    def test_every_strategy_works(self, name: str, n_classes: int) -> None:
        check_strategy_works(resolve_strategy(name), n_classes)

    def test_wrong_parameters_are_found_before_anything_is_trained(self) -> None:
        wrong = "margin does not work with these parameters: .*methd"
        with pytest.raises(ParameterError, match=wrong):
            check_strategy_works(resolve_strategy("margin", {"method": "methd"}), 3)

    def test_parameters_that_go_by_the_classes_are_taken(self) -> None:
        costs = {"method": "least_confident", "cost_matrix": 1 - np.eye(10)}
        check_strategy_works(resolve_strategy("skactiveml.pool:UncertaintySampling", costs), 10)

    def test_warnings_of_made_up_scores_are_not_shown(self) -> None:
        class Warning_(ScoreStrategy):
            def score(self, scores: Scores) -> np.ndarray:
                warnings.warn("few images", stacklevel=1)
                return scores.proba[:, 1]

        check_strategy_works(resolve_strategy(Warning_), 3)


class Images(ParzenWindowClassifier):  # type: ignore[misc]
    """A classifier of images that tells no embeddings."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> Images:
        return super().fit(np.reshape(X, (len(X), -1)), y)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        return super().predict_proba(np.reshape(X, (len(X), -1)))


class TestOnImages:
    def test_badge_asks_for_embeddings_without_being_told(self, tiny: skal.ImageDataset) -> None:
        y = np.where(np.arange(90) < 30, tiny.y, -1)
        fitted = skal.ImageClassifier(classes=[0, 1, 2], steps=5, random_state=0).fit(tiny.X, y)
        told = Badge({"extra_outputs": "emb"}, random_state=0)
        expected = told.query(tiny.X, y, fitted, fit_clf=False, batch_size=8)
        picks = Badge(random_state=0).query(tiny.X, y, fitted, fit_clf=False, batch_size=8)
        assert picks.tolist() == expected.tolist()

    def test_badge_takes_no_raw_images_for_embeddings(self, tiny: skal.ImageDataset) -> None:
        y = np.where(np.arange(90) < 30, tiny.y, -1)
        clf = Images(classes=[0, 1, 2], missing_label=-1)
        with pytest.raises(ParameterError, match=r"Images.predict_proba does not return"):
            Badge().query(tiny.X, y, clf)

    def test_weights_that_the_classifier_does_not_take_are_refused(
        self, tiny: skal.ImageDataset
    ) -> None:
        y = np.where(np.arange(90) < 30, tiny.y, -1)
        clf = skal.ImageClassifier(classes=[0, 1, 2], steps=1)
        with pytest.raises(ParameterError, match=r"ImageClassifier.fit takes none"):
            Badge().query(tiny.X, y, clf, sample_weight=np.ones(90))

    @pytest.mark.parametrize("query", [Badge(), MCDropoutBALD()])
    @pytest.mark.filterwarnings("ignore:.*batch_size")  # scikit-activeml's own, of a lesser batch
    def test_a_pool_without_candidates_gives_an_empty_batch(
        self, tiny: skal.ImageDataset, query: skal.strategies.BatchStrategy
    ) -> None:
        clf = skal.ImageClassifier(classes=[0, 1, 2], steps=1)
        for candidates in (None, [0, 1]):
            picks, utilities = query.query(
                tiny.X, tiny.y, clf, candidates=candidates, return_utilities=True
            )
            assert picks.shape == (0,)
            assert utilities.shape == (0, 90)


@pytest.mark.parametrize(
    ("name", "spoilt"), [("badge", "proba"), ("badge", "embeddings"), ("bald", "mc_proba")]
)
def test_a_network_that_diverged_is_named(name: str, spoilt: str) -> None:
    scores = example_scores()
    values = getattr(scores, spoilt).copy()
    values[..., 20, 0] = np.nan
    with pytest.raises(SkalError, match=f"the {spoilt} that .* are no numbers.*diverged"):
        ask(name, scores=dataclasses.replace(scores, **{spoilt: values}))


NAMED_BY_PATH = [
    "ProbabilisticAL", "UncertaintySampling", "QueryByCommittee", "Quire", "FourDs",
    "CostEmbeddingAL", "DiscriminativeAL", "BatchBALD", "GreedyBALD", "Clue", "DropQuery",
    "CoreSet", "TypiClust", "Badge", "ProbCover", "ContrastiveAL", "Falcun", "MaxHerding",
    "RandomSampling", "GreedySamplingX",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMED_BY_PATH)
@pytest.mark.filterwarnings("ignore::Warning")  # theirs, of clusters that stay empty and the like
def test_scikit_activemls_classes_work_by_import_path(name: str) -> None:
    y = NONE_LABELED.copy()
    y[:9] = np.arange(9) % 3
    path = f"skactiveml.pool:{name}"
    picks = ask(path, y=y, n=4)
    assert len(set(picks.tolist())) == 4
    assert picks.tolist() == ask(path, y=y, n=4).tolist()
    check_strategy_works(resolve_strategy(path), 3)


def test_a_plugin_of_few_lines_passes_the_checks() -> None:
    @STRATEGIES.register("test-plugin", needs="scores", summary="the probability of class 1")
    class Plugin(ScoreStrategy):
        def score(self, scores: Scores) -> np.ndarray:
            return scores.proba[:, 1]

    try:
        check_strategy("test-plugin")
        assert "test-plugin" in STRATEGIES
        assert ask("test-plugin").tolist() == np.argsort(-example_scores().proba[:, 1])[:8].tolist()
    finally:
        STRATEGIES.remove("test-plugin")
    assert "test-plugin" not in STRATEGIES
    assert skal.STRATEGIES is STRATEGIES
