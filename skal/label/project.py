"""`LabelProject`: a folder of images, the labels given to them, and what is known by them."""

from __future__ import annotations

import hashlib
import logging
import math
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ..config import RunConfig, resolve_count
from ..datasets.index import UNLABELED, ImageFile, find_images
from ..errors import (
    DataError,
    FolderNotFoundError,
    ParameterError,
    RunFolderError,
    UnknownNameError,
    UsageError,
)
from ..models import MODELS
from ..strategies.catalogue import STRATEGIES
from .settings import read_settings, save_settings
from .store import Action, Ledger, ModelRow, Store

PLACE = ".skal"
STORE = "labels.sqlite"
GUESSES = "guesses.npz"

TEST_SHARE = 0.1
"""Of the images that are shown, and of the pool that they are drawn from."""
TEST = "test"
"""Source of a label that no network is trained on while labelling goes on."""

LONGEST_CLASS = 100
LONGEST_NAME = 64

_log = logging.getLogger("skal")


class Accuracy(NamedTuple):
    """A share of images classified right, with its 95 % interval (Wilson, 1927)."""

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, n_right: int, n: int) -> Self:
        """Compute it from counts; `n` is 1 or more."""
        z = NormalDist().inv_cdf(0.975)
        value, spread = n_right / n, z * z / n
        middle = (value + spread / 2) / (1 + spread)
        half = math.sqrt(value * (1 - value) * spread + spread * spread / 4) / (1 + spread)
        return cls(value, max(0.0, middle - half), min(1.0, middle + half), n)

    def __str__(self) -> str:
        return (
            f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f} at 95 % confidence, on {self.n} "
            "images drawn at random and kept out of training)"
        )


