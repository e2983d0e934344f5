"""`LabelProject`: a folder of images, their labels, and what follows from them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from ..core.durable import LEFT, fsync_folder, remove_leftovers
from ..core.errors import RunFolderError
from ..core.kinds import resolve_count
from ..core.memory import without_collector
from ..datasets.addresses import Addresses
from ..datasets.deep import Ranges
from ..datasets.index import ImageFile, check_folder
from ..datasets.loading import data_folder, how_to_decode
from ..datasets.pixel_cache import ranges_of
from ..runs.config import RunConfig
from . import images
from .checks import (
    check_config,
    check_enough,
    check_foreign,
    check_pages,
    check_pool,
    store_to_read,
)
from .classes import Classes, parse_pairs, tell_new
from .copies import check_there, keep_copy
from .enough import Verdict, forecast, judge
from .holding import hold
from .kept_classes import ClassEdits, KeptClasses
from .learning import GUESSES, BatchRequest, Guesses, LearnerSetup
from .ledger import TEST, Known, Ledger
from .listing import Files, Numbers
from .names import check_classes, told_apart
from .notes import Notes
from .numbering import Numbering
from .sample import Accuracy, History, TestedModel, draw_reserve
from .settings import SETTINGS_FILE, Terms, kept_pages, read_settings, save_settings
from .store import Action, BatchRow, ModelRow, Store

HOME = ".skal"
STORE = "labels.sqlite"

_log = logging.getLogger("skal")


class LabelProject:
    """A folder of images with the labels that people give them; made by `open`.

    Images in a folder named like a class have its label (`folder_labels`): they are trained on and
    not shown. All others are the `pool`. A random tenth of it, `reserve`, is held out as the test
    set; see `skal.label.sample`.

    `paths` has the path of each existing image, relative to `root`, by number. `class_list` has the
    classes; the id of a class is its index in `classes`. `id` is a random id of the project, `home`
    is its own folder, and `on_action` is called with each new action.
    """

    def __init__(
        self,
        root: Path,
        store: Store,
        files: Files,
        config: RunConfig,
        terms: Terms,
        new_classes: Sequence[str] = (),
        *,
        is_read_only: bool = False,
        is_quiet: bool = False,
    ) -> None:
        self.root, self.home = root, root / HOME
        self._is_read_only, self._is_quiet = is_read_only, is_quiet
        self.name = root.resolve().name
        self.store = store
        self.id = store.meta()["project"]
        self.config, self.terms = config, terms
        self.ledger = Ledger()
        self.on_action: Callable[[Action], None] = lambda action: None
        self._held = ExitStack()
        self._contents = images.Contents(root, store)
        self._verdict: tuple[object, Verdict | None] = (None, None)
        self._known: Known | None = None
        self._news: list[int] = []  # images answered since `known` was updated
        batches = store.batches()
        self._batches = {row.round for row in batches}
        self._tests = {row.image for row in batches if row.kind == TEST}
        self._classes = KeptClasses(store, new_classes)
        self.notes = Notes(store)
        self.refresh()
        self.take_files(files)
        if not is_read_only:
            self._contents.write(self.paths, self.ledger.images())
        self._is_quiet = False
        self.history = self._read_history()
        guesses = Guesses.load(self.home / GUESSES) if store.path else None
        self.guesses = guesses and guesses.by_class(self.class_list)

    @classmethod
    @without_collector()
    def open(
        cls,
        root: str | Path,
        classes: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
        overlap: str | None = None,
        *,
        until: str | None = None,
        create: bool = True,
        needs_classes: bool = True,
        needs_pool: bool = False,
        alone: bool = False,
        files: Sequence[ImageFile] | None = None,
    ) -> Self:
        """Open the project of a folder, or start one.

        New `classes` are added; without any, a new project has those of its class folders.
        `settings`, `overlap` (the share of images for two annotators) and `until` (the target
        accuracy) change stored ones. With `create`, files are written once everything was
        validated. `needs_classes` and `needs_pool` make fewer than two classes, or no image to
        label, an error; `alone` locks the project. `files` are the images, if just listed; missing
        and moved ones are then not reported.

        Raise a FolderNotFoundError, DataError, UsageError or RunFolderError if the folder does not
        exist or has no image or class, a setting is not valid, or the project's files cannot be
        read or written.
        """
        root = Path(root)
        check_folder(root)
        home = root / HOME
        path = home / STORE
        check_there(path, home / SETTINGS_FILE)
        store = store_to_read(path)  # first, because all files share its format
        config, agreed = read_settings(home, settings or {}, {"overlap": overlap, "until": until})
        is_listed = files is not None
        files = images.find(root, config.pages) if files is None else Files.of(files)
        check_pages(root, kept_pages(home), config.pages, store, files)
        if settings is not None:  # custom code must be named again by the caller
            check_foreign(home / SETTINGS_FILE, config, settings)
        check_config(config, settings or {})
        before = Classes(store.class_names())
        folders = sorted({label for _, label in files.counts() if label is not None})
        names = before.to_add(check_classes(classes) or ([] if before.names else folders))
        known = [*before.names, *names]
        if needs_classes:
            check_enough(known, root, files)
        if needs_pool:
            check_pool(files, known)
        if not create:
            return cls(root, store, files, config, agreed, names, is_read_only=True)
        store.close()
        with ExitStack() as stack:
            try:
                home.mkdir(exist_ok=True)
                fsync_folder(root)  # so that the folder survives a power loss
                remove_leftovers(home, untouched=LEFT)
            except OSError as error:
                message = f"cannot write the labels to {str(home)!r}: {error.strerror}"
                raise RunFolderError(message) from error
            if alone:
                hold(home, stack)
                stack.callback(keep_copy, path)  # also at the end, after a page was open for days
            store = Store(path)
            stack.callback(store.close)
            with store.transaction():
                if "seed" not in store.meta():
                    store.set_meta("seed", str(config.seed))
                store.name_classes(Classes(store.class_names()).numbered(names))
            save_settings(home, config, agreed)
            project = cls(root, store, files, config, agreed, is_quiet=is_listed)
            tell_new(before.names, names)
            if names or not before.names:  # log this once, not with each command
                images.tell_left_out(files, project.class_list.by_name)
            project._held = stack.pop_all()
        keep_copy(path)
        return project

    @property
    def n_query(self) -> int:
        return resolve_count("n_query", self.config.n_query, len(self.paths))

    @property
    def n_init(self) -> int:
        return resolve_count("n_init", self.config.n_init, len(self.paths))

    @property
    def n_batches(self) -> int:
        return len(self._batches)

    def request(
        self, candidates: Sequence[int], n: int, labels: Mapping[int, int] | None = None
    ) -> BatchRequest:
        """Return a request for the next `n` of some images, given `labels` or the current ones."""
        labels = self.training_labels if labels is None else labels
        numbers = tuple(self.class_list.numbers)
        return BatchRequest(tuple(self.classes), labels, candidates, n, self.n_batches, numbers)

    def addresses(self) -> tuple[Addresses, dict[str, int]]:
        """Return what locates images by addresses in other files, and the image of each path."""
        by_path, alike = self.numbers, dict[str, list[str]]()
        if not all(map(str.isascii, by_path)):
            by_text, alike = told_apart(by_path)
            by_path = {text: by_path[path] for text, path in by_text.items()}
        addresses = Addresses(by_path, self.root.resolve().as_posix(), alike)
        if alike:
            by_path = {path: n for path, n in by_path.items() if path not in alike}
        return addresses, by_path

    @cached_property
    def ranges(self) -> Ranges:
        """The black and white levels of images of more than 8 bits, the same as for networks."""
        how = how_to_decode(white=self.config.white, pages=self.config.pages)
        files = [file for file in self.files if file.is_of_use]
        return ranges_of(self.root, files, how, data_folder(self.config.data_dir) / "cache")

    def learner_setup(self) -> LearnerSetup:
        root, keep = self.root.resolve(), self.home / GUESSES if self.store.path else None
        of_test = sorted({*self.reserve, *self.test_labels})
        return LearnerSetup(root, self.files, self.paths, self.config, keep, of_test)

    def take_files(self, files: Files) -> None:
        """Update the images of the project; raise a DataError if there are none."""
        numbering = Numbering(
            self.store,
            self._contents,
            self.ledger.labels,
            self.ledger.settled(),
            is_read_only=self._is_read_only,
            is_quiet=self._is_quiet,
        )
        self.paths = numbering.of(images.taking_part(self.root, files))
        self.files, names = files, self.class_list.by_name
        self.folder_labels = images.labels_of_folders(files, self.paths, names)
        in_pool = self.paths.mask()
        in_pool[[*self.folder_labels]] = False
        self.pool = Numbers(in_pool)
        self._reserve: list[int] | None = None
        self._known = None

    @property
    def numbers(self) -> dict[str, int]:
        """The number of each path, as a new dict."""
        return self.paths.numbers()

    @property
    def reserve(self) -> list[int]:
        """The images held out for the test set, in random order."""
        if self._reserve is None:
            seed = self.store.meta().get("seed", str(self.config.seed))
            moved = self.store.first_paths()
            paths = {**self.paths, **moved} if moved else self.paths
            self._reserve = draw_reserve(seed, paths, self.pool)
        return self._reserve

    def close(self) -> None:
        """Close the store, after hashing labelled images."""
        self._contents.finish()
        self.store.close()
        self._held.close()

    def refresh(self) -> None:
        """Read the actions written since, by this process or another."""
        news = self.store.actions(after=self.ledger.last_id)
        if not all(self.class_list.knows(action.label) for action in news):
            self._classes.refresh()
        for action in map(self.said, news):
            self.ledger.apply(action)
            self._news.append(action.image)
            self.on_action(action)
        self.notes.refresh()

    def said(self, action: Action) -> Action:
        """Return an action of the store with ids of classes instead of numbers; None if removed."""
        ids = self.class_list.ids
        label, guess = (None if n is None else ids.get(n) for n in (action.label, action.guess))
        is_same = (label, guess) == (action.label, action.guess)
        return action if is_same else action._replace(label=label, guess=guess)

    def record(self, actions: Sequence[Action]) -> list[int]:
        """Write actions and apply them; see `Store.append`."""
        ids = self.write(actions)
        self.refresh()
        return ids

    def write(self, actions: Sequence[Action]) -> list[int]:
        """Write actions; the project applies them at its next `refresh`."""
        numbers = self.class_list.numbers
        if numbers != [*range(len(numbers))]:  # else ids equal numbers
            number = self.class_list.number_of
            actions = [a._replace(label=number(a.label), guess=number(a.guess)) for a in actions]
        ids = self.store.append(actions)
        said = [action.image for action in actions if action.action != "undo"]
        others = {a.image for a in actions if self.ledger.verdicts(a.image).keys() - {a.annotator}}
        self._contents.write_later(self.paths, said, others)
        return ids

    def add_batch(self, rows: Sequence[BatchRow]) -> None:
        """Write images to show, and which of them belong to the test set."""
        self.store.add_batch(rows)
        self._batches.update(row.round for row in rows)
        self._tests.update(tests := [row.image for row in rows if row.kind == TEST])
        self._news += tests

    def add_model(self, row: ModelRow) -> None:
        """Store a new network's predictions for the test images."""
        self.store.add_model(row)
        self.history.models.append(TestedModel(row, self.class_list.ids))

    @property
    def class_list(self) -> Classes:
        return self._classes.now

    @property
    def classes(self) -> list[str]:
        return self.class_list.names

    def class_id(self, name: str) -> int:
        """Return the id of a class by a present or former name; else raise UnknownNameError."""
        return self.class_list.id_of(name)

    def add_classes(self, names: Sequence[str]) -> None:
        self._classes.add(names)

    def change_classes(
        self, renamings: Sequence[str], mergers: Sequence[str] = (), removals: Sequence[str] = ()
    ) -> None:
        """Rename, merge and remove classes, all or none.

        Renamings are given as ``OLD=NEW``, mergers as ``OLD=OTHER``, removals as names; former
        names are not accepted.
        """
        self._classes.change(renamings, mergers, removals)
        self._take_classes(bool(mergers or removals))

    def choose_keys(self, given: Sequence[str]) -> None:
        """Set custom keys of classes, given as ``cat=c,dog=d``."""
        parts = ",".join(given).split(",") if given else []
        pairs = parse_pairs(parts, "--keys", "CLASS=KEY")
        numbers = self.class_list.numbers
        keys = {numbers[self.class_id(name)]: key for name, key in pairs}
        self.edit_classes(ClassEdits(keys))

    def edit_classes(self, edits: ClassEdits) -> None:
        """Apply edits of classes and their keys."""
        self._classes.edit(edits)
        if edits.into or edits.names or edits.new:
            self._take_classes(bool(edits.into))

    def _take_classes(self, are_fewer: bool) -> None:
        """Update what depends on the classes, including the labels of class folders."""
        if are_fewer:
            self.ledger = Ledger()
            self.refresh()
            self.history = self._read_history()
        self.take_files(self.files)
        self.guesses = self.guesses and self.guesses.by_class(self.class_list)

    def _read_history(self) -> History:
        return History([TestedModel(row, self.class_list.ids) for row in self.store.models()])

    @property
    def labels(self) -> Mapping[int, int]:
        """All current labels by image: those given, and those of class folders."""
        return self.known.labels

    @property
    def test_labels(self) -> Mapping[int, int]:
        """The labels of the test set, by image."""
        return self.known.test

    @property
    def disputed(self) -> set[int]:
        """The existing images with different labels of people that nobody has settled."""
        return {image for image in self.ledger.disputed if image in self.paths}

    @property
    def training_labels(self) -> Mapping[int, int]:
        return self.known.training

    @property
    def known(self) -> Known:
        """The current labels, updated once per action."""
        folders, given, news = self.folder_labels, self.ledger.labels, self._news
        if self._known is None or not folders.keys().isdisjoint(news):
            labels = {n: label for n, label in folders.items() if not self.ledger.is_settled(n)}
            self._known, news = Known.of(labels, self.is_test), [*given]
        if news:
            now = ((n, given[n].label if n in given and n in self.paths else None) for n in news)
            self._known = self._known.after(now, self.is_test)
        self._news = []
        return self._known

    def is_test(self, image: int) -> bool:
        """Return whether an image belongs to the test set; once drawn, it always does."""
        return image in self._tests or self.ledger.first_sources.get(image) == TEST

    @property
    def accuracy(self) -> Accuracy | None:
        """The accuracy of the last network on the test set; None while that is empty."""
        last = self.history.last
        return last.accuracy(self.test_labels) if last else None

    @property
    def verdict(self) -> Verdict | None:
        """Whether the target accuracy is reached; None without a target."""
        if self.terms.until is None:
            return None
        state = (len(self.history.models), self.test_labels)
        if self._verdict[0] != state:
            ahead = forecast(*self.history.wrong(self.test_labels), self.terms.until)
            self._verdict = (state, judge(self.terms.until, self.accuracy, ahead))
        return self._verdict[1]

    @property
    def curve(self) -> list[tuple[int, Accuracy]]:
        """The accuracy of the networks on the test set; see `History.curve`."""
        return self.history.curve(self.test_labels)
