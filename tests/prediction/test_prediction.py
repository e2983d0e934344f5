"""`skal predict`, as its users notice it."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from skactiveml.pool import UncertaintySampling

import skal
from skal.cli import main
from skal.core.errors import (
    DataError,
    MissingExtraError,
    ParameterError,
    RunExistsError,
    RunFolderError,
    SkalError,
    UnknownNameError,
    UsageError,
)
from skal.datasets.decoding import Decoded, decode, to_channels
from skal.prediction.predictor import in_lots
from skal.strategies.scores import ScoredClassifier, Scores

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
dataset = pytest.importorskip("pyarrow.dataset")

SIZE = 12
CLASSES = ("cat", "dog", "eel")
N = 25
BAD = "b/deep/bad.jpg"
Pictures = Path


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pictures:
    """25 pictures in folders that mean nothing, and one that cannot be read; we are among them."""
    root, rng = tmp_path / "pictures", np.random.default_rng(0)
    for place in ("", "a", "b/deep", "train", "val"):
        (root / place).mkdir(parents=True, exist_ok=True)
        for number in range(5):
            pixels = rng.integers(0, 256, (14, 20, 3), np.uint8)
            Image.fromarray(pixels).save(root / place / f"{number}.png")
    (root / BAD).write_bytes(b"no image")
    (root / "notes.txt").write_text("no image either")
    monkeypatch.chdir(root)
    return root


def trained(folder: Path, channels: int = 3, **settings: Any) -> Path:
    rng = np.random.default_rng(1)
    X = rng.integers(0, 256, (30, channels, SIZE, SIZE), np.uint8)
    classifier = skal.ImageClassifier(
        classes=[0, 1, 2], steps=20, random_state=0, precision="fp32", **settings
    ).fit(X, np.arange(30) % 3)
    folder.mkdir()
    skal.save_classifier(classifier, folder, class_names=CLASSES)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("models") / "run")


def predicted(model: Path, out: Path, *paths: Path | str, **options: Any) -> Any:
    """Predict, in parts of 7, the pictures that we are among, and return the table."""
    skal.predict(model, paths or ["."], out, **{"shard_size": 7, "threads": 1, **options})
    return read(out)


def read(out: Path) -> Any:
    if out.suffix == ".csv":
        return rows_of(out.read_bytes().decode(errors="surrogateescape"))
    return dataset.dataset(out).to_table().sort_by("path")


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def parts(out: Path) -> dict[str, tuple[int, int]]:
    """Tell which parts there are, and which were written anew."""
    stats = {path.name: path.stat() for path in out.glob("*.parquet")}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}


def readable(table: Any) -> Any:
    return table.filter(dataset.field("error").is_null())


def expected(model: Path, paths: Sequence[str]) -> tuple[Any, np.ndarray, np.ndarray]:
    """Return the classifier, and what it says of some pictures."""
    classifier = skal.load_classifier(model)
    pixels = np.stack([decode(Path(path), SIZE) for path in paths])
    pixels = to_channels(pixels, classifier.image_shape_[0])
    return classifier, *classifier.predict_proba(pixels, extra_outputs="emb")


def column(table: Any, name: str) -> np.ndarray:
    return np.array(table[name].to_pylist())


def skal_(*args: Any) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


# What is in it.


def test_every_image_has_a_row_with_what_the_network_says(
    pictures: Pictures, model: Path, tmp_path: Path
) -> None:
    table = predicted(model, tmp_path / "s.parquet", embeddings=True)
    paths = table["path"].to_pylist()
    assert paths == sorted(str(p.relative_to(pictures)) for p in pictures.rglob("*.[pj]*g"))
    assert len(paths) == N + 1
    bad = paths.index(BAD)
    good = [path for path in paths if path != BAD]
    _, proba, embeddings = expected(model, good)
    table = table.filter(np.arange(N + 1) != bad)
    for number, name in enumerate(CLASSES):
        assert column(table, f"p_{name}") == pytest.approx(proba[:, number], abs=1e-5)
    assert column(table, "class").tolist() == [CLASSES[k] for k in proba.argmax(1)]
    assert column(table, "probability") == pytest.approx(proba.max(1), abs=1e-5)
    assert column(table, "embedding") == pytest.approx(embeddings, abs=1e-3)


def test_a_csv_file_has_the_same_rows_with_empty_ones_for_what_cannot_be_read(
    pictures: Pictures, model: Path, tmp_path: Path
) -> None:
    rows = predicted(model, tmp_path / "s.csv")
    assert list(rows[0]) == ["path", "class", "probability", "p_cat", "p_dog", "p_eel"]
    table = predicted(model, tmp_path / "s")
    assert [row["path"] for row in rows] == table["path"].to_pylist()
    for row, other in zip(rows, table.to_pylist(), strict=True):
        if row["path"] == BAD:
            assert set(row.values()) == {BAD, ""}
        else:
            assert row["class"] == other["class"]
            assert float(row["p_dog"]) == pytest.approx(other["p_dog"], abs=1e-6)
            assert row["probability"] == row[f"p_{row['class']}"]


def test_a_csv_file_has_utilities_and_embeddings_when_they_are_asked_for(
    pictures: Pictures, model: Path, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {"utilities": ["margin"], "embeddings": True}
    rows = predicted(model, tmp_path / "s.csv", **asked)
    table = readable(predicted(model, tmp_path / "s", **asked))
    rows = [row for row in rows if row["class"]]
    assert [float(row["utility_margin"]) for row in rows] == pytest.approx(
        column(table, "utility_margin"), abs=1e-6
    )
    found = [[float(row[f"embedding_{k}"]) for k in range(3)] for row in rows]
    assert np.array(found) == pytest.approx(column(table, "embedding")[:, :3], abs=1e-5)


def test_files_and_folders_may_be_named_together_and_rows_have_their_paths_as_named(
    pictures: Pictures, model: Path, tmp_path: Path
) -> None:
    (pictures / "ein Ordner/ä").mkdir(parents=True)
    (pictures / "a/0.png").rename(pictures / "ein Ordner/ä/größe 1.png")
    named = ["val/3.png", "ein Ordner", pictures / "train", "notes.txt"]
    rows = predicted(model, tmp_path / "s.csv", *named)
    inside = [str(pictures / f"train/{k}.png") for k in range(5)]
    assert [row["path"] for row in rows] == [
        "val/3.png",
        "ein Ordner/ä/größe 1.png",
        *inside,
        "notes.txt",
    ]
    assert [bool(row["class"]) for row in rows] == [True] * 7 + [False]


def test_a_file_that_is_named_several_times_has_one_row_where_it_is_named_first(
    pictures: Pictures, model: Path, tmp_path: Path
) -> None:
    named = ["val/3.png", "val/3.png", "val", pictures / "val/1.png", "./val"]
    rows = predicted(model, tmp_path / "s.csv", *named)
    assert [row["path"] for row in rows] == [f"val/{k}.png" for k in (3, 0, 1, 2, 4)]


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("margin", "margin_sampling"),
        ("entropy", "entropy"),
        ("least-confidence", "least_confident"),
    ],
)
def test_utilities_are_those_by_which_the_strategy_of_that_name_picks(
    pictures: Pictures, model: Path, tmp_path: Path, name: str, method: str
) -> None:
    table = readable(predicted(model, tmp_path / "s"))
    proba = np.stack([column(table, f"p_{name}") for name in CLASSES], axis=1).astype(np.float32)
    _, theirs = UncertaintySampling(method=method, missing_label=-1).query(
        np.arange(N)[:, None],
        np.full(N, -1),
        ScoredClassifier(Scores(np.arange(3), proba)),
        fit_clf=False,
        return_utilities=True,
    )
    assert column(table, f"utility_{name}") == pytest.approx(theirs[0], abs=1e-6)


def test_strategies_that_score_image_by_image_may_be_named(
    pictures: Pictures, model: Path, tmp_path: Path
) -> None:
    names = ["bald?n_samples=5", "bald", "expected-gradient-length", "entropy"]
    table = predicted(model, tmp_path / "s", utilities=names)
    assert [c for c in table.column_names if c.startswith("utility_")] == [
        f"utility_{name}" for name in names
    ]
    table = readable(table)
    classifier, proba, embeddings = expected(model, table["path"].to_pylist())
    pixels = np.stack([decode(Path(path), SIZE) for path in table["path"].to_pylist()])
    samples = classifier.sample_proba(pixels, 20, random_state=0).astype(np.float64)

    def entropy(p: np.ndarray) -> np.ndarray:
        return -(p * np.log(p)).sum(-1)

    bald = entropy(samples.mean(0)) - entropy(samples).mean(0)
    assert column(table, "utility_bald") == pytest.approx(bald, abs=1e-4)
    gradients = [
        sum(p[y] * np.linalg.norm(np.outer(p - np.eye(3)[y], [*h, 1])) for y in range(3))
        for p, h in zip(proba, embeddings, strict=True)
    ]
    assert column(table, "utility_expected-gradient-length") == pytest.approx(gradients, rel=1e-3)


def test_unreadable_files_have_a_row_that_says_why(
    pictures: Pictures, model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    done = skal.predict(model, ["."], tmp_path / "s", embeddings=True)
    (row,) = read(tmp_path / "s").filter(dataset.field("path") == BAD).to_pylist()
    assert row.pop("path") == BAD
    assert "not one of JPEG" in row.pop("error")
    assert set(row.values()) == {None}
    assert (done.n_images, done.n_unreadable, done.n_computed) == (N + 1, 1, N + 1)
    assert f"cannot read {BAD}: not one of" in caplog.text


@pytest.mark.parametrize("name", ["s.csv", "s.parquet"])
def test_a_part_of_unreadable_files_alone_is_no_obstacle(
    pictures: Pictures, model: Path, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    (pictures / "bad").mkdir()
    for number in range(12):
        (pictures / f"bad/{number:02}.png").write_bytes(b"")
    asked = {"embeddings": True, "utilities": ["bald", "expected-gradient-length?layers=all"]}
    table = predicted(model, tmp_path / name, "bad", "a", shard_size=4, **asked)
    assert len(table) == 17
    if name == "s.parquet":
        assert table["error"].to_pylist() == [None] * 5 + ["empty file"] * 12
        assert table["p_cat"].null_count == table["embedding"].null_count == 12
        # which pyarrow before 26 cannot read back if its lists had a fixed size
        assert table.schema.field("embedding").type == pa.list_(pa.float32())
    told = [line for line in caplog.messages if "cannot read" in line]
    assert len(told) == 10  # the others are left to the debug log
    assert "... and more unreadable files" in caplog.text
    with pytest.raises(DataError, match=r"cannot read any of the 12 images \(bad/00.png: empty"):
        predicted(model, tmp_path / "none.csv", "bad")
    assert not (tmp_path / "none.csv").exists()


def test_a_network_of_grey_images_sees_grey(pictures: Pictures, tmp_path: Path) -> None:
    grey = trained(tmp_path / "grey", channels=1)
    table = readable(predicted(grey, tmp_path / "s"))
    _, proba, _ = expected(grey, table["path"].to_pylist())
    assert column(table, "p_dog") == pytest.approx(proba[:, 1], abs=1e-5)


def test_grey_is_as_pillow_makes_it() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 40, 40), np.uint8)
    theirs = [np.asarray(Image.fromarray(p.transpose(1, 2, 0)).convert("L")) for p in pixels]
    assert np.array_equal(to_channels(pixels, 1)[:, 0], theirs)
    assert to_channels(pixels, 3) is pixels
    assert to_channels(pixels[:0], 1).shape == (0, 1, 40, 40)


def test_paths_that_are_no_utf_8_are_escaped_in_parquet_and_as_they_are_in_csv(
    pictures: Pictures, model: Path, tmp_path: Path
) -> None:
    (pictures / "odd").mkdir()
    Path("a/0.png").rename(os.fsdecode(b"odd/caf\xe9.png"))
    table = predicted(model, tmp_path / "s", "odd")
    assert table["path"].to_pylist() == ["odd/caf\\udce9.png"]
    predicted(model, tmp_path / "s.csv", "odd")
    assert b"odd/caf\xe9.png," in (tmp_path / "s.csv").read_bytes()


def chunk(n: int, first: int = 0) -> Decoded:
    return Decoded([str(first + k) for k in range(n)], np.zeros((n, 3, 2, 2), np.uint8), {})


def test_chunks_are_joined_until_a_gpu_is_filled_or_memory_is() -> None:
    def sizes(*numbers: int, least: int, at_once: tuple[int, int]) -> list[int]:
        lots = in_lots(iter([chunk(n) for n in numbers]), least, at_once)
        return [len(lot.pixels) for lot in lots]

    assert sizes(5, 5, 5, 5, 5, 1, least=12, at_once=(1, 10_000)) == [15, 11]
    assert sizes(5, 5, 5, least=1, at_once=(96, 10_000)) == [10, 5]  # an image has 12 bytes
    assert sizes(5, 5, 5, least=100, at_once=(1, 96)) == [10, 5]
    (lot,) = in_lots(iter([chunk(2), chunk(1, 2)]), 100, (1, 10_000))
    assert list(lot.paths) == ["0", "1", "2"]


# One file, a folder, and resuming.


def test_the_file_has_what_the_folder_has(pictures: Pictures, model: Path, tmp_path: Path) -> None:
    folder = predicted(model, tmp_path / "s", embeddings=True)
    file = predicted(model, tmp_path / "s.parquet", embeddings=True)
    assert file.equals(folder)
    assert pq.read_table(tmp_path / "s.parquet")["path"].to_pylist() == file["path"].to_pylist()
    assert len(parts(tmp_path / "s")) == 4
    left = sorted(p.name for p in tmp_path.iterdir() if p.name.startswith((".", "s")))
    assert left == ["s", "s.parquet"]
    facts = json.loads(pq.read_schema(tmp_path / "s.parquet").metadata[b"skal"])
    assert facts["classes"] == list(CLASSES) and facts["n_unreadable"] == 1


@pytest.mark.parametrize("name", ["s", "s.parquet"])
def test_what_is_finished_is_not_done_again(
    pictures: Pictures, model: Path, tmp_path: Path, name: str
) -> None:
    first = predicted(model, tmp_path / name)
    again = skal.predict(model, ["."], tmp_path / name, shard_size=7)
    assert (again.n_images, again.n_unreadable, again.n_computed) == (N + 1, 1, 0)
    assert read(tmp_path / name).equals(first)


def test_a_csv_file_of_predictions_is_replaced_and_no_other(
    pictures: Pictures, model: Path, tmp_path: Path
) -> None:
    assert len(predicted(model, tmp_path / "s.csv", "a")) == 5
    assert len(predicted(model, tmp_path / "s.csv", "a/1.png")) == 1
    labels = "path,label\na/1.png,cat\n"
    (tmp_path / "labels.csv").write_text(labels)
    with pytest.raises(RunExistsError, match=r"labels\.csv' exists and holds something else"):
        predicted(model, tmp_path / "labels.csv", "a")
    assert (tmp_path / "labels.csv").read_text() == labels
    assert not list(tmp_path.glob(".*"))
    (tmp_path / "empty.csv").touch()
    assert len(predicted(model, tmp_path / "empty.csv", "a/1.png")) == 1


class Stopping(skal.strategies.ScoreStrategy):
    """Kills the process, is interrupted or fails at the call that a file counts down to.

    The first two calls find out that it looks at each image by itself.
    """

    def score(self, scores: Scores) -> np.ndarray:
        left = Path(os.environ["STOP_FILE"])
        n, how = left.read_text().split()
        left.write_text(f"{int(n) - 1} {how}")
        if int(n) == 0:
            if how == "kill":
                os.kill(os.getpid(), 9)
            raise KeyboardInterrupt if how == "interrupt" else ValueError("no idea")
        return scores.proba[:, 0]


STOPPING = {"utilities": [f"{__name__}:Stopping"]}


def stop_at(part: int, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOP_FILE", str(tmp_path / "stop"))
    (tmp_path / "stop").write_text(f"{3 + part} {how}")


KILLED = f"""
import sys, skal
model, out = sys.argv[1:]
skal.predict(model, ["."], out, utilities=["{__name__}:Stopping"], shard_size=7, threads=1)
"""


@pytest.mark.parametrize("name", ["s", "s.csv"])
def test_a_killed_prediction_resumes_at_its_last_part(
    pictures: Pictures,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    stop_at(2, "kill", tmp_path, monkeypatch)
    command = [sys.executable, "-c", KILLED, str(model), str(tmp_path / name)]
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    assert subprocess.run(command, env={**os.environ, "PYTHONPATH": path}).returncode == -9
    stop_at(100, "never", tmp_path, monkeypatch)
    done = skal.predict(model, ["."], tmp_path / name, shard_size=7, threads=1, **STOPPING)
    assert done.n_computed == N + 1 - 2 * 7
    whole = predicted(model, tmp_path / f"whole{Path(name).suffix}", **STOPPING)
    found = read(tmp_path / name)
    assert found == whole if name == "s.csv" else found.equals(whole)
    assert not list(tmp_path.glob(".s*"))


def test_changed_images_are_predicted_again_and_only_their_parts(
    pictures: Pictures, model: Path, tmp_path: Path
) -> None:
    before = predicted(model, tmp_path / "s")
    first = parts(tmp_path / "s")
    Image.new("RGB", (30, 30), "red").save(pictures / "val/4.png")
    after = predicted(model, tmp_path / "s")
    second = parts(tmp_path / "s")
    assert len(second) == 4 and len(first.items() & second.items()) == 3
    assert after["path"].to_pylist()[-1] == "val/4.png"
    changed = [
        one["path"]
        for one, other in zip(before.to_pylist(), after.to_pylist(), strict=True)
        if one["probability"] != other["probability"]
    ]
    assert changed == ["val/4.png"]
    (pictures / "val/4.png").unlink()
    assert len(predicted(model, tmp_path / "s")) == N


@pytest.mark.parametrize("cut", [False, True], ids=["a byte", "the end"])
def test_a_part_that_is_damaged_is_made_again_with_a_notice(
    pictures: Pictures, model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, cut: bool
) -> None:
    before = predicted(model, tmp_path / "s")
    first = parts(tmp_path / "s")
    damaged = tmp_path / "s" / sorted(first)[1]
    content = bytearray(damaged.read_bytes())
    content[len(content) // 4] ^= 1
    damaged.write_bytes(content[:-9] if cut else content)
    assert predicted(model, tmp_path / "s").equals(before)
    assert len(first.items() & parts(tmp_path / "s").items()) == 3
    assert f"{damaged} is damaged: predicting it again" in caplog.text


# What is refused.


def test_other_predictions_are_never_written_over(
    pictures: Pictures, model: Path, tmp_path: Path
) -> None:
    predicted(model, tmp_path / "s")
    predicted(model, tmp_path / "s.parquet")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")}
    with pytest.raises(RunExistsError, match="holds other predictions: embeddings is False in"):
        predicted(model, tmp_path / "s", embeddings=True)
    with pytest.raises(RunExistsError, match="holds other predictions: images is"):
        predicted(model, tmp_path / "s", "a")
    with pytest.raises(RunExistsError, match="holds something else"):
        predicted(model, tmp_path / "s.parquet", embeddings=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")} == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("x")
    with pytest.raises(RunExistsError, match="holds no predictions"):
        predicted(model, tmp_path / "mine")
    (tmp_path / "mine.parquet").write_text("x")
    with pytest.raises(RunExistsError, match="holds something else"):
        predicted(model, tmp_path / "mine.parquet")


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"utilities": ["margn"]}, UnknownNameError, "did you mean margin"),
        ({"utilities": ["badge"]}, ParameterError, "badge compares images with each other"),
        ({"utilities": ["query-by-committee"]}, ParameterError, "trains networks"),
        ({"utilities": ["committee-variance"]}, ParameterError, "trains networks"),
        ({"utilities": ["bald?n=3"]}, UnknownNameError, "parameter of bald"),
        ({"utilities": [f"{__name__}:Relative"]}, ParameterError, "images with each other"),
        ({"backend": "slurm"}, UnknownNameError, "dask"),
        ({"backend": "loky", "scheduler": "tcp://x"}, ParameterError, "takes none"),
        ({"shard_size": 0}, ParameterError, "shard_size=0; expected 1 or more"),
        ({"jobs": 0}, ParameterError, "jobs=0; expected 1 or more"),
        ({"device": "gpu"}, UnknownNameError, "device"),
        ({"run_dir": "nowhere"}, RunFolderError, "no usable model in 'nowhere'"),
        ({"run_dir": "a"}, RunFolderError, r"it has no model\.json; expected a run folder"),
        ({"paths": ["a", "nowhere"]}, DataError, "'nowhere' does not exist"),
        ({"paths": []}, UsageError, "no images given"),
        ({"paths": ["empty"]}, DataError, "no images under"),
        ({"out": "nowhere/s.csv"}, UsageError, "the folder 'nowhere' does not exist"),
        ({"out": "folder.csv"}, UsageError, "is a folder; expected the name of a file"),
        ({"out": "s.txt"}, UsageError, r"got 's\.txt'; expected a file name with \.csv or"),
        ({"out": "s.cvs"}, UsageError, r"got 's\.cvs'; expected a file name with \.csv or"),
        ({"out": "a/0.png"}, UsageError, r"'a/0\.png' is a file; expected the name of a folder"),
        ({"out": "a/0.png/s"}, UsageError, r"0\.png' is a file; expected a folder"),
        ({"utilities": ["nowhere:Thing"]}, ParameterError, "No module named 'nowhere'"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(
    pictures: Pictures,
    model: Path,
    tmp_path: Path,
    asked: dict[str, Any],
    error: type[SkalError],
    message: str,
) -> None:
    (pictures / "empty").mkdir()
    (pictures / "folder.csv").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error, match=message):
        skal.predict(**{"run_dir": model, "paths": ["a"], "out": tmp_path / "s", **asked})
    assert sorted(tmp_path.rglob("*")) == before


class Relative(skal.strategies.ScoreStrategy):
    """Looks at all images at once."""

    def score(self, scores: Scores) -> np.ndarray:
        return scores.proba[:, 0] - scores.proba[:, 0].mean()


def test_a_worker_that_fails_ends_it_with_a_line_and_keeps_what_is_done(
    pictures: Pictures, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at(2, "fail", tmp_path, monkeypatch)
    with pytest.raises(SkalError, match="ValueError: no idea; finished shards are saved"):
        predicted(model, tmp_path / "s", **STOPPING)
    assert len(parts(tmp_path / "s")) == 2
    stop_at(100, "never", tmp_path, monkeypatch)
    assert len(predicted(model, tmp_path / "s", **STOPPING)) == N + 1


def unreadable(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let the system fail to read some files."""
    path_open = Path.open

    def fail(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self.name in names and self.suffix == ".png":
            raise OSError(5, "Input/output error")
        return path_open(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", fail)


def test_a_file_that_the_system_cannot_read_is_an_empty_row_and_tried_again_by_the_next_call(
    pictures: Pictures, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pictures / "a/0.png").rename(pictures / "a/odd.png")
    with monkeypatch.context() as patch:
        unreadable(patch, "odd.png")
        table = predicted(model, tmp_path / "s")
    (row,) = table.filter(dataset.field("path") == "a/odd.png").to_pylist()
    assert (row["error"], row["class"]) == ("Input/output error", None)
    done = skal.predict(model, ["."], tmp_path / "s", shard_size=7)
    assert (done.n_computed, done.n_unreadable) == (7, 1)


# The command line, and a cluster.


def test_the_command_says_what_it_did(pictures: Pictures, model: Path, tmp_path: Path) -> None:
    args = ["predict", model, ".", "--out", tmp_path / "s.parquet"]
    done = skal_(*args, "--utilities", "margin,entropy", "--json")
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    assert figures["n_images"] == N + 1 and figures["n_unreadable"] == 1
    found = [c for c in read(tmp_path / "s.parquet").column_names if "utility" in c]
    assert found == ["utility_margin", "utility_entropy"]
    again = skal_(*args, "--utilities", "margin,entropy")
    assert again.exit_code == 0 and "is already up to date" in again.stderr
    other = skal_(*args, "--utilities", "entropy")
    assert other.exit_code == 2 and "choose another name with --out" in other.stderr


def test_without_out_the_rows_go_to_stdout(pictures: Pictures, model: Path, tmp_path: Path) -> None:
    done = skal_("predict", model, "a", BAD)
    assert done.exit_code == 0, done.output
    assert rows_of(done.stdout) == predicted(model, tmp_path / "s.csv", "a", BAD)
    assert "5 images classified" in done.stderr
    assert "1 image cannot be read; its row is empty" in done.stderr


def test_ctrl_c_says_how_to_resume(
    pictures: Pictures, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at(1, "interrupt", tmp_path, monkeypatch)
    utilities = STOPPING["utilities"][0]
    out = tmp_path / "s"
    done = skal_("predict", model, ".", "--utilities", utilities, "--out", out, "--shard-size", 7)
    assert done.exit_code == 130
    told = "Error: interrupted\nfinished shards are saved; repeat the command to resume\n"
    assert done.stderr.endswith(told)
    assert len(parts(out)) == 1


@pytest.fixture
def cluster() -> Iterator[str]:
    """Start a real Dask cluster of two processes on this machine."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
    ) as started:
        yield started.scheduler_address


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_two_jobs_and_clusters_come_to_the_same(
    pictures: Pictures,
    model: Path,
    tmp_path: Path,
    two_processes: int,
    cluster: str,
    ray_here: Any,
) -> None:
    here = predicted(model, tmp_path / "here")
    assert predicted(model, tmp_path / "two", jobs=two_processes).equals(here)
    there = predicted(model, tmp_path / "there", backend="dask", scheduler=cluster)
    assert there.equals(here)
    assert predicted(model, tmp_path / "ray", backend="ray").equals(here)


def test_csv_needs_no_pyarrow_and_parquet_names_the_extra(
    pictures: Pictures, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # as if it were not installed
    assert len(predicted(model, tmp_path / "s.csv", "a")) == 5
    for name in ("s.parquet", "s"):
        with pytest.raises(MissingExtraError, match=r"skal\[parquet\]"):
            predicted(model, tmp_path / name, "a")
        assert not (tmp_path / name).exists()
