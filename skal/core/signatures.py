"""Expands ``**settings`` in signatures and docstrings, for `help` and completion."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeVar

from .kinds import Setting
from .settings import Settings, settings_of

Documented = TypeVar("Documented", bound=Callable[..., Any])

PLACEHOLDER = re.compile(r"^([ ]*)\*\*settings\n", re.MULTILINE)
"""The line of a docstring that the descriptions of the settings replace."""
_WIDTH = 92


def shows_settings(
    of: type[Settings], *more: type[Settings], omit: Collection[str] = ()
) -> Callable[[Documented], Documented]:
    """Return a decorator that replaces ``**settings`` in a signature and docstring by the settings,
    except `omit` and those that are already parameters or described.
    """
    settings = {name: s for each in (of, *more) for name, s in settings_of(each).items()}
    settings = {name: s for name, s in settings.items() if name not in omit}

    def decorate(target: Documented) -> Documented:
        function: Any = target.__init__ if inspect.isclass(target) else target
        signature = inspect.signature(function)
        kept = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        further = [
            inspect.Parameter(
                setting.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=setting.default,
                annotation=setting.type + " | None" * setting.optional,
            )
            for setting in settings.values()
            if setting.name not in signature.parameters
        ]
        function.__signature__ = signature.replace(parameters=[*kept, *further])
        target.__doc__ = with_parameters(target.__doc__, settings.values())
        return target

    return decorate


def with_parameters(docstring: str | None, settings: Iterable[Setting]) -> str | None:
    """Return a docstring whose line ``**settings`` is replaced by the settings it does not have."""
    if docstring is None:  # python -OO
        return None
    found = PLACEHOLDER.search(docstring)
    if found is None:
        raise ValueError("the docstring has no line **settings")
    heads = re.findall(r"^ *([\w, ]+) :", docstring, re.MULTILINE)
    described = {name.strip() for head in heads for name in head.split(",")}
    further = (setting for setting in settings if setting.name not in described)
    entries = textwrap.indent("".join(map(_entry, further)), found[1])
    return docstring[: found.start()] + entries + docstring[found.end() :]


def _entry(setting: Setting) -> str:
    """Return a setting as a parameter of a numpydoc docstring."""
    words = {"Count": "int or str", "Share": "float or str", "Mapping[str, Any]": "mapping"}
    choices = ", ".join(f'"{choice}"' for choice in setting.choices)
    kind = f"{{{choices}}}" if choices else words.get(setting.type, setting.type)
    default = f'"{setting.default}"' if isinstance(setting.default, str) else setting.default
    shown = ", optional" if default in (None, {}, ()) else f", default={default}"
    sentences = [f"{in_python(setting.help)}.", setting.details, *setting.dependencies()]
    text = " ".join(filter(None, sentences))
    paragraph = textwrap.indent(textwrap.fill(text, _WIDTH - 4, break_long_words=False), "    ")
    return f"{setting.name} : {kind}{shown}\n{paragraph}\n"


def in_python(text: str) -> str:
    """Return a text with flags such as ``--n-init`` replaced by names such as `n_init`."""
    return re.sub(r"--([a-z][a-z-]*)", lambda flag: f"`{flag[1].replace('-', '_')}`", text)
