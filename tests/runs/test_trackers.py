"""Trackers, on what they really write: an MLflow database, event files, wandb's offline files."""

from __future__ import annotations

import csv
import importlib
import json
import logging
import os
import pickle
import shutil
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.base import clone
from skorch.callbacks import Callback

import skal
from skal.cli import main
from skal.core.errors import MissingExtraError, ParameterError
from skal.core.seeding import derive_seed
from skal.runs.config import RunConfig
from skal.runs.plan import make_classifier
from skal.runs.record import SECONDS
from skal.runs.trackers import TRACKERS, RunLogger, Tracker, check_trackers, make_trackers

pytestmark = [
    # sqlalchemy, about what MLflow does with it
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
]

FAST: dict[str, Any] = {"n_init": 6, "n_query": 4, "n_rounds": 2, "steps": 25, "precision": "fp32"}
FILES = {
    "config.toml", "environment.json", "evaluation.json", "learning_curve.png",
    "learning_curve.svg", "log.txt", "queries.csv", "rounds.csv", "summary.json",
}  # fmt: skip


def need(package: str) -> Any:
    """Import a package; without it the test is skipped, but in CI it fails."""
    if os.environ.get("CI"):
        return importlib.import_module(package)
    return pytest.importorskip(package)


@dataclass
class Logged:
    """What a service was found to have of one run, whatever the number of its parts."""

    name: str | None
    group: str | None
    settings: dict[str, str]
    metrics: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)
    done: bool | None = None

    def add(self, name: str, step: float, value: float) -> None:
        self.metrics.setdefault(name, []).append((int(step), float(value)))


def read_mlflow(root: Path) -> list[Logged]:
    client = need("mlflow").MlflowClient(f"sqlite:///{root}/mlflow.db")
    found = []
    for experiment in client.search_experiments(filter_string="name != 'Default'"):
        for run in client.search_runs([experiment.experiment_id]):
            number = run.info.run_id
            logged = Logged(run.info.run_name, experiment.name, dict(run.data.params))
            for name in run.data.metrics:
                for metric in client.get_metric_history(number, name):
                    logged.add(name, metric.step, metric.value)
            logged.files = {file.path for file in client.list_artifacts(number)}
            assert run.info.status in ("FINISHED", "KILLED")
            logged.done = run.info.status == "FINISHED"
            found.append(logged)
    return found


