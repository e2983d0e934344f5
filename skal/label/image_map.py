"""The map of all images: their points, labels and predictions."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.errors import MissingExtraError
from .beside import Beside
from .layout import Layout, by_pca, check_tsne, on_grid
from .learning import Pickers
from .telling import CAUSES

SIDE = 10_000
"""The side of the square that contains all points."""
KINDS = tuple(CAUSES)
"""Why queued images are shown; points have the index of their kind."""


class ImageMap(Beside):
    """The map: PCA once there are embeddings, t-SNE (`skal.label.layout.by_tsne`) once computed."""

    what = "map by t-SNE"
    _found: Layout | None = None
    _n_asked = 0

    def ask(self) -> None:
        """Start to compute the t-SNE, unless it is running or up to date."""
        with self._service.lock:
            n = len(self._service.project.paths)
            is_known = self._n_asked == n and not self.state.startswith("failed")
            if self._submit is None or self.state == "computing" or is_known:
                return
            try:
                check_tsne()
            except MissingExtraError as error:  # keep the map by PCA
                self.state = str(error)
                return
            self._n_asked, self.state = n, "computing"
        self._submit(lay_out, self.take, self._fail)

    def take(self, layout: Layout) -> None:
        with self._service.lock:
            self._found, self.state = layout, "ready"

    def look(self, *, suggest: bool = True) -> dict[str, Any]:
        """Return the points as columns of equal length.

        These are x and y, from 0 to `SIDE`, the class numbers of label and prediction, the
        uncertainty in percent, and the index in `KINDS` of why an image is queued; -1 is none.
        Without `suggest`, predictions of unlabelled images are left out.
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
    """Return the predicted class of each image, and the uncertainty in percent."""
    if guesses is None or not guesses.is_of_network:
        return [-1] * len(images), [-1] * len(images)
    best = np.sort(guesses.proba, axis=1)
    unsure = np.append(np.rint(100 - 100 * (best[:, -1] - best[:, -2])), -1).astype(int)
    said = np.append(guesses.proba.argmax(1), -1)
    rows = np.array([guesses.rows.get(n, -1) for n in images], dtype=int)
    return np.array(numbers)[said[rows]].tolist(), unsure[rows].tolist()