@dataclass(frozen=True)
class Guesses:
    """What the last network says of the images.

    Parameters
    ----------
    images : ndarray of int64, shape (n,)
        Numbers of images.
    proba : ndarray of float32, shape (n, n_classes)
        Class probabilities; of no columns while there is no network.
    embeddings : ndarray of float32, shape (n, n_features)
        What images are alike by.
    n_labeled : int
        How many labels the network was trained on.
    model : str
        The network's name.
    """

    images: NDArray[np.int64]
    proba: NDArray[np.float32]
    embeddings: NDArray[np.float32]
    n_labeled: int = 0
    model: str = ""

    @cached_property
    def rows(self) -> dict[int, int]:
        """The row of each image."""
        return {number: row for row, number in enumerate(self.images.tolist())}

    @property
    def is_of_network(self) -> bool:
        """Whether there are probabilities."""
        return bool(self.proba.shape[1])

    def proba_of(self, image: int) -> NDArray[np.float32] | None:
        """Return the probabilities of an image, if they are known."""
        row = self.rows.get(image)
        return self.proba[row] if row is not None and self.is_of_network else None

    def save(self, path: Path) -> None:
        """Write them to a file, as a whole."""
        temporary = path.with_name(f".{path.name}.tmp")
        with temporary.open("wb") as file:
            np.savez(
                file,
                images=self.images,
                proba=self.proba,
                embeddings=self.embeddings,
                n_labeled=self.n_labeled,
                model=self.model,
            )
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """Read what `save` wrote; None if there is nothing, or nothing of use."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(
                    arrays["images"],
                    arrays["proba"],
                    arrays["embeddings"],
                    int(arrays["n_labeled"]),
                    str(arrays["model"]),
                )
        except (OSError, ValueError, KeyError, EOFError):
            return None


class LabelProject:
    """A folder of images with the labels that people give them; made by `open`.

    Images in a folder that is called as a class is count as labelled so: they are trained on and
    not shown. All others are the pool. A tenth of it, drawn at random, is kept for the test: the
    images of every tenth place that is shown come from there, in random order, and their labels
    train no network as long as labelling goes on. Whichever strategy picks the others, these are a
    uniform sample of the pool.

    Attributes
    ----------
    root : Path
        The folder of images; the project's own files are in its ``.skal``.
    store : Store
        Where the labels are.
    ledger : Ledger
        What holds now.
    classes : list of str
        Names of the classes; their places are their ids.
    config : RunConfig
        Settings of strategy and network.
    overlap : float
        Share of the images that two annotators are to see.
    paths : dict of int to str
        Where each image lies, by number, relative to `root`; those that are there.
    reserve : list of int
        The images kept for the test, in random order.
    guesses : Guesses or None
        What the last network said.
    on_action : callable
        Told each action that is taken in.
    """

    def __init__(
        self,
        root: Path,
        store: Store,
        files: Sequence[ImageFile],
        config: RunConfig,
        overlap: float,
    ) -> None:
        self.root = root
        self.name = root.resolve().name
        self.store = store
        self.config = config
        self.overlap = overlap
        self.ledger = Ledger()
        self.on_action: Callable[[Action], None] = lambda action: None
        self._folded = -1
        self._sets: tuple[Mapping[int, int], ...] = ()
        self.classes = store.classes()
        self.files = files
        self.paths = _number(root, store, files)
        self.folder_labels = self._read_folder_labels()
        self.reserve = self._draw_reserve()
        self._models = [_Model(row) for row in store.models()]
        self.guesses = Guesses.load(self.place / GUESSES) if store.path else None
        self.refresh()

    @classmethod
    def open(
        cls,
        root: str | Path,
        classes: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
        overlap: str | None = None,
        *,
        create: bool = True,
        needs_classes: bool = True,
    ) -> Self:
        """Open the project of a folder, or begin it.

        Parameters
        ----------
        root : str or Path
            The folder of images.
        classes : sequence of str
            Names of classes; those that the project does not have yet are added. Without any, a
            new project takes those of the class folders.
        settings : mapping, optional
            Of `skal.label.settings.SETTINGS`.
        overlap : str, optional
            Share of the images that two annotators are to see, such as "10%".
        create : bool, default=True
            Whether to begin a project where there is none, and to keep the settings.
        needs_classes : bool, default=True
            Whether fewer than two classes are an error.

        Returns
        -------
        LabelProject

        Raises
        ------
        FolderNotFoundError, DataError, UsageError, RunFolderError
            If there is no such folder, no image or no class in it, a setting is not valid, or the
            project's files cannot be read or written.
        """
        root = Path(root)
        if not root.is_dir():
            what = "is a file, not a folder" if root.exists() else "does not exist"
            raise FolderNotFoundError(f"{str(root)!r} {what}; expected a folder of images")
        names = check_classes(classes)
        files = find_images(root)
        place = root / PLACE
        is_new = not (place / STORE).is_file()
        config, share = read_settings(place, settings or {}, overlap)
        _check_names(config)
        found = sorted({file.label for file in files if file.label is not None})
        if is_new:
            names = names or check_classes(found)
        if is_new and needs_classes:
            _check_enough(names)
        store = _open_store(place, create, config.seed)
        try:
            _add_classes(store, names)
            if needs_classes:
                _check_enough(store.classes())
            if create:
                save_settings(place, config, share)
            return cls(root, store, files, config, share)
        except BaseException:
            store.close()
            raise

    @property
    def place(self) -> Path:
        """The folder of the project's own files."""
        return self.root / PLACE

    @property
    def n_query(self) -> int:
        """Images of a round."""
        return resolve_count("n_query", self.config.n_query, len(self.paths))

    @property
    def n_init(self) -> int:
        """Images of the first round."""
        return resolve_count("n_init", self.config.n_init, len(self.paths))

    def check_pool(self) -> None:
        """Raise a UsageError if there is nothing to label."""
        if not self.pool:
            raise UsageError(
                f"all {len(self.paths)} images are in class folders: nothing is left to label; if "
                "these folders are no classes, name the classes by --classes"
            )

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def refresh(self) -> None:
        """Take in what was written since, by this process or another."""
        news = self.store.actions(after=self.ledger.last_id)
        for action in news:
            self.ledger.apply(action)
            self.on_action(action)
        if any(a.label is not None and a.label >= len(self.classes) for a in news):
            self.classes = self.store.classes()

    def record(self, actions: Sequence[Action]) -> list[int]:
        """Write actions and take them in; see `Store.append`."""
        ids = self.store.append(actions)
        self.refresh()
        return ids

    def class_id(self, name: str) -> int:
        """Return the id of a class.

        Raises
        ------
        UnknownNameError
            If there is none of that name.
        """
        name = unicodedata.normalize("NFC", name)
        if name not in self.classes:
            raise UnknownNameError("class", name, self.classes, "; new ones are added by --classes")
        return self.classes.index(name)

    @property
    def labels(self) -> Mapping[int, int]:
        """All labels that hold, by image: those given, and those of class folders."""
        return self._known()[0]

    @property
    def test_labels(self) -> Mapping[int, int]:
        """The labels of the unbiased test sample, by image."""
        return self._known()[1]

    @property
    def training_labels(self) -> Mapping[int, int]:
        """The labels that networks are trained on, by image."""
        return self._known()[2]

    def _known(self) -> tuple[Mapping[int, int], ...]:
        """Return all labels, those of the test, and the others, made once an action."""
        if self._folded != self.ledger.last_id:
            self._folded = self.ledger.last_id
            given = {
                image: action
                for image, action in self.ledger.labels.items()
                if image in self.paths and action.label is not None
            }
            labels = {
                image: label
                for image, label in self.folder_labels.items()
                if not self.ledger.is_settled(image)
            }
            labels.update((image, int(action.label or 0)) for image, action in given.items())
            test = {image: labels[image] for image, a in given.items() if a.source == TEST}
            training = {image: label for image, label in labels.items() if image not in test}
            self._sets = (labels, test, training)
        return self._sets

    def label_counts(self) -> Counter[int]:
        """Return how many images each class has."""
        return Counter(self.labels.values())

    @cached_property
    def pool(self) -> frozenset[int]:
        """The images that are there and have no class folder."""
        return frozenset(self.paths.keys() - self.folder_labels.keys())

    def is_in_pool(self, image: int) -> bool:
        """Tell whether an image is there and has no class folder."""
        return image in self.pool

    def add_model(self, row: ModelRow) -> None:
        """Keep what a new network says of the images kept for the test."""
        self.store.add_model(row)
        self._models.append(_Model(row))

    @property
    def accuracy(self) -> Accuracy | None:
        """How often the last network is right, by the test sample; None while that is empty."""
        return self._models[-1].accuracy(self.test_labels) if self._models else None

    @property
    def curve(self) -> list[tuple[int, Accuracy]]:
        """The accuracy of all networks on the test sample as it is now, by labels trained on."""
        labels = self.test_labels
        # trained again on as many labels, after a start or an undo, the later one counts
        latest = {model.n_labeled: model for model in self._models}
        points = ((n, latest[n].accuracy(labels)) for n in sorted(latest))
        return [(n, accuracy) for n, accuracy in points if accuracy is not None]

    def remember_contents(self) -> None:
        """Write size and hash of what was labelled, so that moved files are known again."""
        known = self.store.contents()
        new = [n for n in self.ledger.images() if n not in known and n in self.paths]
        contents = {n: content_of(self.root / self.paths[n]) for n in new}
        self.store.add_contents({n: facts for n, facts in contents.items() if facts})

    def _read_folder_labels(self) -> dict[int, int]:
        ids = {name: label for label, name in enumerate(self.classes)}
        numbers = {path: number for number, path in self.paths.items()}
        others = Counter(f.label for f in self.files if f.label is not None and f.label not in ids)
        for name, count in sorted(others.items()):
            _log.info("the folder %r is no class: its %d images count as unlabelled", name, count)
        return {
            numbers[file.path]: ids[file.label]
            for file in self.files
            if file.label in ids and file.path in numbers
        }

    def _draw_reserve(self) -> list[int]:
        """Draw the images kept for the test, each by a hash of its own.

        So an image is drawn or not whatever other images are there, or come later.
        """
        seed = self.store.meta()["seed"]
        drawn = []
        for number, path in self.store.first_paths().items():
            digest = hashlib.sha256(f"{seed} {path}".encode(errors="surrogateescape")).digest()
            if int.from_bytes(digest[:8]) < TEST_SHARE * 2**64 and self.is_in_pool(number):
                drawn.append((digest[8:], number))
        return [number for _, number in sorted(drawn)]


