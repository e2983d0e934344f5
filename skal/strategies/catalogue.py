"""The table of query strategies: what each is, and what it needs. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from ..registry import Registry

Need = Literal["nothing", "scores", "samples", "embeddings", "head", "own model"]
NEEDS = get_args(Need)

STRATEGIES: Registry[type] = Registry("strategy")
"""Query strategies of scikit-activeml's interface.

Facts of an entry:

needs : what the strategy is handed by `select`
    "nothing"     an index column
    "scores"      an index column and a classifier that answers from the scores
    "samples"     the same, with Monte-Carlo samples
    "embeddings"  the embeddings as X
    "head"        the embeddings, and the network's head as a classifier on them
    "own model"   the embeddings, and a small model that is refitted on them
model : the keyword of the model in `query`, "clf" if not given; None for none
embeddings : whether it reads embeddings; assumed if not given
params : arguments of the constructor that differ from its defaults
summary, paper, cost : for people; n images, b picks, C classes, D features, T samples
"""

_EMBEDDED = {"clf_embedding_flag_name": {"extra_outputs": "emb"}}
_SAMPLED = {
    "sample_predictions_method_name": "sample_proba",
    "sample_predictions_dict": {"n_samples": 20},
}

STRATEGIES.add(
    "random",
    "skactiveml.pool:RandomSampling",
    needs="nothing",
    summary="evenly at random: the baseline to beat",
    cost="O(n)",
)
STRATEGIES.add(
    "least-confidence",
    "skactiveml.pool:UncertaintySampling",
    needs="scores",
    embeddings=False,
    params={"method": "least_confident"},
    summary="the lowest probability of the likeliest class",
    paper="Lewis and Gale, 1994",
    cost="O(n b)",
)
STRATEGIES.add(
    "margin",
    "skactiveml.pool:UncertaintySampling",
    needs="scores",
    embeddings=False,
    params={"method": "margin_sampling"},
    summary="the smallest gap between the two likeliest classes",
    paper="Scheffer et al., 2001",
    cost="O(n b)",
)
STRATEGIES.add(
    "entropy",
    "skactiveml.pool:UncertaintySampling",
    needs="scores",
    embeddings=False,
    params={"method": "entropy"},
    summary="the highest entropy of the class probabilities",
    paper="Shannon, 1948; Settles, 2009",
    cost="O(n b)",
)
STRATEGIES.add(
    "badge",
    "skal.strategies.badge:Badge",
    needs="scores",
    params=_EMBEDDED,
    summary="k-means++ among last-layer gradients: uncertain and diverse",
    paper="Ash et al., ICLR 2020",
    cost="O(n b (C + D))",
)
STRATEGIES.add(
    "bald",
    "skal.strategies.bald:MCDropoutBALD",
    needs="samples",
    embeddings=False,
    summary="mutual information of label and weights, by Monte-Carlo dropout",
    paper="Houlsby et al., 2011; Gal et al., ICML 2017",
    cost="O(n T C)",
)

SCIKIT_ACTIVEML: Mapping[str, Mapping[str, Any]] = {
    "RandomSampling": {"needs": "nothing"},
    "UncertaintySampling": {"needs": "scores", "embeddings": False},
    "Badge": {"needs": "scores", "params": _EMBEDDED},
    "ContrastiveAL": {"needs": "scores", "params": _EMBEDDED},
    "Falcun": {"needs": "scores"},
    "Clue": {
        "needs": "scores",
        "model": "estimator",
        "params": {"predict_dict": {"extra_outputs": "emb"}},
    },
    "QueryByCommittee": {"needs": "samples", "model": "ensemble", "params": _SAMPLED},
    "GreedyBALD": {"needs": "samples", "model": "ensemble", "params": _SAMPLED},
    "BatchBALD": {"needs": "samples", "model": "ensemble", "params": _SAMPLED},
    "CoreSet": {"needs": "embeddings", "model": None},
    "TypiClust": {"needs": "embeddings", "model": None},
    "ProbCover": {"needs": "embeddings", "model": None},
    "MaxHerding": {"needs": "embeddings", "model": None},
    "GreedySamplingX": {"needs": "embeddings", "model": None},
    "Quire": {"needs": "embeddings", "model": None},
    "CostEmbeddingAL": {"needs": "embeddings", "model": None},
    "DiscriminativeAL": {"needs": "own model", "model": "discriminator"},
    "DropQuery": {"needs": "head", "params": _EMBEDDED},
    "ProbabilisticAL": {"needs": "own model"},
    "FourDs": {"needs": "own model", "learner": "skactiveml.classifier:MixtureModelClassifier"},
    "EpistemicUncertaintySampling": {"needs": "own model"},
    "MonteCarloEER": {"needs": "own model"},
    "ValueOfInformationEER": {"needs": "own model"},
}
"""Facts about scikit-activeml's classes, for those that are named by import path."""
