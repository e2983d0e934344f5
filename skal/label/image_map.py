"""The map of all images: where each lies, and what is known of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.errors import MissingExtraError
from .beside import Beside
from .layout import Layout, by_pca, check_tsne, on_grid
from .learning import Pickers
from .telling import CAUSES

SIDE = 10_000
"""Of the square that points lie in."""
KINDS = tuple(CAUSES)
"""Why images are shown; a point of one that waits to be shown has the place of its kind."""


class ImageMap(Beside):
    """The map: there is one as soon as the learner knows what images are alike by, and a better
    one, see `skal.label.layout.by_tsne`, when it was asked for and computed.
    """

    what = "map by t-SNE"
    _found: Layout | None = None
    _n_asked = 0

    def ask(self) -> None:
        """Let the better map be computed, unless it is, or is that of all images."""
        with self._service.lock:
            n = len(self._service.project.paths)
            is_known = self._n_asked == n and not self.state.startswith("failed")
            if self._submit is None or self.state == "computing" or is_known:
                return
            try:
                check_tsne()
            except MissingExtraError as error:  # what there is does as well
                self.state = str(error)
                return
            self._n_asked, self.state = n, "computing"
        self._submit(lay_out, self.take, self._fail)

    def take(self, layout: Layout) -> None:
        with self._service.lock:
            self._found, self.state = layout, "ready"

    def look(self, *, suggest: bool = True) -> dict[str, Any]:
        """Return the points, in columns of the same order.

        Beside the places x and y, of 0 to `SIDE`, stand the numbers of the class that people gave
        and of that which the network says, how unsure that is in percent, and the place in `KINDS`
        of why an image waits to be shown; -1 is none. Unless it may `suggest`, it tells what the
        network says only of images that have a label.
        """
        with self._service.looking() as project:
            guesses = project.guesses
            layout = self._found
            if layout is None and guesses is not None:
                layout = Layout(guesses.images, by_pca(guesses.embeddings), "PCA")
            if layout is None:
                return {"state": self.state, "method": "", "images": [], "kinds": KINDS}
            there = np.array([n in project.paths for n in layout.images.tolist()], bool)
            images = layout.images[there].tolist()
            numbers = [*project.class_list.numbers, -1]
            labels, done = project.labels, project.ledger.is_settled
            rows = self._service.batches.rows
            waiting = {row.image: row.kind for row in rows if not done(row.image)}
            columns = {
                "label": [numbers[labels.get(n, -1)] for n in images],
                "why": [KINDS.index(waiting[n]) if n in waiting else -1 for n in images],
            }
        x, y = on_grid(layout.points[there], SIDE).T.tolist() if images else ([], [])
        guess, unsure = _said(guesses, images, numbers)
        if not suggest:
            is_known = (n in labels for n in images)
            guess = [said if known else -1 for said, known in zip(guess, is_known, strict=True)]
        columns |= {"images": images, "x": x, "y": y, "guess": guess, "unsure": unsure}
        return {"state": self.state, "method": layout.method, "kinds": KINDS, **columns}


def lay_out(pickers: Pickers) -> Layout:
    return pickers.of_today().layout()


def _said(guesses: Any, images: list[int], numbers: list[int]) -> tuple[list[int], list[int]]:
    """Return the class that the network says of each image, and in percent how unsure it is."""
    if guesses is None or not guesses.is_of_network:
        return [-1] * len(images), [-1] * len(images)
    best = np.sort(guesses.proba, axis=1)
    unsure = np.append(np.rint(100 - 100 * (best[:, -1] - best[:, -2])), -1).astype(int)
    said = np.append(guesses.proba.argmax(1), -1)
    rows = np.array([guesses.rows.get(n, -1) for n in images], dtype=int)
    return np.array(numbers)[said[rows]].tolist(), unsure[rows].tolist()
