"""The run settings that a label project stores in its ``project.toml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import tomli_w

from ..core.durable import check_signed, signed, write_atomic
from ..core.errors import ParameterError
from ..core.kinds import Setting, resolve_share
from ..core.settings import override
from ..core.settings import read_settings as read_toml
from ..runs.config import SETTINGS as RUN_SETTINGS
from ..runs.config import TRAINING_SETTINGS, RunConfig

SETTINGS_FILE = "project.toml"
OF_CHOOSING = (
    "strategy",
    "strategy_params",
    "n_init",
    "n_query",
    "init_strategy",
    "explore",
    "max_candidates",
)
"""Run settings that decide which images are shown."""
OF_TRAINING = tuple(
    name
    for name in RUN_SETTINGS
    if name
    in ("seed", "image_size", "white", "pages", "data_dir", "model", "pretrain", "pretrain_steps")
    or (name in TRAINING_SETTINGS and name != "warm_start")
)
"""Run settings of network training."""
DEFAULTS: Mapping[str, Any] = {"init_strategy": "herding"}


def _statement(name: str) -> Setting:
    """Return a run setting adapted to label projects, in which true labels are unknown."""
    setting = RUN_SETTINGS[name]
    choices = tuple(choice for choice in setting.choices if choice != "stratified")
    return replace(setting, default=DEFAULTS.get(name, setting.default), choices=choices)


SETTINGS = {name: _statement(name) for name in (*OF_CHOOSING, *OF_TRAINING)}
"""All run settings that apply to label projects."""


class Terms(NamedTuple):
    """The share of images to show to two annotators, and the target accuracy, if any."""

    overlap: float = 0.0
    until: float | None = None


def read_settings(
    place: Path, given: Mapping[str, Any], terms: Mapping[str, str | None]
) -> tuple[RunConfig, Terms]:
    """Read the settings in a project's folder `place`; those `given` override stored ones.

    `terms` are given fields of `Terms`. Raise a ParameterError or UnknownNameError for invalid
    settings, and a RunFolderError if the file is damaged.
    """
    before = _kept(place)
    before.update({name: value for name, value in terms.items() if value is not None})
    overlap, until = (before.pop(name, default) for name, default in Terms()._asdict().items())
    wanted = None if until is None else resolve_share("until", until)
    if wanted == 1:  # no interval is above 100%
        raise ParameterError(f"until: got {until!r}; expected a share below 100%")
    agreed = Terms(resolve_share("overlap", overlap), wanted or None)
    places = {name: given[name] for name in ("weights", "data_dir") if given.get(name)}
    given = {**given, **{n: str(Path(place).expanduser().resolve()) for n, place in places.items()}}
    if given.get("strategy", before.get("strategy")) != before.get("strategy"):
        before.pop("strategy_params", None)  # they belong to another strategy
    if "stratified" in (before.get("init_strategy"), given.get("init_strategy")):
        raise ParameterError(
            "init_strategy: got stratified, which needs known labels; choose another one"
        )
    return RunConfig(**{**DEFAULTS, **override(SETTINGS, before, given)}), agreed


def kept_pages(place: Path) -> str:
    """Return the stored setting ``pages`` of a project's folder `place`."""
    return str(_kept(place).get("pages", SETTINGS["pages"].default))


def _kept(place: Path) -> dict[str, Any]:
    """Return the settings in a folder; raise a RunFolderError if their file is damaged."""
    path = place / SETTINGS_FILE
    if not path.exists():
        return {}
    check_signed(
        path, "; remove it to start from the default settings, and give the others as options"
    )
    return read_toml(path, [*SETTINGS, *Terms._fields])


def save_settings(place: Path, config: RunConfig, terms: Terms) -> None:
    """Write the settings for `read_settings`, if they have changed."""
    values = {name: value for name, value in config.as_dict().items() if name in SETTINGS}
    agreed = {name: value for name, value in terms._asdict().items() if value is not None}
    content = signed(tomli_w.dumps({**agreed, **values})).encode(errors="surrogateescape")
    path = place / SETTINGS_FILE
    if not path.is_file() or path.read_bytes() != content:
        write_atomic(path, content)
