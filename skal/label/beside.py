"""What is looked at and computed beside the labelling, when somebody asks for it."""

from __future__ import annotations

import logging

from .learning import Ask, Failure
from .service import LabelService

_log = logging.getLogger("skal")


class Beside:
    """Looks at a service's project; nothing of the project is changed by it.

    What takes long is computed by `submit`, the `ask` of a `Learner`, and not at all without one;
    `state` is "none", "computing", "ready", or tells why there is none.
    """

    what = "answer"

    def __init__(self, service: LabelService, submit: Ask | None = None) -> None:
        self._service, self._submit = service, submit
        self.state = "none"

    def _fail(self, failure: Failure) -> None:
        text = "no %s: %s"
        _log.warning(text, self.what, failure.reason, extra={"details": failure.details})
        with self._service.lock:
            self.state = f"failed: {failure.reason}"
