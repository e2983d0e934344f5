"""`LabelProject`: a folder of images, the labels given to them, and what is known by them."""

from __future__ import annotations

import hashlib
import logging
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..core.durable import fsync_folder, locked
from ..core.errors import (
    DataError,
    FolderNotFoundError,
    RunFolderError,
    UnknownNameError,
    UsageError,
)
from ..core.settings import RunConfig, resolve_count
from ..datasets.decoding import FORMATS
from ..datasets.index import ImageFile, find_images
from ..models import MODELS
from ..strategies.catalogue import STRATEGIES
from .accuracy import Accuracy
from .batches import GUESSES, Guesses, LearnerSetup
from .names import check_classes, shown
from .settings import read_settings, save_settings
from .store import Action, BatchRow, Ledger, ModelRow, Store

PLACE = ".skal"
STORE = "labels.sqlite"

TEST_SHARE = 0.1
"""Of the images that are shown, and of the pool that they are drawn from."""
TEST = "test"
"""Source of a label that no network is trained on while labelling goes on."""

MOST_POINTS = 40
"""Of a learning curve, so that it stays readable after hundreds of networks."""

_log = logging.getLogger("skal")


class LabelProject:
    """A folder of images with the labels that people give them; made by `open`.

    Images in a folder that is called as a class is count as labelled so: they are trained on and
    not shown. All others are the pool. A tenth of it, drawn at random, is kept for the test: the
    images of every tenth place that is shown come from there, in random order, and their labels
    train no network as long as labelling goes on. Whichever strategy picks the others, these are a
    uniform sample of the pool. What was once shown as one of them stays one, whoever labels it
    again.

    Attributes
    ----------
    id : str
        Drawn when the project was begun; no other project has the same.
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
        new_classes: Sequence[str] = (),
        *,
        is_read_only: bool = False,
    ) -> None:
        self.root = root
        self.name = root.resolve().name
        self.store = store
        self.id = store.meta()["project"]
        self.config = config
        self.overlap = overlap
        self.ledger = Ledger()
        self.on_action: Callable[[Action], None] = lambda action: None
        self._held = ExitStack()
        self._hasher: ThreadPoolExecutor | None = None
        self._hashed = set(store.contents())
        self._folded = (-1, -1)
        self._sets: tuple[Mapping[int, int], ...] = ()
        self._curve: tuple[object, list[tuple[int, Accuracy]]] = (None, [])
        self.classes = [*store.classes(), *new_classes]
        self.files = files
        batches = store.batches()
        self._batches = {row.round for row in batches}
        self._tests = {row.image for row in batches if row.kind == TEST}
        self.refresh()
        self._is_read_only = is_read_only
        if not is_read_only:
            self._remember(store.images(), self.ledger.images())
        self.paths, self._first_paths = self._number()
        self.folder_labels = self._read_folder_labels()
        self.reserve = self._draw_reserve()
        self._models = [_Model(row) for row in store.models()]
        self.guesses = Guesses.load(self.place / GUESSES) if store.path else None

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
        needs_pool: bool = False,
        alone: bool = False,
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
            Whether to begin a project where there is none, and to keep classes and settings;
            otherwise nothing is written.
        needs_classes, needs_pool : bool
            Whether fewer than two classes, or no image to label, are an error.
        alone : bool, default=False
            Whether it is an error if another process has it open so.

        Returns
        -------
        LabelProject

        Raises
        ------
        FolderNotFoundError, DataError, UsageError, RunFolderError
            If there is no such folder, no image or no class in it, a setting is not valid, or the
            project's files cannot be read or written. Nothing is written then.
        """
        root = Path(root)
        files = _find(root)
        place = root / PLACE
        config, share = read_settings(place, settings or {}, overlap)
        _check_names(config)
        if (settings or {}).get("pretrain"):
            from ..runs.pretraining import check_pretraining  # and torch with it

            check_pretraining(config)
        store = _store_to_read(place)
        names = _new_classes(store, files, check_classes(classes))
        known = [*store.classes(), *names]
        if needs_classes:
            _check_enough(known)
        if needs_pool:
            _check_pool(files, known)
        if not create:
            return cls(root, store, files, config, share, names, is_read_only=True)
        store.close()
        with ExitStack() as stack:
            _make_place(place)
            if alone:
                _hold(place, stack)
            store = Store(place / STORE)
            stack.callback(store.close)
            if "seed" not in store.meta():
                store.set_meta("seed", str(config.seed))
            _add_classes(store, names)
            save_settings(place, config, share)
            project = cls(root, store, files, config, share)
            project._held = stack.pop_all()
        return project

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

    @property
    def n_batches(self) -> int:
        """How many batches have been handed out since the project was begun."""
        return len(self._batches)

    def learner_setup(self) -> LearnerSetup:
        """Return what the learner needs of this project."""
        numbers = {path: number for number, path in self.paths.items()}
        keep = self.place / GUESSES if self.store.path else None
        of_test = sorted({*self.reserve, *self.test_labels})
        return LearnerSetup(self.root.resolve(), self.files, numbers, self.config, keep, of_test)

    def close(self) -> None:
        """Close the store, when all that was labelled can be told from other files."""
        if self._hasher is not None:
            self._hasher.shutdown()
        self.store.close()
        self._held.close()

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
        if self._hasher is None:
            self._hasher = ThreadPoolExecutor(1, thread_name_prefix="skal-contents")
        self._hasher.submit(self._remember, self.paths, {action.image for action in actions})
        return ids

    def add_batch(self, rows: Sequence[BatchRow]) -> None:
        """Write that images are to be shown, and which of them are of the test."""
        self.store.add_batch(rows)
        self._batches.update(row.round for row in rows)
        self._tests.update(row.image for row in rows if row.kind == TEST)

    def add_classes(self, names: Sequence[str]) -> None:
        """Add those of some classes that there are not yet."""
        _add_classes(self.store, [name for name in names if name not in self.store.classes()])
        self.classes = self.store.classes()

    def rename_class(self, old: str, new: str) -> None:
        """Give a class another name; its labels stay its own.

        Raises
        ------
        UnknownNameError, UsageError
            If there is no class `old`, or `new` is another's name or cannot be one.
        """
        number = self.class_id(old)
        (name,) = check_classes([new])
        check_classes([*(c for n, c in enumerate(self.classes) if n != number), name])
        self.store.name_class(number, name)
        self.classes = self.store.classes()

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
        state = (self.ledger.last_id, len(self._tests))
        if self._folded != state:
            self._folded = state
            labels = {
                image: label
                for image, label in self.folder_labels.items()
                if not self.ledger.is_settled(image)
            }
            labels.update(
                (image, action.label)
                for image, action in self.ledger.labels.items()
                if image in self.paths and action.label is not None
            )
            test = {image: label for image, label in labels.items() if self.is_test(image)}
            training = {image: label for image, label in labels.items() if image not in test}
            self._sets = (labels, test, training)
        return self._sets

    def is_test(self, image: int) -> bool:
        """Tell whether an image is of the unbiased test sample: once drawn, it stays in it."""
        return image in self._tests or self.ledger.first_sources.get(image) == TEST

    def label_counts(self) -> Counter[int]:
        """Return how many images each class has."""
        return Counter(self.labels.values())

    @cached_property
    def pool(self) -> frozenset[int]:
        """The images that are there and have no class folder."""
        return frozenset(self.paths.keys() - self.folder_labels.keys())

    def add_model(self, row: ModelRow) -> None:
        """Keep what a new network says of the images kept for the test."""
        self.store.add_model(row)
        self._models.append(_Model(row))

    @property
    def accuracy(self) -> Accuracy | None:
        """How often the last network is right, by the test sample; None while that is empty."""
        return self._models[-1].accuracy(self.test_labels) if self._models else None

    @property
    def n_known(self) -> int | None:
        """How many labels the last network was trained on; None while there is none."""
        return self._models[-1].n_labeled if self._models else None

    @property
    def curve(self) -> list[tuple[int, Accuracy]]:
        """The accuracy of the networks on the test sample as it is now, by labels trained on.

        Of many networks the first, the last, and some in between.
        """
        labels = self.test_labels
        state = (len(self._models), labels)
        if self._curve[0] != state:
            # trained again on as many labels, after a start or an undo, the later one counts
            latest = {model.n_labeled: model for model in self._models}
            places = np.linspace(0, len(latest) - 1, min(MOST_POINTS, len(latest))).round()
            chosen = [sorted(latest)[int(place)] for place in places]
            points = ((n, latest[n].accuracy(labels)) for n in chosen)
            self._curve = (state, [(n, found) for n, found in points if found is not None])
        return self._curve[1]

    def _remember(self, paths: Mapping[int, str], images: Iterable[int]) -> None:
        """Write size and hash of what was labelled, so that moved files are known again."""
        new = [n for n in images if n not in self._hashed and n in paths]
        contents = {n: content_of(self.root / paths[n]) for n in new}
        found = {n: facts for n, facts in contents.items() if facts}
        if found:
            self.store.add_contents(found)
            self._hashed |= found.keys()

    def _number(self) -> tuple[dict[int, str], dict[int, str]]:
        """Return the images that are there, by number, and where each was first.

        New ones get the next numbers.
        """
        there = {file.path for file in self.files if file.part != "test"}
        if len(there) < len(self.files):
            n_left_out = len(self.files) - len(there)
            _log.info("%d images under test/ take no part in labelling", n_left_out)
        if not there:
            raise DataError(f"no image under {str(self.root)!r} but those under test/")
        known = self.store.images()
        new = sorted(there - set(known.values()))
        gone = {number for number, path in known.items() if path not in there}
        moved = _find_moved(self.root, self.store, gone, new)
        rest = [path for path in new if path not in set(moved.values())]
        added = {**moved, **dict(enumerate(rest, max(known, default=-1) + 1))}
        if added and not self._is_read_only:
            self.store.add_images(added)
        if moved:
            _log.info("%d labelled images were moved; their labels go with them", len(moved))
        self._tell_gone({number: known[number] for number in sorted(gone - set(moved))})
        present = {**known, **added}
        paths = {number: path for number, path in present.items() if path in there}
        return paths, {**added, **self.store.first_paths()}

    def _tell_gone(self, gone: Mapping[int, str]) -> None:
        labeled = [path for number, path in gone.items() if number in self.ledger.labels]
        if labeled:
            _log.warning(
                "%d images of the project are no longer there, and %d of them have a label that "
                "does not count until they are back (the first: %s); put them where they were",
                len(gone),
                len(labeled),
                shown(labeled[0]),
            )
        elif gone:
            _log.info("%d images of the project are no longer there", len(gone))

    def _read_folder_labels(self) -> dict[int, int]:
        # a class that was renamed keeps the folder of its old name
        names_now = {name: label for label, name in enumerate(self.classes)}
        ids = {**self.store.class_names(), **names_now}
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
        seed = self.store.meta().get("seed", str(self.config.seed))
        drawn = []
        for number, path in self._first_paths.items():
            digest = hashlib.sha256(f"{seed} {path}".encode(errors="surrogateescape")).digest()
            if int.from_bytes(digest[:8]) < TEST_SHARE * 2**64 and number in self.pool:
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


