"""A strategy chooses among as many images as the free memory allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import skactiveml.pool
from asking import ask, labels

import skal
from skal.core.errors import SkalError
from skal.datasets.pool import Pool
from skal.runs.acquisition import Choice
from skal.strategies import STRATEGIES, memory, resolve_strategy
from skal.strategies.cold_start import ColdStart
from skal.strategies.memory import Sizes, bytes_needed, within_reach
from skal.testing import example_scores


class TestMemory:
    """`skactiveml.pool:ProbCover` takes memory by the square of the images."""

    NAME = "skactiveml.pool:ProbCover"

    @pytest.fixture
    def limit(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
        def set_to(n_bytes: float) -> None:
            monkeypatch.setattr(memory, "available_memory", lambda device: int(n_bytes))
            monkeypatch.setattr(memory, "UNASKED", 0)

        return set_to

    def needed(self, n: int, n_features: int = 8, scored: bool = True) -> float:
        terms = resolve_strategy(self.NAME).memory(scored=scored)
        return bytes_needed(terms, {"n": n, "b": 5, "C": 3, "D": n_features, "T": 0})

    def test_with_enough_of_it_all_images_are_seen(
        self, limit: Callable[[float], None], caplog: pytest.LogCaptureFixture
    ) -> None:
        expected = ask(self.NAME, y=labels(), n=5)
        limit(1.3 * self.needed(60))
        assert ask(self.NAME, y=labels(), n=5).tolist() == expected.tolist()
        assert caplog.text == ""

    def test_with_little_of_it_a_subset_is_seen_and_a_warning_says_so(
        self, limit: Callable[[float], None], caplog: pytest.LogCaptureFixture
    ) -> None:
        free = 1.3 * self.needed(40)  # of which a part is left to others
        limit(free)
        seen = []
        query = skactiveml.pool.ProbCover.query

        def watched(self: object, X: np.ndarray, y: np.ndarray, **options: object) -> object:
            seen.append((len(X), int((y == -1).sum())))
            return query(self, X, y, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(skactiveml.pool.ProbCover, "query", watched)
            picks = ask(self.NAME, y=labels(), n=5)
        ((n_rows, n_candidates),) = seen
        assert n_rows == n_candidates + 9  # what is labelled is always seen
        assert self.needed(n_rows) <= 0.8 * free < self.needed(60)
        assert n_rows > 35
        assert len(set(picks.tolist())) == 5
        assert (labels()[picks] == -1).all()
        (message,) = [record.getMessage() for record in caplog.records]
        assert message.startswith(f"{self.NAME} needs about {self.needed(60) / 1024:.0f} KiB")
        assert "for 51 candidates" in message
        assert f"but {free / 1024:.0f} KiB are free" in message
        assert f"choosing among {n_candidates}, drawn" in message
        assert f"(set max_candidates={n_candidates} to fix that number)" in message

    def test_equal_memory_gives_equal_picks_and_another_seed_another_subset(
        self, limit: Callable[[float], None]
    ) -> None:
        limit(1.3 * self.needed(30))
        first, again, other = (ask(self.NAME, y=labels(), n=5, seed=seed) for seed in (0, 0, 1))
        assert first.tolist() == again.tolist()
        assert first.tolist() != other.tolist()

    def test_a_large_subset_has_a_round_size(
        self, limit: Callable[[float], None], caplog: pytest.LogCaptureFixture
    ) -> None:
        scores = example_scores(n_images=400)
        for n in (345, 349):  # much the same memory: the same subset
            limit(self.needed(n) / 0.8 + 1)
            assert len(set(ask(self.NAME, scores=scores, n=5).tolist())) == 5
        assert caplog.text.count("choosing among 340, drawn") == 2

    def test_when_not_even_the_batch_fits_that_is_said(
        self, limit: Callable[[float], None]
    ) -> None:
        limit(self.needed(10))
        with pytest.raises(
            SkalError, match=r"needs at least \d+ KiB of memory .* \d+ KiB are free"
        ) as caught:
            ask(self.NAME, y=labels(), n=5)
        assert "another strategy or a smaller n_query" in str(caught.value)
        limit(0)
        with pytest.raises(SkalError, match="0 KiB are free"):
            ask(self.NAME, y=labels(), n=5)

    def test_what_is_little_anyway_is_not_asked_for(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(memory, "available_memory", lambda device: 0)
        for name in STRATEGIES.names():
            assert len(ask(name, y=labels(), n=5)) == 5, name
        assert caplog.text == ""

    @pytest.mark.parametrize("name", sorted(set(STRATEGIES.names()) - {"random"}))
    def test_every_strategy_that_reads_scores_is_held_to_what_is_free(
        self, name: str, limit: Callable[[float], None], caplog: pytest.LogCaptureFixture
    ) -> None:
        chosen = resolve_strategy(name)
        sizes = {"n": 40, "b": 5, "C": 3, "D": 8, "T": chosen.n_samples}
        limit(bytes_needed(chosen.memory(scored=True), sizes) / 0.8 + 1)
        picks = ask(name, y=labels(), n=5)
        assert len(set(picks.tolist())) == 5
        assert (labels()[picks] == -1).all()
        assert f"choosing among {40 - 9 * chosen.needs_labeled}, drawn" in caplog.text

    @pytest.mark.parametrize(
        ("name", "parts"),
        [
            ("margin", {"nC"}),
            ("random", {"nC"}),
            ("badge", {"nC", "nD"}),
            ("bald", {"nC", "nTC"}),
            ("query-by-committee", {"nC", "nTC"}),
            ("core-set", {"nC", "nD"}),
        ],
    )
    def test_the_scores_and_a_copy_of_them_are_part_of_what_is_needed(
        self, name: str, parts: set[str]
    ) -> None:
        chosen = resolve_strategy(name)
        own = chosen.facts.get("memory", {})
        scored, before = chosen.memory(scored=True), chosen.memory(scored=False)
        assert {letters for letters in before if scored[letters] > own.get(letters, 0)} == parts
        members = {"nTC": 4} if chosen.needs == "committee" else {}
        for letters in parts:
            assert scored[letters] == own.get(letters, 0) + 4
            assert before[letters] == scored[letters] + 4 + members.get(letters, 0)

    def test_where_skals_own_compute_on_a_gpu_its_memory_counts(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        devices = []
        monkeypatch.setattr(
            memory, "available_memory", lambda device: devices.append(device) or 2**40
        )
        sizes = memory.Sizes(50, 9, 5, n_classes=3, n_features=8)
        for name in ("badge", "margin"):
            assert memory.affordable(resolve_strategy(name), sizes, device="cuda:1") == 50
        assert devices == ["cuda:1", "cpu"]

    def test_a_run_goes_on_with_the_subset(
        self,
        limit: Callable[[float], None],
        tiny: skal.ImageDataset,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        limit(1.3 * self.needed(50, n_features=84, scored=False))
        settings = {"model": "lenet", "n_init": 6, "n_query": 5, "n_rounds": 2, "steps": 2}
        first, again = (skal.run(tiny, self.NAME, **settings) for _ in range(2))
        assert [row["n_labeled"] for row in first.rounds] == [6, 11, 16]
        assert first.queries == again.queries
        assert caplog.text.count("drawn at random") == 4  # once a round: before it is scored


class TestManyImages:
    """What reads embeddings is shown some of very many images, and says so."""

    def pool(self, n: int) -> Pool:
        X = np.random.default_rng(0).normal(size=(n, 6)).astype(np.float32)
        pool = Pool(X, 3)
        pool.label(np.arange(9), np.arange(9) % 3)
        return pool

    def choose(self, name: str, pool: Pool, **options: int) -> np.ndarray:
        classifier = skal.ImageClassifier(
            "lenet", classes=range(3), freeze=True, head="logistic", random_state=0
        ).fit(pool.X, pool.y)
        strategy = resolve_strategy(name)
        strategy = replace(strategy, facts={**strategy.facts, "most": 60})
        return Choice(strategy, 5, **options).make(classifier, pool)

    @pytest.mark.parametrize("name", ["uncertainty-herding", "badge", "clue"])
    def test_some_are_drawn_by_the_seed(self, name: str, caplog: pytest.LogCaptureFixture) -> None:
        pool = self.pool(500)
        first, again = (self.choose(name, pool, seed=1) for _ in range(2))
        assert first.tolist() == again.tolist() != self.choose(name, pool, seed=2).tolist()
        assert f"{name}: choosing among 60 of 491 images, drawn at random" in caplog.text

    @pytest.mark.parametrize(
        ("name", "n", "options"),
        [("margin", 500, {}), ("badge", 69, {}), ("badge", 500, {"max_candidates": 400})],
    )
    def test_what_reads_none_or_is_told_a_number_or_has_few_is_not_held_to_it(
        self, name: str, n: int, options: dict[str, int], caplog: pytest.LogCaptureFixture
    ) -> None:
        assert len(self.choose(name, self.pool(n), seed=1, **options)) == 5
        assert "choosing among" not in caplog.text

    def test_a_first_set_is_too(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(memory, "MOST_EMBEDDED", 60)
        pool = self.pool(500)
        first, again = (ColdStart("herding", seed=3).choose(pool, 5) for _ in range(2))
        assert first.tolist() == again.tolist()
        assert (pool.y[first] == -1).all()
        assert "herding: choosing among 60 of 491 images, drawn at random" in caplog.text


def test_bytes_are_a_polynomial_of_sizes() -> None:
    sizes = {"n": 1000, "b": 10, "C": 3, "D": 64}
    assert bytes_needed({"nn": 15, "nb": 8}, sizes) == 15_000_000 + 80_000
    assert bytes_needed({"nCD": 16, "n": 512}, sizes) == 16 * 1000 * 3 * 64 + 512_000
    assert bytes_needed({}, sizes) == 0


class TestTime:
    """`batch-bald` takes minutes for many classes."""

    def test_another_stands_in_where_it_would_take_too_long_and_a_warning_says_so(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        chosen = resolve_strategy("batch-bald", {"n_samples": 7})
        other = within_reach(chosen, Sizes(20_000, 100, 100, n_classes=1000))
        assert (other.name, other.n_samples) == ("power-bald", 7)
        assert "about 80 minutes" in caplog.text and "max_candidates" in caplog.text

    def test_with_few_classes_or_picks_it_chooses_itself(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        chosen = resolve_strategy("batch-bald")
        for sizes in (Sizes(20_000, 100, 50, 10), Sizes(400, 100, 50, 1000)):
            assert within_reach(chosen, sizes) is chosen
        slow = resolve_strategy("core-set")
        assert within_reach(slow, Sizes(10**6, 100, 10_000, 1000)) is slow
        assert caplog.text == ""