class _Model:
    """A network's answers on the images kept for the test."""

    def __init__(self, row: ModelRow) -> None:
        self.n_labeled = row.n_labeled
        images, predicted = (np.frombuffer(x, np.int64) for x in (row.images, row.predicted))
        self.predicted = dict(zip(images.tolist(), predicted.tolist(), strict=True))

    def accuracy(self, labels: Mapping[int, int]) -> Accuracy | None:
        known = [(self.predicted[i], label) for i, label in labels.items() if i in self.predicted]
        right = sum(predicted == label for predicted, label in known)
        return Accuracy.of(right, len(known)) if known else None


def check_classes(names: Iterable[str]) -> list[str]:
    """Check names of classes, which become names of folders.

    Parameters
    ----------
    names : iterable of str
        Space around them is taken off.

    Returns
    -------
    list of str

    Raises
    ------
    UsageError
        If one is empty, too long, named twice or cannot be a folder.
    """
    result: list[str] = []
    for given in names:
        name = unicodedata.normalize("NFC", given.strip())
        problem = None
        if not name or len(name) > LONGEST_CLASS:
            problem = f"has {len(name)} characters; expected 1 to {LONGEST_CLASS}"
        elif name[0] == "." or any(c in "/\\" or not c.isprintable() for c in name):
            problem = "cannot be a folder's name; expected no slash and no dot at its start"
        elif name.lower() in UNLABELED:
            problem = "is the name of the folder of images without a label"
        elif name.casefold() in (other.casefold() for other in result):
            problem = "is named twice"
        if problem:
            raise UsageError(f"the class {name!r} {problem}")
        result.append(name)
    return result


