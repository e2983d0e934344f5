"""What a label project keeps of the settings of a run, in its ``project.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from ..core.durable import write_atomic
from ..core.errors import ParameterError, UnknownNameError
from ..core.settings import RunConfig, resolve_share

SETTINGS_FILE = "project.toml"
SETTINGS = (
    "strategy",
    "strategy_params",
    "model",
    "n_init",
    "n_query",
    "init_strategy",
    "explore",
    "max_candidates",
    "seed",
    "image_size",
    "steps",
    "epochs",
    "train_batch_size",
    "optimizer",
    "lr",
    "label_smoothing",
    "average",
    "clip_norm",
    "balanced",
    "mixup",
    "patience",
    "pretrain",
    "pretrain_steps",
    "pretrained",
    "weights",
    "freeze",
    "finetune",
    "head",
    "device",
    "precision",
    "compile",
    "data_dir",
)
"""What a label project takes of the settings of a run."""
OF_CHOOSING = (
    "strategy",
    "strategy_params",
    "n_init",
    "n_query",
    "init_strategy",
    "explore",
    "max_candidates",
)
"""Those of them that decide which images are shown."""
OF_TRAINING = tuple(name for name in SETTINGS if name not in OF_CHOOSING)
"""Those of them that a network is trained by."""
DEFAULTS: Mapping[str, Any] = {"init_strategy": "typiclust"}


def read_settings(
    place: Path, given: Mapping[str, Any], overlap: str | None
) -> tuple[RunConfig, float]:
    """Read the settings of a project, with those given now over those given before.

    Parameters
    ----------
    place : Path
        The project's own folder; it need not exist.
    given : mapping
        Settings given now.
    overlap : str, optional
        Share of the images that two annotators are to see.

    Returns
    -------
    config : RunConfig
    overlap : float

    Raises
    ------
    ParameterError, UnknownNameError
        If one is not valid, or the file cannot be read.
    """
    before: dict[str, Any] = {}
    path = place / SETTINGS_FILE
    if path.is_file():
        try:
            before = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ParameterError(f"cannot read {str(path)!r}: {error}") from error
    if overlap is not None:
        before["overlap"] = overlap
    share = resolve_share("overlap", before.pop("overlap", 0.0))
    for name in before:
        if name not in SETTINGS:
            raise UnknownNameError(f"setting in {path}:", name, [*SETTINGS, "overlap"])
    places = {name: given[name] for name in ("weights", "data_dir") if given.get(name)}
    given = {**given, **{n: str(Path(place).expanduser().resolve()) for n, place in places.items()}}
    if given.get("strategy", before.get("strategy")) != before.get("strategy"):
        before.pop("strategy_params", None)  # they were another strategy's
    for one, other in (("steps", "epochs"), ("epochs", "steps")):
        if one in given and other not in given:
            before.pop(other, None)
    config = RunConfig(**{**DEFAULTS, **before, **given})
    if config.init_strategy == "stratified":
        raise ParameterError("init_strategy stratified needs labels that are known beforehand")
    return config, share


def save_settings(place: Path, config: RunConfig, overlap: float) -> None:
    """Write what `read_settings` reads, if it is not there already."""
    values = {name: value for name, value in config.as_dict().items() if name in SETTINGS}
    content = tomli_w.dumps({"overlap": overlap, **values})
    path = place / SETTINGS_FILE
    if not path.is_file() or path.read_text(encoding="utf-8") != content:
        write_atomic(path, content)
