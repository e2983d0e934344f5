"""Catalogue of query strategies and what each needs. Does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from ..core.registry import Registry

Need = Literal["nothing", "scores", "samples", "committee", "embeddings", "head", "own model"]
NEEDS = get_args(Need)

STRATEGIES: Registry[type] = Registry("strategy", plural="strategies")
"""Query strategies with scikit-activeml's interface.

Facts of an entry:

needs : what `select` passes to the strategy. Subclasses of `BatchStrategy` state it in `reads`, so
    that only "committee" must be given for them.
    "nothing"     an index column
    "scores"      an index column and a classifier that answers from the scores
    "samples"     the same, with Monte-Carlo dropout samples
    "committee"   the same, with networks trained on bootstrap samples instead of dropout samples
    "embeddings"  the embeddings as X
    "head"        the embeddings, and the network's head as a classifier on them
    "own model"   the embeddings, and a small model that is refitted on them
model : keyword of the model in `query`, "clf" by default; None if it takes no model
embeddings : whether it reads embeddings; by default True, or what `reads` says
params : constructor arguments that differ from their defaults
aliases : alternative argument names; "table.entry" for an entry of a dict argument
stands_for : the strategy that this name is an alias of; on_frozen : the same on frozen backbones
unit_length : whether to scale embeddings to length 1
dtype : dtype of the embeddings passed to a model of the strategy's own; float32 by default
batch : how to ask for a batch
    "whole"   by `batch_size`, the default
    "ranked"  rank all images by the utilities of one query, which needs no (b, n) array
    "traced"  by `batch_size`, but read the picks from the utilities
shuffled : whether to pass images in an order drawn by the seed
memory : bytes needed in addition to the scores and a copy of them, by product of sizes: n images
    (labelled and candidates), b picks, C classes, D features, T samples; ``{"nn": 12}`` is 12 n n
logarithms : number of logarithms per choice, likewise, where they dominate the time; stand_in : the
    strategy to use instead where they would take minutes
most : the largest number of candidates, a random subset if there are more; 100,000 by default for
    strategies that read embeddings
summary, paper, cost : text for users
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
        # its default of T joint samples is too few for ten classes
        "params": {"n_MC_samples": 200, **_sampled(20)},
        "aliases": _N_SAMPLES,
        "batch": "traced",
        "shuffled": True,  # it breaks ties by a fixed seed
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
"""Facts about scikit-activeml's classes, used for the catalogue and for import paths."""


def _theirs(name: str, cls: str, *, params: Mapping[str, Any] | None = None, **facts: Any) -> None:
    known = SCIKIT_ACTIVEML[cls]
    merged = {**known.get("params", {}), **(params or {})}
    options = {"params": merged} if merged else {}
    STRATEGIES.add(name, f"skactiveml.pool:{cls}", **{**known, **options, **facts})


