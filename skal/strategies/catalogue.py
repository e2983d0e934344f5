"""The table of query strategies: what each is, and what it needs. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from ..core.registry import Registry

Need = Literal["nothing", "scores", "samples", "committee", "embeddings", "head", "own model"]
NEEDS = get_args(Need)

STRATEGIES: Registry[type] = Registry("strategy", plural="strategies")
"""Query strategies of scikit-activeml's interface.

Facts of an entry:

needs : what the strategy is handed by `select`; of skal's own kind of classes, which say in `reads`
    what they read, only "committee" need be said
    "nothing"     an index column
    "scores"      an index column and a classifier that answers from the scores
    "samples"     the same, with Monte-Carlo dropout samples
    "committee"   the same, with networks trained on bootstrap samples for samples
    "embeddings"  the embeddings as X
    "head"        the embeddings, and the network's head as a classifier on them
    "own model"   the embeddings, and a small model that is refitted on them
model : the keyword of the model in `query`, "clf" if not given; None for none
embeddings : whether it reads embeddings; assumed if not given, but for skal's own kind
params : arguments of the constructor that differ from its defaults
aliases : other names of arguments; "table.entry" for an entry of an argument that is a table
stands_for : the strategy that this is another name of; on_frozen : on a frozen backbone
unit_length : whether the embeddings are scaled to length 1
dtype : of the embeddings that a model of the strategy's own is fitted on; float32 if not given
batch : how a batch is asked for
    "whole"   by `batch_size`; assumed if not given
    "ranked"  the utilities of one query rank all images, so that no (b, n) array is needed
    "traced"  by `batch_size`, but the picks are read from the utilities
shuffled : whether the images are handed over in an order drawn by the seed
memory : bytes by product of sizes, n images (labelled and candidates), b picks, C classes,
    D features, T samples: ``{"nn": 12}`` is 12 n n; beside the scores and a copy of them
logarithms : how many a choice takes, likewise, if these make it slow; stand_in : the strategy that
    chooses in its place where they take minutes
most : candidates of many that it is shown, drawn by the seed; 100,000 if not given, and it reads
    embeddings
