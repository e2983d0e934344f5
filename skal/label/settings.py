"""What a label project keeps of the settings of a run, in its ``project.toml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import tomli_w

from ..core.durable import check_signed, signed, write_atomic
from ..core.errors import ParameterError
from ..core.settings import Setting, override, resolve_share
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
"""Settings of a run that decide which images are shown."""
OF_TRAINING = tuple(
    name
    for name in RUN_SETTINGS
    if name
    in ("seed", "image_size", "white", "pages", "data_dir", "model", "pretrain", "pretrain_steps")
    or (name in TRAINING_SETTINGS and name != "warm_start")
)
"""Settings of a run that a network is trained by."""
DEFAULTS: Mapping[str, Any] = {"init_strategy": "herding"}


def _statement(name: str) -> Setting:
    """Return a setting of a run as it is in a label project, where no true label is known."""
    setting = RUN_SETTINGS[name]
    choices = tuple(choice for choice in setting.choices if choice != "stratified")
    return replace(setting, default=DEFAULTS.get(name, setting.default), choices=choices)


SETTINGS = {name: _statement(name) for name in (*OF_CHOOSING, *OF_TRAINING)}
"""What a label project takes of the settings of a run."""


def read_settings(
    place: Path, given: Mapping[str, Any], overlap: str | None
) -> tuple[RunConfig, float]:
    """Read the settings in a project's folder `place`, with those given now over those given
    before.

    `overlap` is the share of the images that two annotators are to see. A ParameterError or
    UnknownNameError tells what is not valid, a RunFolderError that the file is damaged.
    """
    path = place / SETTINGS_FILE
    before = _kept(path) if path.exists() else {}
    if overlap is not None:
        before["overlap"] = overlap
    share = resolve_share("overlap", before.pop("overlap", 0.0))
    places = {name: given[name] for name in ("weights", "data_dir") if given.get(name)}
    given = {**given, **{n: str(Path(place).expanduser().resolve()) for n, place in places.items()}}
    if given.get("strategy", before.get("strategy")) != before.get("strategy"):
        before.pop("strategy_params", None)  # they were another strategy's
    if "stratified" in (before.get("init_strategy"), given.get("init_strategy")):
        raise ParameterError("init_strategy stratified needs labels that are known beforehand")
    return RunConfig(**{**DEFAULTS, **override(SETTINGS, before, given)}), share


def _kept(path: Path) -> dict[str, Any]:
    """Return the settings in a file; a RunFolderError is raised if it is damaged."""
    check_signed(
        path, "; remove it to begin with the settings by default, and give the others as options"
    )
    return read_toml(path, [*SETTINGS, "overlap"])


def save_settings(place: Path, config: RunConfig, overlap: float) -> None:
    """Write what `read_settings` reads, if it is not there already."""
    values = {name: value for name, value in config.as_dict().items() if name in SETTINGS}
    content = signed(tomli_w.dumps({"overlap": overlap, **values}))
    path = place / SETTINGS_FILE
    if not path.is_file() or path.read_text(encoding="utf-8") != content:
        write_atomic(path, content)
