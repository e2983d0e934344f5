"""`skal score`, as its users notice it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from skactiveml.pool import UncertaintySampling

import skal
from skal.cli import main
from skal.core.errors import (
    DataError,
    FolderNotFoundError,
    MissingExtraError,
    ParameterError,
    RunExistsError,
    RunFolderError,
    SkalError,
    UnknownNameError,
)
from skal.datasets import decoding
from skal.datasets.decoding import decode, to_channels
from skal.prediction import pipeline as sharding
from skal.strategies import scores as scoring
from skal.strategies.scores import ScoredClassifier, Scores

pq = pytest.importorskip("pyarrow.parquet")
dataset = pytest.importorskip("pyarrow.dataset")

SIZE = 12
CLASSES = ("cat", "dog", "eel")
N = 25
BAD = "b/deep/bad.jpg"
Pictures = Path
Models = Callable[..., Path]


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    """25 pictures in folders that mean nothing, and one that cannot be read."""
    root, rng = tmp_path / "pictures", np.random.default_rng(0)
    for place in ("", "a", "b/deep", "train", "val"):
        (root / place).mkdir(parents=True, exist_ok=True)
        for number in range(5):
            pixels = rng.integers(0, 256, (14, 20, 3), np.uint8)
            Image.fromarray(pixels).save(root / place / f"{number}.png")
    (root / BAD).write_bytes(b"no image")
    (root / "notes.txt").write_text("no image either")
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


def scored(root: Path, model: Path, out: Path, **options: Any) -> Any:
    """Score, in shards of 7, and return the table."""
    skal.score(root, model, out, **{"shard_size": 7, "threads": 1, **options})
    return read(out)


def read(out: Path) -> Any:
    return dataset.dataset(out).to_table().sort_by("path")


def expected(root: Path, model: Path, paths: list[str]) -> tuple[Any, np.ndarray, np.ndarray]:
    """Return the classifier, and what it says of some pictures."""
    classifier = skal.load_classifier(model)
    pixels = np.stack([decode(root / path, SIZE) for path in paths])
    pixels = to_channels(pixels, classifier.image_shape_[0])
    return classifier, *classifier.predict_proba(pixels, extra_outputs="emb")


def column(table: Any, name: str) -> np.ndarray:
    return np.array(table[name].to_pylist())


# What is in it.


def test_every_image_has_a_row_with_what_the_network_says(
    pictures: Pictures, model: Path, tmp_path: Path
) -> None:
    table = scored(pictures, model, tmp_path / "s.parquet", embeddings=True)
    paths = table["path"].to_pylist()
    assert paths == sorted(str(p.relative_to(pictures)) for p in pictures.rglob("*.[pj]*g"))
    assert len(paths) == N + 1
    bad = paths.index(BAD)
    good = [path for path in paths if path != BAD]
    _, proba, embeddings = expected(pictures, model, good)
    table = table.filter(np.arange(N + 1) != bad)
    for number, name in enumerate(CLASSES):
        assert column(table, f"p_{name}") == pytest.approx(proba[:, number], abs=1e-5)
    assert column(table, "class").tolist() == [CLASSES[k] for k in proba.argmax(1)]
    assert column(table, "probability") == pytest.approx(proba.max(1), abs=1e-5)
    assert column(table, "embedding") == pytest.approx(embeddings, abs=1e-3)


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
    table = scored(pictures, model, tmp_path / "s").filter(dataset.field("error").is_null())
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
    table = scored(pictures, model, tmp_path / "s", strategies=names)
    assert [c for c in table.column_names if c.startswith("utility_")] == [
        f"utility_{name}" for name in names
    ]
    table = table.filter(dataset.field("error").is_null())
    classifier, proba, embeddings = expected(pictures, model, table["path"].to_pylist())
    pixels = np.stack([decode(pictures / path, SIZE) for path in table["path"].to_pylist()])
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
    done = skal.score(pictures, model, tmp_path / "s", embeddings=True)
    (row,) = read(tmp_path / "s").filter(dataset.field("path") == BAD).to_pylist()
    assert row.pop("path") == BAD
    assert "not one of JPEG" in row.pop("error")
    assert set(row.values()) == {None}
    assert (done.n_images, done.n_unreadable, done.n_scored) == (N + 1, 1, N + 1)
    assert f"cannot read {BAD}: not one of" in caplog.text


def test_a_shard_of_unreadable_files_alone_is_no_obstacle(model: Path, tmp_path: Path) -> None:
    root = tmp_path / "bad"
    root.mkdir()
    for number in range(9):
        (root / f"{number}.png").write_bytes(b"")
    table = scored(root, model, tmp_path / "s.parquet", shard_size=4, embeddings=True)
    assert table["error"].to_pylist() == ["empty file"] * 9
    assert table["p_cat"].null_count == table["embedding"].null_count == 9


def test_a_network_of_grey_images_sees_grey(pictures: Pictures, tmp_path: Path) -> None:
    grey = trained(tmp_path / "grey", channels=1)
    table = scored(pictures, grey, tmp_path / "s").filter(dataset.field("error").is_null())
    _, proba, _ = expected(pictures, grey, table["path"].to_pylist())
    assert column(table, "p_dog") == pytest.approx(proba[:, 1], abs=1e-5)


def test_grey_is_as_pillow_makes_it() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 40, 40), np.uint8)
    theirs = [np.asarray(Image.fromarray(p.transpose(1, 2, 0)).convert("L")) for p in pixels]
    assert np.array_equal(to_channels(pixels, 1)[:, 0], theirs)
    assert to_channels(pixels, 3) is pixels
    assert to_channels(pixels[:0], 1).shape == (0, 1, 40, 40)


def test_paths_that_are_no_utf_8_are_escaped(model: Path, tmp_path: Path) -> None:
    root = tmp_path / "odd"
    root.mkdir()
    Image.new("RGB", (12, 12)).save(tmp_path / "x.png")
    os.rename(tmp_path / "x.png", os.fsencode(root) + b"/caf\xe9.png")  # noqa: PTH104
    assert scored(root, model, tmp_path / "s")["path"].to_pylist() == ["caf\\udce9.png"]


# One file, a folder, and going on.


def test_the_file_has_what_the_folder_has(pictures: Pictures, model: Path, tmp_path: Path) -> None:
    folder = scored(pictures, model, tmp_path / "s", embeddings=True)
    file = scored(pictures, model, tmp_path / "s.parquet", embeddings=True)
    assert file.equals(folder)
    assert pq.read_table(tmp_path / "s.parquet")["path"].to_pylist() == file["path"].to_pylist()
    assert len(list((tmp_path / "s").glob("*.parquet"))) == 4
    left = sorted(p.name for p in tmp_path.iterdir() if p.name.startswith((".", "s")))
    assert left == ["s", "s.parquet"]
    facts = json.loads(pq.read_schema(tmp_path / "s.parquet").metadata[b"skal"])
    assert facts["classes"] == list(CLASSES) and facts["n_unreadable"] == 1


def test_two_jobs_come_to_the_same_as_one(pictures: Pictures, model: Path, tmp_path: Path) -> None:
    one = scored(pictures, model, tmp_path / "one", jobs=1)
    assert scored(pictures, model, tmp_path / "two", jobs=2).equals(one)


def test_one_job_shares_its_images_among_all_gpus(
    pictures: Pictures, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = scored(pictures, model, tmp_path / "here", shard_size=26)
    shared = []

    def gpus(device: str, n: int) -> list[str]:
        n_gpus = min(3, n // 4)
        shared.append((n, n_gpus))
        return ["cpu"] * n_gpus if n_gpus > 1 else [device]

    monkeypatch.setattr(scoring, "_devices", gpus)
    monkeypatch.setattr(scoring, "LEAST_PER_DEVICE", 4)
    monkeypatch.setattr(decoding, "CHUNK_FILES", 5)
    monkeypatch.setattr(sharding, "PIXELS_AT_ONCE", 1)  # of which each chunk has enough
    there = scored(pictures, model, tmp_path / "there", shard_size=26)
    # of the 26 files 25 can be read; 12 images are enough for three
    assert [of for of in shared if of[0] < 100] == [(15, 3), (10, 2)]
    assert there.column_names == here.column_names
    assert there["path"].equals(here["path"])
    for name in CLASSES:
        ours, theirs = (column(t, f"p_{name}").astype(float) for t in (there, here))
        assert ours == pytest.approx(theirs, abs=1e-5, nan_ok=True)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keep account of the shards that are computed."""
    names: list[str] = []
    score_shard = sharding._score_shard

    def counting(job: sharding.Job, shard: sharding.Shard) -> sharding.Outcome:
        names.append(shard.name)
        return score_shard(job, shard)

    monkeypatch.setattr(sharding, "_score_shard", counting)
    return names