summary, paper, cost : for people
"""

_EMBEDDED = {"clf_embedding_flag_name": {"extra_outputs": "emb"}}
_N_SAMPLES = {"n_samples": "sample_predictions_dict.n_samples"}


def _sampled(n_samples: int) -> dict[str, Any]:
    return {
        "sample_predictions_method_name": "sample_proba",
        "sample_predictions_dict": {"n_samples": n_samples},
    }


SCIKIT_ACTIVEML: Mapping[str, Mapping[str, Any]] = {
    "RandomSampling": {"needs": "nothing", "batch": "ranked"},
    "UncertaintySampling": {
        "needs": "scores",
        "embeddings": False,
        "batch": "ranked",
        "memory": {"nC": 10},
    },
    "Badge": {"needs": "scores", "params": _EMBEDDED, "memory": {"nCD": 16}},
    "ContrastiveAL": {
        "needs": "scores",
        "params": _EMBEDDED,
        "batch": "ranked",
        "memory": {"nC": 62, "nD": 2},
    },
    "Falcun": {"needs": "scores", "embeddings": False, "memory": {"nC": 10, "nb": 16}},
    "Clue": {
        "needs": "scores",
        "model": "estimator",
        "params": {"predict_dict": {"extra_outputs": "emb"}},
        "memory": {"nC": 10, "nD": 9, "nb": 16},
    },
    "QueryByCommittee": {
        "needs": "committee",
        "model": "ensemble",
        "embeddings": False,
        "params": _sampled(5),
        "aliases": _N_SAMPLES,
        "batch": "ranked",
        "memory": {"nTC": 10},
    },
    "GreedyBALD": {
        "needs": "samples",
        "model": "ensemble",
        "embeddings": False,
        "params": _sampled(20),
        "aliases": _N_SAMPLES,
        "batch": "ranked",
        "memory": {"nTC": 9},
    },
    "BatchBALD": {
        "needs": "samples",
        "model": "ensemble",
        "embeddings": False,
        # as many joint samples as theirs takes by default, T, say little of ten classes
        "params": {"n_MC_samples": 200, **_sampled(20)},
        "aliases": _N_SAMPLES,
        "batch": "traced",
        "shuffled": True,  # it breaks ties by a seed of its own
        "memory": {"nTC": 40, "nC": 4800, "nb": 16},
        "logarithms": {"nbC": 200},
        "stand_in": "power-bald",
    },
    "CoreSet": {"needs": "embeddings", "model": None, "memory": {"nb": 16}},
    "TypiClust": {"needs": "embeddings", "model": None, "unit_length": True, "memory": {"nb": 8}},
    "ProbCover": {
        "needs": "embeddings",
        "model": None,
        "unit_length": True,
        "memory": {"nn": 9, "nb": 8},
    },
    "MaxHerding": {"needs": "embeddings", "model": None, "memory": {"nn": 14, "nb": 16}},
    "GreedySamplingX": {"needs": "embeddings", "model": None, "memory": {"nn": 16}},
    "Quire": {"needs": "embeddings", "model": None, "memory": {"nn": 32}},
    "CostEmbeddingAL": {"needs": "embeddings", "model": None},
    "DiscriminativeAL": {
        "needs": "own model",
        "model": "discriminator",
        "learner": "skal.strategies.inputs:linear_discriminator",
        "params": {"greedy_selection": True},
        "memory": {"nD": 24},
    },
    "DropQuery": {
        "needs": "head",
        "params": _EMBEDDED,
        "shuffled": True,  # it breaks ties by the order of the images
        "most": 30_000,
        "memory": {"nD": 40, "nb": 16, "n": 512},
    },
    "ProbabilisticAL": {"needs": "own model", "memory": {"nn": 16}},
    "FourDs": {
        "needs": "own model",
        "learner": "skactiveml.classifier:MixtureModelClassifier",
        "dtype": "float64",  # in float32 a component's covariance may not be positive definite
    },
    "EpistemicUncertaintySampling": {"needs": "own model", "memory": {"nn": 16}},
    "MonteCarloEER": {"needs": "own model", "memory": {"nn": 16}},
    "ValueOfInformationEER": {"needs": "own model", "memory": {"nn": 16}},
}
"""Facts about scikit-activeml's classes, by name, for the table and for import paths."""


def _theirs(name: str, cls: str, *, params: Mapping[str, Any] | None = None, **facts: Any) -> None:
    known = SCIKIT_ACTIVEML[cls]
    merged = {**known.get("params", {}), **(params or {})}
    options = {"params": merged} if merged else {}
    STRATEGIES.add(name, f"skactiveml.pool:{cls}", **{**known, **options, **facts})


def stands_for(name: str, frozen: bool = False) -> str:
    """Return the strategy that a name, such as "auto", stands for, on a trained or a frozen
    backbone; UnknownNameError if none.
    """
    facts = STRATEGIES.resolve(name).facts
    return str(facts.get("on_frozen" if frozen else "stands_for", facts.get("stands_for", name)))


def _own(name: str, path: str, **facts: Any) -> None:
    STRATEGIES.add(name, f"skal.strategies.{path}", **facts)


