"""What a reader of a comparison must be warned of. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from .curves import Group
from .sentences import list_runs, plural
from .statistics import seeds_needed


def warn(
    group: Group,
    baseline: str,
    n_pairs: Mapping[str, int],
    too_few: Sequence[str],
    n_tested: int,
) -> list[str]:
    """Warn of one setting's runs; `n_pairs` is how many seeds each strategy shares with the
    baseline, `too_few` names those with too few, `n_tested` counts the comparisons in all settings.
    """
    if n_tested == len(n_pairs):
        purpose = f"compare {n_tested} {plural(n_tested, 'strategy', 'strategies')} with it"
    else:
        purpose = f"make all {n_tested} comparisons with it"
    short: dict[int, list[str]] = {}
    for name in too_few:
        short.setdefault(n_pairs[name], []).append(name)
    return [
        *_of_budgets(group),
        *_of_seeds(group, baseline),
        *(
            f"with {n} {plural(n, 'seed')} no difference of {', '.join(names)} from {baseline} can "
            f"be called significant, whatever its size: at least {seeds_needed(n_tested)} seeds "
            f"are needed to {purpose}"
            for n, names in sorted(short.items())
        ),
    ]


def _of_budgets(group: Group) -> list[str]:
    """Name the runs that start later or end earlier than others, which narrows the comparison."""

    def budgets(end: Callable[[Mapping[int, float]], int]) -> dict[tuple[str, int], int]:
        return {
            (name, seed): end(curve)
            for name, of_seed in group.known.items()
            for seed, curve in of_seed.items()
        }

    starts, ends = budgets(min), budgets(max)
    first, last = group.n_labeled[0], group.n_labeled[-1]
    seeds = {name: list(of_seed) for name, of_seed in group.known.items()}
    told = []
    if len(set(starts.values())) > 1:
        late = list_runs((run for run, n in starts.items() if n == first), seeds)
        told.append(f"{first} is the start of {late}; others begin with {min(starts.values())}")
    if len(set(ends.values())) > 1:
        short = list_runs((run for run, n in ends.items() if n == last), seeds)
        told.append(f"{last} is the end of {short}; others continue to {max(ends.values())}")
    if group.interpolated:
        told.append(
            "between its own numbers of labels each run's accuracy is interpolated linearly"
        )
    if not told:
        return []
    n = len(group.n_labeled)
    where = f"at {n} numbers from {first} to {last}" if n > 1 else f"at {first} only"
    return [
        f"the runs have different numbers of labels: they are compared {where}; {'; '.join(told)}"
    ]


def _of_seeds(group: Group, baseline: str) -> list[str]:
    if baseline not in group.curves:
        return [f"there is no run of {baseline}: nothing can be compared with it"]
    seeds = set().union(*group.curves.values())
    missing = {name: sorted(seeds - of_seed.keys()) for name, of_seed in group.curves.items()}
    lacking = [
        f"{name} lacks {plural(len(lost), 'seed')} {', '.join(map(str, lost))}"
        for name, lost in missing.items()
        if lost
    ]
    if not lacking:
        return []
    return [
        f"{'; '.join(lacking)}: strategies are compared in the seeds that both have; the others "
        "are left out of the pairs"
    ]