def check_annotator(name: str) -> str:
    """Check the name of an annotator.

    Raises
    ------
    ParameterError
        If it is empty, too long, or has characters that cannot be shown.
    """
    if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
        raise ParameterError(
            f"as: got {name[:LONGEST_NAME]!r}; expected a name of 1 to {LONGEST_NAME} letters"
        )
    return name


def _check_enough(classes: Sequence[str]) -> None:
    if len(classes) < 2:
        got = f"the class {classes[0]!r} alone" if classes else "no class"
        raise UsageError(
            f"there is {got}; name two or more by --classes daisy,rose,... or make a folder of "
            "images for each"
        )


def _check_names(config: RunConfig) -> None:
    """Find out early what the process that trains would find out late."""
    if ":" not in config.strategy:
        STRATEGIES.entry(config.strategy)
    if config.model is not None:
        MODELS.entry(config.model)


def _add_classes(store: Store, names: Sequence[str]) -> None:
    known = store.classes()
    new = [name for name in names if name not in known]
    check_classes([*known, *new])
    if new:
        store.add_classes(new)
    if new and known:
        _log.info("new classes: %s", ", ".join(new))


def _open_store(place: Path, create: bool, seed: int) -> Store:
    path = place / STORE
    if not create and not path.is_file():
        store = Store(None)
    else:
        try:
            place.mkdir(exist_ok=True)
        except OSError as error:
            raise RunFolderError(
                f"cannot write the labels to {str(place)!r}: {error.strerror}"
            ) from error
        store = Store(path)
    if "seed" not in store.meta():
        store.set_meta("seed", str(seed))
    return store


def _number(root: Path, store: Store, files: Sequence[ImageFile]) -> dict[int, str]:
    """Return the images that are there, by number; new ones get the next numbers."""
    there = {file.path for file in files if file.part != "test"}
    if len(there) < len(files):
        _log.info("%d images under test/ take no part in labelling", len(files) - len(there))
    if not there:
        raise DataError(f"no image under {str(root)!r} but those under test/")
    known = store.images()
    new = sorted(there - set(known.values()))
    gone = {number for number, path in known.items() if path not in there}
    moved = _find_moved(root, store, gone, new)
    start = max(known, default=-1) + 1
    rest = [path for path in new if path not in set(moved.values())]
    added = {**moved, **dict(enumerate(rest, start))}
    if added:
        store.add_images(added)
    if moved:
        _log.info("%d labelled images were moved; their labels go with them", len(moved))
    if gone - set(moved):
        _log.info("%d images of the project are no longer there", len(gone - set(moved)))
    present = {**known, **added}
    return {number: path for number, path in present.items() if path in there}


def _find_moved(root: Path, store: Store, gone: set[int], new: Sequence[str]) -> dict[int, str]:
    """Return where images that have a label and are gone lie now, if that can be told."""
    contents = {n: facts for n, facts in store.contents().items() if n in gone}
    if not contents:
        return {}
    sizes = {size for size, _ in contents.values()}
    by_content: dict[tuple[int, str], str] = {}
    for path in new:
        facts = content_of(root / path, sizes)
        if facts:
            by_content.setdefault(facts, path)
    moved: dict[int, str] = {}
    for number, facts in contents.items():
        if facts in by_content:
            moved[number] = by_content.pop(facts)
    return moved


def plain_text(text: str) -> str:
    """Return text that can be written anywhere: what stands for bytes of no character is lost."""
    return text.encode(errors="surrogateescape").decode(errors="replace")


def content_of(path: Path, sizes: Iterable[int] | None = None) -> tuple[int, str] | None:
    """Return size and SHA-256 of a file; None if it cannot be read, or its size is another.

    Parameters
    ----------
    path : Path
        The file.
    sizes : iterable of int, optional
        Which sizes are of interest.
    """
    try:
        size = path.stat().st_size
        if sizes is not None and size not in sizes:
            return None
        with path.open("rb") as file:
            return size, hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
