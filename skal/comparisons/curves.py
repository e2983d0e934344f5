"""Learning curves at numbers of labels that all runs of a setting share. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.errors import DataError
from ..runs.metrics import area_under_curve
from .pairs import differing_data, what_must_agree
from .results import Result, Setting
from .statistics import Curves, Floats, paired_difference

MEASURES = ("aulc", "accuracy")
"""Area under the learning curve, on which verdicts are based, and final accuracy."""


@dataclass(frozen=True)
class Group:
    """The runs of one setting, with their accuracies at common numbers of labels."""

    setting: Setting
    runs: Mapping[str, Mapping[int, Result]]
    known: Mapping[str, Mapping[int, Mapping[int, float]]]
    """Accuracy by strategy, seed and number of labels, before interpolation."""
    n_labeled: tuple[int, ...]
    interpolated: bool
    curves: Curves

    @classmethod
    def make(cls, setting: Setting, results: Mapping[str, Mapping[int, Result]]) -> Group:
        known = {
            name: {
                # a round without new labels replaces the previous one
                seed: {int(row["n_labeled"]): float(row["accuracy"]) for row in result.rounds}
                for seed, result in sorted(of_strategy.items())
            }
            for name, of_strategy in results.items()
        }
        budgets, interpolated = _common_budgets(
            [curve for of_seed in known.values() for curve in of_seed.values()]
        )
        if not budgets:
            raise DataError(
                f"the runs of {', '.join(results)} on {setting.dataset} cannot be compared: their "
                "numbers of labels do not overlap; use the same n_init and n_query for all"
            )
        curves = {
            name: {seed: _at(curve, budgets) for seed, curve in of_seed.items()}
            for name, of_seed in known.items()
        }
        return cls(setting, results, known, tuple(budgets), interpolated, curves)

    @property
    def seeds(self) -> list[int]:
        """Seeds that all strategies have."""
        return sorted(set.intersection(*(set(of_seed) for of_seed in self.curves.values())))

    def pairs(self, name: str, baseline: str) -> tuple[Floats, Floats]:
        """Return two strategies' curves for their common seeds, shape (n_pairs, n_budgets)."""
        ours, theirs = self.curves[name], self.curves[baseline]
        seeds = sorted(ours.keys() & theirs.keys())
        shape = (len(seeds), len(self.n_labeled))
        one, other = (
            np.array([curves[seed] for seed in seeds], dtype=float).reshape(shape)
            for curves in (ours, theirs)
        )
        return one, other

    def aulc(self, name: str) -> Floats:
        """Return the area under each curve, shape (n_seeds,)."""
        return _areas(self.n_labeled, np.array(list(self.curves[name].values())))

    def differences(self, baseline: str) -> dict[str, dict[str, Any]]:
        """Return each strategy's differences from the baseline by measure, none without one."""
        return {
            name: _measure(self.n_labeled, *self.pairs(name, baseline))
            for name in self.curves
            if baseline in self.curves and name != baseline
        }


def difference_between(ours: Group, theirs: Group, name: str) -> dict[str, Any] | None:
    """Compare a strategy in two settings, paired by seed. Return None if they share no seeds or
    labels, or if runs with the same seed differ in other settings, too.
    """
    one, other = (group.known.get(name, {}) for group in (ours, theirs))
    seeds = sorted(one.keys() & other.keys())
    if not seeds or not all(_alike(ours.runs[name][s], theirs.runs[name][s]) for s in seeds):
        return None
    budgets = _common_budgets([known[seed] for seed in seeds for known in (one, other)])[0]
    if not budgets:
        return None
    curves = [np.array([_at(known[seed], budgets) for seed in seeds]) for known in (one, other)]
    return {"n_labeled": [budgets[0], budgets[-1]], **_measure(budgets, *curves)}


def _alike(one: Result, other: Result) -> bool:
    """Return whether runs share images and all settings that `Setting` does not hold."""
    ours, theirs = what_must_agree(one), what_must_agree(other)
    # without noise its kind has no effect, and is not among the settings
    for kind in ("image_noise", "label_noise_kind"):
        if kind not in ours or kind not in theirs:
            ours.pop(kind, None)
            theirs.pop(kind, None)
    return ours == theirs and not differing_data(one, other)


def _common_budgets(curves: Sequence[Mapping[int, float]]) -> tuple[list[int], bool]:
    """Return the numbers of labels to compare at, empty if the curves do not overlap, and whether
    curves must be interpolated there.
    """
    first, last = max(map(min, curves)), min(map(max, curves))
    if first > last:
        return [], False
    inside = [tuple(sorted(n for n in curve if first <= n <= last)) for curve in curves]
    if len(set(inside)) == 1:
        return list(inside[0]), False
    number = max(2, *map(len, inside))
    return sorted(set(np.linspace(first, last, number).round().astype(int).tolist())), True


def _at(curve: Mapping[int, float], budgets: Sequence[int]) -> Floats:
    """Return a curve's accuracy at the budgets, interpolated linearly."""
    own = sorted(curve)
    return np.asarray(np.interp(budgets, own, [curve[n] for n in own]))


def _areas(budgets: Sequence[int], curves: Floats) -> Floats:
    rows = [
        [{"n_labeled": n, "accuracy": a} for n, a in zip(budgets, curve, strict=True)]
        for curve in curves
    ]
    return np.array([area_under_curve(row) for row in rows], dtype=float)


def _measure(budgets: Sequence[int], ours: Floats, theirs: Floats) -> dict[str, Any]:
    """Return the paired differences of curves by measure."""
    areas = (_areas(budgets, curves) for curves in (ours, theirs))
    return {
        "aulc": paired_difference(*areas),
        "accuracy": paired_difference(ours[:, -1], theirs[:, -1]),
    }