_theirs(
    "auto",
    "Clue",
    stands_for="clue",
    on_frozen="uncertainty-herding",
    summary="the one to take when in doubt: clue, or on a frozen network uncertainty-herding",
    paper="benchmarks/RESULTS.md says why it is these",
    cost="O(n b D) an iteration",
)
_theirs(
    "random",
    "RandomSampling",
    summary="evenly at random: the baseline to beat",
    cost="O(n)",
)
_theirs(
    "least-confidence",
    "UncertaintySampling",
    params={"method": "least_confident"},
    summary="the lowest probability of the most probable class",
    paper="Lewis and Gale, SIGIR 1994",
    cost="O(n C)",
)
_theirs(
    "margin",
    "UncertaintySampling",
    params={"method": "margin_sampling"},
    summary="the smallest gap between the two most probable classes",
    paper="Scheffer et al., IDA 2001",
    cost="O(n C)",
)
_theirs(
    "entropy",
    "UncertaintySampling",
    params={"method": "entropy"},
    summary="the highest entropy of the class probabilities",
    paper="Shannon, 1948; Settles, 2009",
    cost="O(n C)",
)
_own(
    "power-margin",
    "power:PowerMargin",
    needs="scores",
    memory={"nC": 17},
    summary="drawn by a power of one minus the margin",
    paper="Kirsch et al., TMLR 2023",
    cost="O(n C)",
)
_own(
    "badge",
    "badge:Badge",
    needs="scores",
    memory={"nC": 9, "nD": 2},
    summary="k-means++ among last-layer gradients: uncertain and diverse",
    paper="Ash et al., ICLR 2020",
    cost="O(n b (C + D)), most often far less",
)
_own(
    "bald",
    "bald:MCDropoutBALD",
    needs="samples",
    summary="mutual information of label and weights, by Monte-Carlo dropout",
    paper="Houlsby et al., 2011; Gal et al., ICML 2017",
    cost="O(n T C)",
)
_own(
    "power-bald",
    "power:PowerBALD",
    needs="samples",
    summary="drawn by a power of that mutual information",
    paper="Kirsch et al., TMLR 2023",
    cost="O(n T C)",
)
_theirs(
    "greedy-bald",
    "GreedyBALD",
    summary="scikit-activeml's bald",
    paper="Houlsby et al., 2011; Gal et al., ICML 2017",
    cost="O(n T C)",
)
_theirs(
    "batch-bald",
    "BatchBALD",
    summary="mutual information of the weights and all labels of the batch",
    paper="Kirsch et al., NeurIPS 2019",
    cost="O(n b C T M), M joint samples",
)
_own(
    "diverse-entropy",
    "diverse:DiverseEntropy",
    needs="scores",
    memory={"nC": 26, "nD": 2},
    summary="the most uncertain of each cluster of the 3 b most uncertain",
    paper="after Zhdanov, 2019",
    cost="O(n C + b^2 D)",
)
_own(
    "diverse-batch",
    "diverse:DiverseBatch",
    needs="scores",
    memory={"nC": 26, "nD": 2},
    summary="greedy on a weighted sum of uncertainty and distance to the picks",
    paper="after Brinker, ICML 2003",
    cost="O(n b D)",
)
_theirs(
    "clue",
    "Clue",
    summary="nearest to the centres of k-means weighted by entropy",
    paper="Prabhu et al., ICCV 2021",
    cost="O(n b D) an iteration",
)
_own(
    "uncertainty-herding",
    "uncertainty_herding:UncertaintyHerding",
    needs="scores",
    memory={"nC": 17, "nD": 24},
    summary="covers most of what the classifier is unsure of, more locally as labels grow",
    paper="Bae et al., ICLR 2025",
    cost="O(n m min(D, 128)), m images that stand for all, 4,096 above 10,000, then O(n) a pick",
)
_theirs(
    "drop-query",
    "DropQuery",
    summary="of what changes when features are dropped, nearest to the centres of k-means",
    paper="Gupte et al., TMLR 2024",
    cost="O(n b D) an iteration",
)
_theirs(
    "falcun",
    "Falcun",
    summary="drawn by margin and distance of the probabilities to the picks",
    paper="Gilhuber et al., ECML PKDD 2024",
    cost="O(n b C)",
)
_theirs(
    "contrastive",
    "ContrastiveAL",
    summary="predicted unlike its nearest labelled neighbours",
    paper="Margatina et al., EMNLP 2021",
    cost="O(n m D), m labelled",
)
_own(
    "expected-gradient-length",
    "gradient_length:ExpectedGradientLength",
    needs="scores",
    memory={"nC": 33, "nD": 9},
    summary="the longest expected gradient, of the last layer or of all",
    paper="Settles et al., NeurIPS 2007",
    cost="O(n (C + D)); layers=all: C backward passes of the pool",
)
_theirs(
    "query-by-committee",
    "QueryByCommittee",
    summary="disagreement of n_samples=5 networks trained on bootstrap samples, by "
    "method=KL_divergence, vote_entropy or variation_ratios",
    paper="Seung et al., COLT 1992; McCallum and Nigam, ICML 1998",
    cost="5 trainings and passes of the pool",
)
_own(
    "committee-variance",
    "committee:CommitteeVariance",
    needs="committee",
    summary="variance of the probabilities of n_samples=5 networks trained on bootstrap samples",
    paper="Beluch et al., CVPR 2018",
    cost="5 trainings and passes of the pool",
)
_own(
    "core-set",
    "core_set:CoreSet",
    needs="embeddings",
    memory={"nD": 2},
    summary="farthest from all that is labelled or picked",
    paper="Sener and Savarese, ICLR 2018",
    cost="O(n (m + b) D), m labelled",
)
_own(
    "k-means",
    "k_means:KMeansSampling",
    needs="embeddings",
    memory={"nD": 10},
    aliases={"pick": "pick_from"},
    summary="nearest to the centres of b clusters (pick=farthest: farthest from them)",
    paper="Bodó et al., 2011",
    cost="O(n b D) an iteration",
)
_own(
    "typiclust",
    "typiclust:TypiClust",
    needs="embeddings",
    memory={"nD": 13},
    summary="the most typical of each cluster without a label",
    paper="Hacohen et al., ICML 2022",
    cost="O(n (m + b) D) an iteration, m labelled",
)
_own(
    "tcm",
    "typiclust:TCM",
    needs="scores",
    memory={"nC": 17, "nD": 13},
    summary="typiclust while labels are few, then margin",
    paper="Doucet et al., 2024",
    cost="that of typiclust",
)
_own(
    "probcover",
    "coverage:ProbCover",
    needs="embeddings",
    most=50_000,
    memory={"nD": 12, "n": 6000},
    summary="covers most of the images not yet near a labelled one",
    paper="Yehuda et al., NeurIPS 2022",
    cost="O(n^2 min(D, 32) + p D), p pairs that may be near; most often p is far below n^2",
)
_own(
    "max-herding",
    "coverage:MaxHerding",
    needs="embeddings",
    memory={"nD": 24},
    summary="raises most the mean similarity of an image to the nearest labelled one",
    paper="Bae et al., ECCV 2024",
    cost="that of uncertainty-herding",
)
_theirs(
    "discriminative",
    "DiscriminativeAL",
    summary="what a linear model tells apart best from what is labelled",
    paper="Gissin and Shalev-Shwartz, 2019",
    cost="O(n D) an iteration",
)

INIT_STRATEGIES: Registry[type] = Registry("init strategy", plural="init strategies")
"""Query strategies for the initial set, with the facts of `STRATEGIES` and `by_oracle`.

They need nothing, or only embeddings; `by_oracle` says that the oracle draws the set.
"""

_random, _herding = map(STRATEGIES.resolve, ("random", "uncertainty-herding"))
INIT_STRATEGIES.add("random", _random.target, **_random.facts)
INIT_STRATEGIES.add(
    "stratified",
    _random.target,
    by_oracle=True,
    summary="as many images of each class, drawn by an oracle that knows the labels",
)
_of_herding = {
    **_herding.facts,
    "params": {"uncertainty": "equal"},
    "summary": "uncertainty-herding with equal weights: covers most of the pool",
}
INIT_STRATEGIES.add("herding", _herding.target, **_of_herding)
for _entry in map(STRATEGIES.resolve, ("k-means", "typiclust", "probcover")):
    INIT_STRATEGIES.add(_entry.name, _entry.target, **_entry.facts)