def _check_pool(files: Sequence[ImageFile], classes: Sequence[str]) -> None:
    taking_part = [file for file in files if file.part != "test"]
    if taking_part and all(file.label in classes for file in taking_part):
        raise UsageError(
            f"all {len(taking_part)} images are in class folders: nothing is left to label; if "
            "these folders are no classes, name the classes by --classes"
        )


def _find(root: Path) -> list[ImageFile]:
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise FolderNotFoundError(f"{str(root)!r} {what}; expected a folder of images")
    try:
        return find_images(root)
    except DataError as error:  # which would have them in class folders
        told = str(error).partition("; expected")[0]
        raise DataError(f"{told}; expected {', '.join(FORMATS)} files") from error


def _store_to_read(place: Path) -> Store:
    path = place / STORE
    return Store(path, read_only=True) if path.is_file() else Store(None)


def _make_place(place: Path) -> None:
    """Make the project's own folder, so that no power loss takes it away again."""
    try:
        if not place.is_dir():
            place.mkdir()
            fsync_folder(place.parent)
    except OSError as error:
        raise RunFolderError(
            f"cannot write the labels to {str(place)!r}: {error.strerror}"
        ) from error


def _hold(place: Path, stack: ExitStack) -> None:
    """Keep another process from showing the same images to people."""
    lock = place / "lock"
    lock.touch()
    try:
        stack.enter_context(locked(lock))
    except RunFolderError as error:
        raise RunFolderError(
            f"{str(place.parent)!r} is being labelled by another process; several people label on "
            "one page, each under a name of their own (--as NAME, or the name in its header)"
        ) from error


def _new_classes(store: Store, files: Sequence[ImageFile], names: Sequence[str]) -> list[str]:
    """Return the classes to be added: those named, or, to a new project, those of its folders."""
    known = store.classes()
    if store.path is None and not names:
        names = check_classes(sorted({file.label for file in files if file.label is not None}))
    new = [name for name in names if name not in known]
    check_classes([*known, *new])
    return new


def _add_classes(store: Store, names: Sequence[str]) -> None:
    if names and store.classes():
        _log.info("new classes: %s", ", ".join(names))
    if names:
        check_classes([*store.classes(), *names])
        store.add_classes(names)


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
