"""What a labelling interface of Label Studio asks of an image."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple
from xml.etree import ElementTree

from .tasks import FROM_NAME, TO_NAME


class Question(NamedTuple):
    """What a labelling interface asks: the names of question and image, and of the latter's field
    in a task's data, and the classes, None if they are not known.
    """

    from_name: str = FROM_NAME
    to_name: str = TO_NAME
    field: str = "image"
    classes: Collection[str] | None = None

    @classmethod
    def of(cls, interface: Any) -> Question:
        """Read a labelling interface: its first choices of an image; ours if there are none."""
        try:
            root = ElementTree.fromstring(interface)
        except (ElementTree.ParseError, TypeError, ValueError):
            return cls()
        fields = {one.get("name", ""): one.get("value", "") for one in root.iter("Image")}
        for one in root.iter("Choices"):
            to_name = one.get("toName", "")
            if to_name in fields:
                classes = {choice.get("value", "") for choice in one.iter("Choice")}
                field = fields[to_name].removeprefix("$")
                return cls(one.get("name", ""), to_name, field, classes)
        return cls()