def stands_for(name: str, frozen: bool = False) -> str:
    """Return the strategy that an alias such as "auto" stands for on a trained or a frozen
    backbone, and other names unchanged; raise UnknownNameError if there is none.
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
    summary="the default: clue, or uncertainty-herding on a frozen network",
    paper="chosen by the measurements in benchmarks/RESULTS.md",
    cost="O(n b D) per iteration",
)
_theirs(
    "random",
    "RandomSampling",
    summary="uniformly at random; the baseline",
    cost="O(n)",
)
_theirs(
    "least-confidence",
    "UncertaintySampling",
    params={"method": "least_confident"},
    summary="lowest probability of the most probable class",
    paper="Lewis and Gale, SIGIR 1994",
    cost="O(n C)",
)
_theirs(
    "margin",
    "UncertaintySampling",
    params={"method": "margin_sampling"},
    summary="smallest difference between the two highest class probabilities",
    paper="Scheffer et al., IDA 2001",
    cost="O(n C)",
)
_theirs(
    "entropy",
    "UncertaintySampling",
    params={"method": "entropy"},
    summary="highest entropy of the class probabilities",
    paper="Shannon, 1948; Settles, 2009",
    cost="O(n C)",
)
_own(
    "power-margin",
    "power:PowerMargin",
    needs="scores",
    memory={"nC": 17},
    summary="sampled in proportion to a power of one minus the margin",
    paper="Kirsch et al., TMLR 2023",
    cost="O(n C)",
)
_own(
    "badge",
    "badge:Badge",
    needs="scores",
    memory={"nC": 9, "nD": 2},
    summary="k-means++ on last-layer gradient embeddings: uncertain and diverse",
    paper="Ash et al., ICLR 2020",
    cost="O(n b (C + D)), usually far less",
)
_own(
    "bald",
    "bald:MCDropoutBALD",
    needs="samples",
    summary="highest mutual information of label and weights, by Monte-Carlo dropout",
    paper="Houlsby et al., 2011; Gal et al., ICML 2017",
    cost="O(n T C)",
)
_own(
    "power-bald",
    "power:PowerBALD",
    needs="samples",
    summary="sampled in proportion to a power of bald's mutual information",
    paper="Kirsch et al., TMLR 2023",
    cost="O(n T C)",
)
_theirs(
    "greedy-bald",
    "GreedyBALD",
    summary="scikit-activeml's implementation of bald",
    paper="Houlsby et al., 2011; Gal et al., ICML 2017",
    cost="O(n T C)",
)
_theirs(
    "batch-bald",
    "BatchBALD",
    summary="highest mutual information of the weights and all labels of the batch",
    paper="Kirsch et al., NeurIPS 2019",
    cost="O(n b C T M), M joint samples",
)
_own(
    "diverse-entropy",
    "diverse:DiverseEntropy",
    needs="scores",
    memory={"nC": 26, "nD": 2},
    summary="highest entropy in each cluster of the 3 b images of highest entropy",
    paper="after Zhdanov, 2019",
    cost="O(n C + b^2 D)",
)
_own(
    "diverse-batch",
    "diverse:DiverseBatch",
    needs="scores",
    memory={"nC": 26, "nD": 2},
    summary="greedy by a weighted sum of uncertainty and distance to earlier picks",
    paper="after Brinker, ICML 2003",
    cost="O(n b D)",
)
_theirs(
    "clue",
    "Clue",
    summary="nearest to the centres of entropy-weighted k-means",
    paper="Prabhu et al., ICCV 2021",
    cost="O(n b D) per iteration",
)
_own(
    "uncertainty-herding",
    "uncertainty_herding:UncertaintyHerding",
    needs="scores",
    memory={"nC": 17, "nD": 24},
    summary="uncertainty-weighted coverage of the pool, more local as labels grow",
    paper="Bae et al., ICLR 2025",
    cost="O(n m min(D, 128)), then O(n) per pick; m = n, or a sample of 4,096 if n > 10,000",
)
_theirs(
    "drop-query",
    "DropQuery",
    summary="images whose prediction changes under feature dropout, nearest to k-means centres",
    paper="Gupte et al., TMLR 2024",
    cost="O(n b D) per iteration",
)
_theirs(
    "falcun",
    "Falcun",
    summary="sampled by margin and by distance of the class probabilities to earlier picks",
    paper="Gilhuber et al., ECML PKDD 2024",
    cost="O(n b C)",
)
_theirs(
    "contrastive",
    "ContrastiveAL",
    summary="predictions most unlike those of the nearest labelled images",
    paper="Margatina et al., EMNLP 2021",
    cost="O(n m D), m labelled",
)
_own(
    "expected-gradient-length",
    "gradient_length:ExpectedGradientLength",
    needs="scores",
    memory={"nC": 33, "nD": 9},
    summary="longest expected gradient, of the last layer or of all layers",
    paper="Settles et al., NeurIPS 2007",
    cost="O(n (C + D)); layers=all: C backward passes over the pool",
)
_theirs(
    "query-by-committee",
    "QueryByCommittee",
    summary="disagreement of n_samples=5 networks trained on bootstrap samples, by "
    "method=KL_divergence, vote_entropy or variation_ratios",
    paper="Seung et al., COLT 1992; McCallum and Nigam, ICML 1998",
    cost="5 trainings and 5 passes over the pool",
)
_own(
    "committee-variance",
    "committee:CommitteeVariance",
    needs="committee",
    summary="variance of the probabilities of n_samples=5 networks trained on bootstrap samples",
    paper="Beluch et al., CVPR 2018",
    cost="5 trainings and 5 passes over the pool",
)
_own(
    "core-set",
    "core_set:CoreSet",
    needs="embeddings",
    memory={"nD": 2},
    summary="greedy k-centre: farthest from all labelled and picked images",
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
    cost="O(n b D) per iteration",
)
_own(
    "typiclust",
    "typiclust:TypiClust",
    needs="embeddings",
    memory={"nD": 13},
    summary="the most typical image of each cluster without a label",
    paper="Hacohen et al., ICML 2022",
    cost="O(n (m + b) D) per iteration, m labelled",
)
_own(
    "tcm",
    "typiclust:TCM",
    needs="scores",
    memory={"nC": 17, "nD": 13},
    summary="typiclust while labels are few, then margin",
    paper="Doucet et al., 2024",
    cost="as typiclust",
)
_own(
    "probcover",
    "coverage:ProbCover",
    needs="embeddings",
    most=50_000,
    memory={"nD": 12, "n": 6000},
    summary="covers the most images not yet within a radius of a labelled one",
    paper="Yehuda et al., NeurIPS 2022",
    cost="O(n^2 min(D, 32) + p D), p candidate pairs, usually far fewer than n^2",
)
_own(
    "max-herding",
    "coverage:MaxHerding",
    needs="embeddings",
    memory={"nD": 24},
    summary="maximises the mean similarity of images to the nearest labelled one",
    paper="Bae et al., ECCV 2024",
    cost="as uncertainty-herding",
)
_theirs(
    "discriminative",
    "DiscriminativeAL",
    summary="images that a linear model best separates from the labelled ones",
    paper="Gissin and Shalev-Shwartz, 2019",
    cost="O(n D) per iteration",
)

INIT_STRATEGIES: Registry[type] = Registry("init strategy", plural="init strategies")
"""Query strategies for the initial set, which need nothing or only embeddings.

Facts are those of `STRATEGIES`, and `by_oracle`: whether the oracle draws the set.
"""

_random, _herding = map(STRATEGIES.resolve, ("random", "uncertainty-herding"))
INIT_STRATEGIES.add("random", _random.target, **_random.facts)
INIT_STRATEGIES.add(
    "stratified",
    _random.target,
    by_oracle=True,
    summary="the same number of images per class, drawn by an oracle that knows the labels",
)
_of_herding = {
    **_herding.facts,
    "params": {"uncertainty": "equal"},
    "summary": "uncertainty-herding with equal weights: maximises coverage of the pool",
}
INIT_STRATEGIES.add("herding", _herding.target, **_of_herding)
for _entry in map(STRATEGIES.resolve, ("k-means", "typiclust", "probcover")):
    INIT_STRATEGIES.add(_entry.name, _entry.target, **_entry.facts)
