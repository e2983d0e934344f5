"""Views and computations on request, in the background of labelling."""

from __future__ import annotations

import logging

from .learning import Ask, Failure
from .service import LabelService

_log = logging.getLogger("skal")


class Beside:
    """A read-only view of a service's project.

    Long computations run with `submit`, the `ask` of a `Learner`, or not at all without one.
    `state` is "none", "computing", "ready", or the reason of a failure.
    """

    what = "answer"

    def __init__(self, service: LabelService, submit: Ask | None = None) -> None:
        self._service, self._submit = service, submit
        self.state = "none"

    def _fail(self, failure: Failure) -> None:
        text = "cannot compute the %s: %s"
        _log.warning(text, self.what, failure.reason, extra={"details": failure.details})
        with self._service.lock:
            self.state = f"failed: {failure.reason}"