@pytest.mark.parametrize("name", ["s", "s.parquet"])
def test_what_is_finished_is_not_done_again(
    pictures: Pictures, model: Path, tmp_path: Path, counted: list[str], name: str
) -> None:
    first = scored(pictures, model, tmp_path / name)
    assert len(counted) == 4
    assert scored(pictures, model, tmp_path / name).equals(first)
    assert len(counted) == 4


KILLED = """
import os, sys
from pathlib import Path
import skal
from skal import sharding
root, model, out = map(Path, sys.argv[1:])
score_shard = sharding._score_shard
done = []
def dying(job, shard):
    if len(done) == 2:
        os.kill(os.getpid(), 9)
    done.append(shard)
    return score_shard(job, shard)
sharding._score_shard = dying
skal.score(root, model, out, shard_size=7, threads=1)
"""


@pytest.mark.parametrize("name", ["s", "s.parquet"])
def test_a_killed_scoring_goes_on_at_its_last_shard(
    pictures: Pictures, model: Path, tmp_path: Path, counted: list[str], name: str
) -> None:
    command = [sys.executable, "-c", KILLED, *map(str, (pictures, model, tmp_path / name))]
    assert subprocess.run(command).returncode == -9
    table = scored(pictures, model, tmp_path / name)
    assert len(counted) == 2
    assert table.equals(scored(pictures, model, tmp_path / "whole"))
    assert not list(tmp_path.glob(".s*"))


