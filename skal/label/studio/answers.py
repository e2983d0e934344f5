"""A network's predictions for images, and the order in which to label them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...core.errors import UsageError
from ...core.kept import kept
from ...core.progress import progress
from ...core.registry import write_spec
from ...core.text import counted
from ...core.trust import check_trusted, foreign_names
from ...datasets.addresses import Addresses
from ...runs.config import RunConfig
from ..names import told_apart

if TYPE_CHECKING:
    from ...prediction.predictor import Predictor

LAST = 1.0
"""The score of images to label last."""
MEASURE = "margin"
"""The utility to use if the strategy of a run does not score images independently."""
THREADS = 4

_log = logging.getLogger("skal")


class Answer(NamedTuple):
    """The predicted class of an image (or None), its probability, and the score.

    Labelling the lowest scores first follows the strategy.
    """

    label: str | None
    probability: float
    score: float


NOTHING = Answer(None, 0.0, LAST)


@dataclass(frozen=True, eq=False)
class Answers:
    """The predictions for images.

    Parameters
    ----------
    names : sequence of str
        The classes.
    rows : mapping of str to int
        The row of each image, by path.
    proba : ndarray of float32, shape (n, n_classes)
        Class probabilities; without columns while there is no network.
    first : mapping of str to int
        The rank of each image that the strategy picked, from 0, the most useful one.
    """

    names: Sequence[str]
    rows: Mapping[str, int]
    proba: NDArray[np.float32]
    first: Mapping[str, int]

    def of(self, path: str | None) -> Answer:
        """Return the answer for an image.

        Picked images come before all others, which follow by the network's uncertainty: their score
        is the highest class probability, at least 1 / n_classes, and picked images score less.
        """
        label, probability, score = NOTHING
        if path is None:
            return NOTHING
        row = self.rows.get(path)
        if row is not None and self.proba.shape[1]:
            best = int(self.proba[row].argmax())
            label, probability = self.names[best], float(self.proba[row, best])
            score = probability
        if path in self.first:
            score = self.first[path] / len(self.first) / len(self.names)
        return Answer(label, probability, score)


def answers_of_run(
    run_dir: Path, images: Path | None = None, trust: bool = False
) -> tuple[Answers, Addresses]:
    """Predict all images of a folder with a run's network, cached; return answers and addresses.

    The folder is by default that of the run. The order is that of its strategy if it scores images
    independently, else the smallest margin first. Errors are those of `skal predict`, and a
    UsageError if there is no folder of images.
    """
    from ...datasets.decoding import DECODER_VERSION
    from ...datasets.index import list_images
    from ...datasets.loading import data_folder
    from ...datasets.pixel_cache import file_state
    from ...models.description import check_model, read_description
    from ...prediction.predictor import Predictor, model_key

    config = _config_of(run_dir)
    check_model(run_dir, read_description(run_dir), trust)
    check_trusted(run_dir, foreign_names(RunConfig(**config)), trust)
    root = folder_of_run(run_dir, images)
    paths, key = list_images(root), model_key(run_dir)
    by_text, alike = told_apart(paths)
    utility = _utility(config)
    predictor = Predictor.load(run_dir, key, "auto", (utility,), False)
    digest = hashlib.sha256(f"{key} {utility} {DECODER_VERSION} {root}\n".encode())
    for path in paths:
        digest.update(f"{file_state(str(root / path))} {path}\n".encode(errors="surrogateescape"))
    place = data_folder() / "cache" / f"answers-{digest.hexdigest()[:16]}.npz"
    if not place.is_file():
        _log.info("predicting %s first; the result is cached", counted(len(paths), "image"))
    kept(place, "predicting", lambda path: _predict(predictor, root, paths, utility, path))
    with np.load(place, allow_pickle=False) as arrays:
        read, proba, order = (arrays[name] for name in ("read", "proba", "order"))
    row_of = {paths[n]: row for row, n in enumerate(np.flatnonzero(read))}
    place_of = {row: place for place, row in enumerate(order.tolist())}
    rows = {text: row_of[path] for text, path in by_text.items() if path in row_of}
    first = {text: place_of[row] for text, row in rows.items()}
    addresses = Addresses(by_text, root.as_posix(), alike)
    return Answers(predictor.names, rows, proba, first), addresses


def folder_of_run(run_dir: Path, images: Path | None) -> Path:
    """Return the folder of the images of a run, or the given one."""
    root = images or Path(str(_config_of(run_dir).get("dataset", "")))
    if images is None and (str(root) == "." or not root.is_dir()):
        raise UsageError(
            f"the folder with the images of {str(run_dir)!r} does not exist here; name it with "
            "--images"
        )
    if not root.is_dir():
        raise UsageError(f"--images: {str(root)!r} is not a folder; expected a folder of images")
    return root.resolve()


def _config_of(run_dir: Path) -> Mapping[str, Any]:
    from ...runs.config import read_config

    path = run_dir / "config.toml"
    return read_config(path) if path.is_file() else {}


def _utility(config: Mapping[str, Any]) -> str:
    """Return a run's strategy if it scores images independently, else `MEASURE`."""
    from ...prediction.predictor import Utility

    with suppress(UsageError):
        name = write_spec(config.get("strategy", MEASURE), config.get("strategy_params") or {})
        return Utility.of(name).name
    return MEASURE


def _predict(
    predictor: Predictor, root: Path, paths: Sequence[str], utility: str, place: Path
) -> dict[str, Any]:
    reads, probas, utilities = [], [], []
    with progress(total=len(paths), desc="predicting") as bar:
        for rows in predictor.rows(root, paths, THREADS):
            columns = rows.columns
            reads.append(rows.read)
            probas.append(np.column_stack([columns[f"p_{name}"] for name in predictor.names]))
            utilities.append(columns[f"utility_{utility}"])
            bar.update(len(rows.paths))
    worth = np.concatenate(utilities)
    proba = np.concatenate(probas).astype(np.float32)
    order = np.argsort(-worth, kind="stable")
    with place.open("wb") as file:
        np.savez(file, read=np.concatenate(reads), proba=proba, order=order)
    return {}