def read_tensorboard(root: Path) -> list[Logged]:
    need("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    found = []
    for folder in sorted(root.rglob("tensorboard")):
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
        content = HParamsPluginData.FromString(
            events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        )
        logged = Logged(None, None, {})
        for name, value in content.session_start_info.hparams.items():
            logged.settings[name] = str(getattr(value, str(value.WhichOneof("kind"))))
        for name in events.Tags()["scalars"]:
            for event in events.Scalars(name):
                logged.add(name, event.step, event.value)
        found.append(logged)
    return found


def wandb_records(path: Path) -> Iterator[Any]:
    """Yield what an offline file holds: LevelDB's log format behind seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole, block = path.read_bytes(), 7, b"", 32768
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        if (left := block - at % block) < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or its last part
            yield Record.FromString(whole)
            whole = b""


def read_wandb(root: Path) -> list[Logged]:
    need("wandb").teardown()  # waits until all is written
    found: dict[str, Logged] = {}
    for path in sorted((root / "wandb").glob("offline-run-*/*.wandb")):
        records = list(wandb_records(path))
        run = next(r.run for r in records if r.WhichOneof("record_type") == "run")
        assert run.project == "skal"
        logged = found.setdefault(run.run_id, Logged(run.display_name, run.run_group or None, {}))
        for record in records:
            logged.settings |= {i.key: i.value_json.strip('"') for i in record.config.update}
            items = record.history.item
            values = {".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items}
            step = values.get("optimizer_step", values.get("n_labeled"))
            for name, value in values.items():
                if name[0] != "_" and name not in ("optimizer_step", "n_labeled"):
                    logged.add(name, step, value)
            for item in record.summary.update:
                if item.key in ("aulc", "seconds"):
                    logged.add(item.key, 0, json.loads(item.value_json))
            logged.files |= {file.path for file in record.artifact.manifest.contents}
            if record.WhichOneof("record_type") == "exit":
                logged.done = record.exit.exit_code == 0
    return list(found.values())


READERS: Mapping[str, Callable[[Path], list[Logged]]] = {
    "mlflow": read_mlflow,
    "tensorboard": read_tensorboard,
    "wandb": read_wandb,
}


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a folder of its own, with no service outside and nobody's credentials."""
    for name in list(os.environ):
        if name.startswith(("WANDB_", "MLFLOW_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / name.lower()))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()  # it reads the environment once


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a database with MLflow's tables, which takes longer than most tests."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    need("mlflow").MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def mlflow(root: Path, empty_database: Path) -> Any:
    shutil.copy(empty_database, root)
    return need("mlflow")


@pytest.fixture(params=READERS)
def service(request: pytest.FixtureRequest) -> str:
    need(request.param)
    if request.param == "mlflow":
        request.getfixturevalue("mlflow")
    return str(request.param)


def read_one(service: str, root: Path) -> Logged:
    (logged,) = READERS[service](root)
    return logged


class Stop(Exception):
    pass


class StopAt(Tracker):
    """Raises at the start of a part of a round."""

    def __init__(self, number: int, phase: str) -> None:
        self.where = (number, phase)

    def on_phase(self, round_number: int, phase: str) -> None:
        if (round_number, phase) == self.where:
            raise Stop


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "rounds.csv").open() as file:
        return list(csv.DictReader(file))


def same_but_seconds(run: skal.Run, other: skal.Run) -> bool:
    rows = [
        [{k: v for k, v in row.items() if k not in SECONDS} for row in one.rounds]
        for one in (run, other)
    ]
    return rows[0] == rows[1] and run.queries == other.queries


class Losses(Callback):
    """Keeps the loss of every batch."""

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        self.losses_: list[float] = []

    def on_batch_end(self, net: Any, training: bool = False, **kwargs: Any) -> None:
        self.losses_.append(net.history[-1, "batches", -1, "train_loss"])


def losses_of_trainings(run: skal.Run, data: skal.ImageDataset) -> list[list[float]]:
    """Train the networks of a run again, one by one."""
    result = []
    for row in run.rounds:
        y = np.full(len(data.X), -1)
        known = [q["index"] for q in run.queries if q["round"] <= row["round"]]
        y[known] = data.y[known]
        heard = Losses()
        seed = derive_seed(run.config.seed, "training", row["round"])
        classifier = make_classifier(run.config, data).set_params(random_state=seed)
        classifier.set_params(callbacks=[heard]).fit(data.X, y)
        result.append(heard.losses_)
    return result


# what is logged


def test_all_of_a_run_is_logged(service: str, tiny: skal.ImageDataset, root: Path) -> None:
    run = skal.run(
        tiny, "bald", **FAST, strategy_params={"n_samples": 3}, out="run", trackers=[service]
    )
    logged = read_one(service, root)
    rows = rows_of(root / "run")
    for name in set(rows[0]) - {"n_labeled"}:
        expected = [(int(row["n_labeled"]), float(row[name])) for row in rows if row[name]]
        assert logged.metrics[name] == [(n, pytest.approx(v, rel=1e-6)) for n, v in expected], name
    for name, value in run.config.as_dict().items():
        if name == "strategy_params":
            name, value = "strategy_params.n_samples", 3
        got = logged.settings[name]
        assert float(got) == value if isinstance(value, float) else got.lower() in (
            str(value).lower(), f"{value}.0"
        ), name  # fmt: skip
    assert logged.metrics["aulc"][-1][1] == pytest.approx(run.summary["aulc"])
    if service != "tensorboard":
        assert (logged.files, logged.name, logged.done) == (FILES, "run", True)


def test_the_losses_of_trainings_go_on_over_rounds(
    service: str, tiny: skal.ImageDataset, root: Path
) -> None:
    run = skal.run(tiny, "margin", **FAST, out="run", trackers=[service])
    metrics = read_one(service, root).metrics
    trainings = losses_of_trainings(run, tiny)
    assert [len(losses) for losses in trainings] == [25, 25, 25]
    tens = [
        (25 * k + 10 * i, pytest.approx(np.mean(losses[10 * i - 10 : 10 * i]), rel=1e-5))
        for k, losses in enumerate(trainings)
        for i in (1, 2)
    ]
    assert metrics["batch_loss"] == tens
    # as many images as are in a batch are labelled: each step is an epoch
    epochs = [(k + 1, pytest.approx(x, rel=1e-5)) for k, x in enumerate(chain(*trainings))]
    assert metrics["train_loss"] == epochs
    assert not {"dur", "Loss/train_loss"} & metrics.keys()


@pytest.mark.parametrize(
    "settings",
    [{"calibrate": "temperature"}, {"strategy": "query-by-committee", "stop": "off"}],
    ids=["calibration", "committee"],
)
def test_trainings_of_copies_are_not_logged(
    tiny: skal.ImageDataset, settings: dict[str, Any]
) -> None:
    logger = InMemory()
    skal.run(tiny, **{"strategy": "margin", **FAST, **settings}, trackers=[logger])
    steps = [step for step, values in logger.trainings if "train_loss" in values]
    assert steps == [*range(1, 76)]
    assert logger.progress.steps == 75


def test_a_tracked_run_is_the_same_run(service: str, tiny: skal.ImageDataset) -> None:
    plain = skal.run(tiny, "badge", **FAST)
    assert same_but_seconds(skal.run(tiny, "badge", **FAST, out="run", trackers=[service]), plain)


def test_the_classifier_of_a_tracked_run_tells_nobody(
    service: str, tiny: skal.ImageDataset, root: Path
) -> None:
    classifier = skal.run(tiny, "badge", **FAST, out="run", trackers=[service]).classifier
    before = read_one(service, root).metrics
    again = pickle.loads(pickle.dumps(classifier))
    for one in (classifier, again, clone(classifier)):
        one.partial_fit(tiny.X, tiny.y)
    np.testing.assert_array_equal(
        again.predict_proba(tiny.X_test), classifier.predict_proba(tiny.X_test)
    )
    assert read_one(service, root).metrics == before


def test_the_runs_of_a_comparison_are_a_group(
    mlflow: Any, tiny: skal.ImageDataset, root: Path
) -> None:
    for package in READERS:
        need(package)
    for cell in ("one", "two"):
        cells = Path("grid/cells")
        cells.mkdir(parents=True, exist_ok=True)
        settings = {**FAST, "n_rounds": 0}
        skal.run(tiny, "random", **settings, out=cells / cell, trackers=list(READERS))
    for service in ("mlflow", "wandb"):
        logged = READERS[service](root)
        assert {(one.group, one.name) for one in logged} == {("grid", "one"), ("grid", "two")}
    places = {path.parent.relative_to(root) for path in root.rglob("events.out.*")}
    assert places == {Path("grid/cells", cell, "tensorboard") for cell in ("one", "two")}


# going on


@pytest.mark.parametrize(
    "where", [(0, "training"), (1, "querying"), (2, "training"), (2, "evaluating")], ids=str
)
def test_a_run_that_is_gone_on_with_stays_one_run(
    service: str, tiny: skal.ImageDataset, root: Path, where: tuple[int, str]
) -> None:
    with pytest.raises(Stop):
        skal.run(tiny, "badge", **FAST, out="run", trackers=[service, StopAt(*where)])
    begun = read_one(service, root) if service != "tensorboard" else None
    assert begun is None or begun.done is False
    run = skal.resume("run", data=tiny, trackers=[service])
    logged = read_one(service, root)
    assert logged.metrics["accuracy"] == [
        (row["n_labeled"], pytest.approx(row["accuracy"])) for row in run.rounds
    ]
    # what was cut off is trained again: the same figures at the same steps
    ends = {(step, round(value, 5)) for step, value in logged.metrics["train_loss"]}
    assert sorted(step for step, _ in ends) == [*range(1, 76)]
    assert begun is None or logged.done is True


def test_rounds_that_were_not_logged_are_made_up_for(
    service: str, tiny: skal.ImageDataset, root: Path
) -> None:
    with pytest.raises(Stop):
        skal.run(tiny, "badge", **FAST, out="run", trackers=[StopAt(2, "querying")])
    run = skal.resume("run", data=tiny, trackers=[service])
    logged = read_one(service, root)
    assert [step for step, _ in logged.metrics["accuracy"]] == [6, 10, 14]
    assert logged.settings["seed"] in ("0", "0.0")
    assert logged.metrics["nll"][0][1] == pytest.approx(run.rounds[0]["nll"])


def test_a_run_that_is_gone_on_with_untracked_says_so(
    tiny: skal.ImageDataset, caplog: pytest.LogCaptureFixture
) -> None:
    need("tensorboard")
    with pytest.raises(Stop):
        skal.run(tiny, **FAST, out="run", trackers=["tensorboard", StopAt(1, "training")])
    skal.resume("run", data=tiny)
    assert "was tracked by tensorboard before, and continues without it" in caplog.text


def test_mlflow_goes_on_in_the_database_it_began_in(
    mlflow: Any, tiny: skal.ImageDataset, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Stop):
        skal.run(tiny, **FAST, out="run", trackers=["mlflow", StopAt(1, "training")])
    (root / "elsewhere").mkdir()
    monkeypatch.chdir(root / "elsewhere")
    skal.resume(root / "run", data=tiny, trackers=["mlflow"])
    assert len(read_one("mlflow", root).metrics["accuracy"]) == 3
    assert not list((root / "elsewhere").iterdir())


def test_runs_that_start_at_once_share_a_new_database(root: Path) -> None:
    need("mlflow")
    code = "from skal.runs.trackers import check_trackers as check; check(['mlflow'], None)"
    both = [subprocess.Popen([sys.executable, "-c", code], cwd=root) for _ in range(2)]
    assert [one.wait() for one in both] == [0, 0]
    assert read_mlflow(root) == []


def test_where_mlflow_was_told_to_log_is_not_kept(
    mlflow: Any, tiny: skal.ImageDataset, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "mlflow.db").rename(root / "told.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/told.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    skal.run(tiny, **{**FAST, "n_rounds": 0}, out="run", trackers=["mlflow"])
    assert not (root / "mlflow.db").exists()
    assert "told" not in (root / "run/tracking.json").read_text()
    (root / "told.db").rename(root / "mlflow.db")
    assert read_one("mlflow", root).group == "mine"


# what goes wrong


class InMemory(RunLogger):
    """Logs to lists; raises where it is told to."""

    name = package = "json"

    def __init__(self, fail_at: str = "") -> None:
        super().__init__()
        self.fail_at, self.calls = fail_at, list[str]()
        self.trainings: list[tuple[int, Mapping[str, float]]] = []

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if call == self.fail_at:
            raise ConnectionError("the server is gone")

    def open(self, config: RunConfig, folder: Path | None) -> None:
        self._note("open")

    def log_settings(self, settings: Mapping[str, Any]) -> None:
        self._note("settings")

    def log_round(self, values: Mapping[str, float], n_labeled: int) -> None:
        self._note(f"round {values['round']:.0f}")

    def log_training(self, values: Mapping[str, float], step: int) -> None:
        self.trainings.append((step, values))
        self._note(f"step {step}")

    def log_summary(
        self, values: Mapping[str, float], n_labeled: int, files: Sequence[Path]
    ) -> None:
        self._note("summary")

    def close(self, done: bool) -> None:
        self._note("close")


@pytest.mark.parametrize("where", ["round 0", "step 35", "step 50", "round 2", "summary", "close"])
def test_a_run_goes_on_without_a_tracker_that_fails(
    tiny: skal.ImageDataset, root: Path, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    plain = skal.run(tiny, "margin", **FAST)
    failing, other = InMemory(where), InMemory()
    run = skal.run(tiny, "margin", **FAST, out="run", trackers=[failing, other])
    assert same_but_seconds(run, plain)
    assert failing.calls[-1] == where
    assert other.calls[-2:] == ["summary", "close"]
    (warning,) = [
        r.getMessage() for r in caplog.records if "continues without it" in r.getMessage()
    ]
    assert warning == "tracker json failed; the run continues without it: the server is gone"


@pytest.mark.parametrize("where", ["open", "settings"])
def test_a_tracker_that_cannot_start_ends_the_run_before_any_training(
    tiny: skal.ImageDataset, root: Path, where: str
) -> None:
    with pytest.raises(skal.SkalError, match="tracker json cannot start: the server is gone"):
        skal.run(tiny, **FAST, out="run", trackers=[InMemory(where)])
    assert not (root / "run/rounds.csv").exists()
    skal.resume("run", data=tiny, trackers=[InMemory()])


def test_a_database_that_breaks_does_not_end_the_run(
    mlflow: Any, tiny: skal.ImageDataset, root: Path, caplog: pytest.LogCaptureFixture
) -> None:

    class Breaker(Tracker):
        def on_round(self, row: Mapping[str, Any]) -> None:
            if row["round"] == 1:
                with sqlite3.connect(root / "mlflow.db") as database:
                    database.execute("DROP TABLE latest_metrics")

    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
    run = skal.run(tiny, **FAST, out="run", trackers=["mlflow", Breaker()])
    assert len(run.rounds) == 3
    warnings = [r.getMessage() for r in caplog.records if r.name == "skal" and r.levelno >= 30]
    assert len(warnings) == 1
    assert "tracker mlflow failed; the run continues without it" in warnings[0]
    assert json.loads((root / "run/tracking.json").read_text())["mlflow"]["rounds"] == 2


@pytest.mark.parametrize(
    ("name", "environment", "message"),
    [
        ("mlflow", {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}, "Connection refused"),
        ("wandb", {"WANDB_MODE": "online"}, "No API key configured"),
    ],
)
def test_a_service_that_is_not_there_is_said_before_anything_is_written(
    tiny: skal.ImageDataset,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    environment: dict[str, str],
    message: str,
) -> None:
    need(name)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(skal.SkalError, match=f"tracker {name} cannot start: .*{message}") as error:
        skal.run(tiny, **FAST, out="run", trackers=[name])
    assert error.value.exit_code == 1
    assert not (root / "run").exists()


def test_tensorboard_wants_a_folder(tiny: skal.ImageDataset, root: Path) -> None:
    need("tensorboard")
    with pytest.raises(ParameterError, match="writes to the run folder, but the run has none"):
        skal.run(tiny, **FAST, trackers=["tensorboard"])
    from skal.runs.trackers.tensorboard import TensorBoardTracker

    skal.run(tiny, **FAST, trackers=[TensorBoardTracker(root / "tensorboard")])
    assert len(read_one("tensorboard", root).metrics["accuracy"]) == 3


@pytest.mark.parametrize("name", READERS)
def test_a_package_that_is_not_there_is_named_with_what_to_install(
    root: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    expected = rf"tracker {name} needs the package '{name}': pip install 'skal\[{name}\]'"
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, name, None)
        with pytest.raises(MissingExtraError, match=expected):
            make_trackers([name])
        # nor is a folder of that name the package
        patched.delitem(sys.modules, name)
        (root / name).mkdir()
        patched.setattr(sys, "path", [str(root)])
        patched.setattr(sys, "meta_path", [sys.meta_path[-1]])
        with pytest.raises(MissingExtraError, match=expected):
            make_trackers([name])


def test_a_run_that_is_gone_from_its_service_is_said(
    mlflow: Any, tiny: skal.ImageDataset, root: Path
) -> None:
    with pytest.raises(Stop):
        skal.run(tiny, **FAST, out="run", trackers=["mlflow", StopAt(1, "training")])
    state = json.loads((root / "run/tracking.json").read_text())
    state["mlflow"]["run_id"] = "0" * 32
    (root / "run/tracking.json").write_text(json.dumps(state))
    with pytest.raises(skal.SkalError, match=r"not found .*logged before; see run/tracking\.json"):
        skal.resume("run", data=tiny, trackers=["mlflow"])


def test_a_tracker_of_ones_own_may_end_the_run(tiny: skal.ImageDataset) -> None:
    class Deaf(Tracker):
        def skorch_callbacks(self, round_number: int) -> Sequence[Any]:
            raise Stop

    with pytest.raises(Stop):
        skal.run(tiny, **FAST, trackers=[Deaf()])


def test_a_tracker_of_ones_own_hears_each_training(tiny: skal.ImageDataset) -> None:
    heard: dict[int, Losses] = {}

    class Hearing(Tracker):
        def skorch_callbacks(self, round_number: int) -> Sequence[Any]:
            return (heard.setdefault(round_number, Losses()),)

    run = skal.run(tiny, "margin", **FAST, trackers=[Hearing()])
    assert [heard[k].losses_ for k in range(3)] == losses_of_trainings(run, tiny)


# the command line


def test_the_command_line_tracks_runs_and_goes_on(root: Path) -> None:
    need("tensorboard")
    need("mlflow")
    words = "run --dataset digits --strategy margin --n-rounds 1 --steps 12 --out run"
    track = " --track tensorboard --track mlflow --track mlflow"
    done = CliRunner().invoke(main, words + track)
    assert done.exit_code == 0, done.output
    (root / "run/summary.json").unlink()
    lines = (root / "run/journal.jsonl").read_text().splitlines(keepends=True)
    (root / "run/journal.jsonl").write_text("".join(lines[:-1]))
    state = json.loads((root / "run/tracking.json").read_text())
    state["mlflow"].update(rounds=1, steps=12)
    (root / "run/tracking.json").write_text(json.dumps(state))
    done = CliRunner().invoke(main, ["resume", "run", "--track", "mlflow"])
    assert done.exit_code == 0, done.output
    assert {step for step, _ in read_one("mlflow", root).metrics["accuracy"]} == {20, 40}


def test_a_wrong_name_of_a_tracker_is_a_usage_error(root: Path) -> None:
    done = CliRunner().invoke(main, ["run", "--dataset", "digits", "--track", "mlfow"])
    assert done.exit_code == 2
    assert "unknown tracker 'mlfow'; did you mean mlflow?" in done.output
    assert not (root / "runs").exists()


def test_trackers_are_listed_and_none_is_imported() -> None:
    assert set(TRACKERS.names()) >= set(READERS)
    code = (
        "import sys; from skal.cli import main\n"
        "try: main(['list', 'trackers', '--json'])\n"
        "except SystemExit: print([m for m in ('mlflow', 'wandb', 'tensorboard') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, imported = done.stdout.splitlines()
    assert {row["name"] for row in json.loads(names)} >= set(READERS)
    assert imported == "[]"


def test_checking_makes_trackers_and_asks_each(root: Path) -> None:
    asked: list[Path | None] = []

    class Asked(Tracker):
        def check(self, folder: Path | None) -> None:
            asked.append(folder)

    assert len(check_trackers([Asked(), Asked()], root / "run")) == 2
    assert asked == [root / "run"] * 2