def test_changed_images_are_scored_anew_and_only_their_shards(
    pictures: Pictures, model: Path, tmp_path: Path, counted: list[str]
) -> None:
    before = scored(pictures, model, tmp_path / "s")
    Image.new("RGB", (30, 30), "red").save(pictures / "val/4.png")
    after = scored(pictures, model, tmp_path / "s")
    assert len(counted) == 5
    assert len(list((tmp_path / "s").glob("*.parquet"))) == 4
    changed = column(before, "probability") != column(after, "probability")
    assert after["path"].to_pylist()[-1] == "val/4.png"
    assert np.flatnonzero(changed).tolist() == [
        after["path"].to_pylist().index(BAD),  # None is never the same
        N,
    ] or np.flatnonzero(changed).tolist() == [N]
    (pictures / "val/4.png").unlink()
    assert len(scored(pictures, model, tmp_path / "s")) == N


# What is refused.


def test_other_scores_are_never_written_over(
    pictures: Pictures, model: Path, tmp_path: Path
) -> None:
    scored(pictures, model, tmp_path / "s")
    scored(pictures, model, tmp_path / "s.parquet")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")}
    with pytest.raises(RunExistsError, match="holds other scores: embeddings is False there"):
        skal.score(pictures, model, tmp_path / "s", shard_size=7, embeddings=True)
    with pytest.raises(RunExistsError, match="holds something else"):
        skal.score(pictures, model, tmp_path / "s.parquet", embeddings=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")} == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("x")
    with pytest.raises(RunExistsError, match="holds no scores"):
        skal.score(pictures, model, tmp_path / "mine")
    (tmp_path / "mine.parquet").write_text("x")
    with pytest.raises(RunExistsError, match="holds something else"):
        skal.score(pictures, model, tmp_path / "mine.parquet")


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"strategies": ["margn"]}, UnknownNameError, "did you mean margin"),
        ({"strategies": ["badge"]}, ParameterError, "badge weighs images against each other"),
        ({"strategies": ["query-by-committee"]}, ParameterError, "trains networks"),
        ({"strategies": ["committee-variance"]}, ParameterError, "trains networks"),
        ({"strategies": ["bald?n=3"]}, UnknownNameError, "parameter of bald"),
        ({"strategies": [f"{__name__}:Relative"]}, ParameterError, "against each other"),
        ({"backend": "slurm"}, UnknownNameError, "dask"),
        ({"backend": "loky", "scheduler": "tcp://x"}, ParameterError, "has none"),
        ({"shard_size": 0}, ParameterError, "shard_size=0; expected 1 or more"),
        ({"device": "gpu"}, UnknownNameError, "device"),
        ({"model": Path("nowhere")}, RunFolderError, "no usable model in 'nowhere'"),
        ({"folder": Path("nowhere")}, FolderNotFoundError, "does not exist"),
        ({"folder": Path(__file__).parents[1] / "data"}, DataError, "no image under"),
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
    with pytest.raises(error, match=message):
        skal.score(
            asked.pop("folder", pictures), asked.pop("model", model), tmp_path / "s", **asked
        )
    assert not (tmp_path / "s").exists()


class Relative(skal.strategies.ScoreStrategy):
    """Looks at all images at once."""

    def score(self, scores: Scores) -> np.ndarray:
        return scores.proba[:, 0] - scores.proba[:, 0].mean()


def test_a_worker_that_fails_ends_it_with_a_line_and_keeps_what_is_done(
    pictures: Pictures, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = sharding.write_atomic, []

    def full(path: Path, content: Any) -> None:
        if path.suffix == ".parquet":
            written.append(path)
        if len(written) > 2:
            raise OSError(28, "No space left on device")
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(sharding, "write_atomic", full)
        with pytest.raises(SkalError, match=r"No space left on device.*the same call goes on"):
            scored(pictures, model, tmp_path / "s")
    assert len(list((tmp_path / "s").glob("*.parquet"))) == 2
    assert len(scored(pictures, model, tmp_path / "s")) == N + 1


def test_a_disk_that_fails_ends_it_with_a_line_and_is_not_written_down_as_unreadable(
    pictures: Pictures, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(decoding, "PAUSES", (0,))
        patch.setattr(decoding, "decode", fail)
        with pytest.raises(SkalError, match=r"Input/output error.*take it away; the sh") as caught:
            scored(pictures, model, tmp_path / "s")
    assert str(caught.value).count("the same call goes on") == 1
    assert scored(pictures, model, tmp_path / "s")["error"].null_count == N


def test_without_pyarrow_the_extra_is_named(
    pictures: Pictures, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharding, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"skal\[parquet\]"):
        skal.score(pictures, model, tmp_path / "s")


# The command line, and a cluster.


def test_the_command_says_what_it_did(pictures: Pictures, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.parquet"
    args = ["score", str(pictures), "--model", str(model), "--out", str(out)]
    done = CliRunner().invoke(main, [*args, "--strategy", "margin", "--json"])
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    assert figures["n_images"] == N + 1 and figures["n_unreadable"] == 1
    assert [c for c in read(out).column_names if "utility" in c] == ["utility_margin"]
    again = CliRunner().invoke(main, [*args, "--strategy", "margin"])
    assert again.exit_code == 0 and "nothing is left to do" in again.stderr
    other = CliRunner().invoke(main, [*args, "--strategy", "entropy"])
    assert other.exit_code == 2 and "choose another name by --out" in other.stderr


def test_ctrl_c_says_how_to_go_on(
    pictures: Pictures, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sharding, "score_shard", interrupted)
    args = ["score", str(pictures), "--model", str(model), "--out", str(tmp_path / "s")]
    done = CliRunner().invoke(main, args)
    assert done.exit_code == 130
    told = "Error: interrupted\nall whole shards are kept; the same command goes on\n"
    assert done.stderr.endswith(told)


@pytest.fixture
def cluster() -> Iterator[str]:
    """Start a real Dask cluster of two processes on this machine."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as started:
        yield started.scheduler_address


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_a_cluster_comes_to_the_same(
    pictures: Pictures, model: Path, tmp_path: Path, cluster: str
) -> None:
    here = scored(pictures, model, tmp_path / "here")
    there = scored(pictures, model, tmp_path / "there", backend="dask", scheduler=cluster)
    assert there.equals(here)


def test_the_function_is_not_hidden_by_a_module() -> None:
    code = "import skal, skal.prediction.pipeline, skal.scoring; assert callable(skal.score)"
    subprocess.run([sys.executable, "-c", code], check=True)
