"""A network as one file, as its users notice it: what it answers, without skal and with it."""

from __future__ import annotations

import csv
import functools
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner
from label_server import write_images
from PIL import Image

import skal
from skal.cli import main
from skal.core.durable import sha256
from skal.core.errors import (
    DataError,
    MissingExtraError,
    ParameterError,
    RunExistsError,
    RunFolderError,
    UnknownNameError,
)
from skal.prediction import NETWORK_FORMATS
from skal.prediction.exports import export_model, images_for, read_exported
from skal.prediction.networks import Deployed, NetworkFormat

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

EXAMPLES = Path(__file__).parents[2] / "examples"
KINDS: dict[str, dict[str, Any]] = {
    "small-cnn": {"model": "small-cnn", "steps": 20},
    "frozen": {"model": "efficientnet-lite0-stages", "pretrained": True, "freeze": True},
    "mlp": {"model": "small-cnn", "freeze": True, "head": "mlp", "steps": 20},
}
FORMATS = NETWORK_FORMATS.names()
Export = Callable[[str, str], tuple[Path, dict[str, Any]]]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty photographs of 40 x 52 pixels in two class folders."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for label, base in (("dark, night", 0), ("light", 170)):
        (root / label).mkdir()
        for number in range(20):
            pixels = base + rng.integers(0, 80, (4, 6, 3))
            image = Image.fromarray(pixels.astype(np.uint8)).resize((52, 40))
            image.save(root / label / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def runs(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of each kind."""
    place = tmp_path_factory.mktemp("runs")
    for name, settings in KINDS.items():
        # what is exported computes in float32
        common = {"n_init": 20, "n_rounds": 0, "image_size": 32, "precision": "fp32"}
        common["data_dir"] = str(place / "data")
        skal.run(photos, "random", out=place / name, **common, **settings)
    return {name: place / name for name in KINDS}


@pytest.fixture(scope="module")
def exported(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Export the network of a kind in a format, once; return the file and what was printed."""
    place = tmp_path_factory.mktemp("exported")

    @functools.cache
    def export(kind: str, form: str) -> tuple[Path, dict[str, Any]]:
        out = place / f"{kind}-{form}"
        command = ["export-model", str(runs[kind]), "--format", form, "--out", str(out), "--json"]
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 0, done.output
        # under another name, in another folder
        moved = place / "moved" / f"{kind}{NETWORK_FORMATS.get(form).suffix}"
        moved.parent.mkdir(exist_ok=True)
        return out.rename(moved), json.loads(done.stdout)

    return export


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_answers_as_the_network_does(
    form: str,
    kind: str,
    runs: dict[str, Path],
    exported: Export,
    photos: Path,
    tmp_path: Path,
) -> None:
    path, found = exported(kind, form)
    assert found["n_images"] == found["n_same_class"] == 8
    assert found["largest_difference"] <= 1e-4
    tables = []
    for source in (runs[kind], path):
        out = tmp_path / f"{len(tables)}.csv"
        skal.predict(source, [photos], out, embeddings=True, trust=True, threads=1)
        with out.open(newline="") as file:
            tables.append(list(csv.DictReader(file)))
    ours, theirs = tables
    assert len(ours) == 40
    for one, other in zip(ours, theirs, strict=True):
        assert (one["path"], one["class"], one.keys()) == (
            other["path"],
            other["class"],
            other.keys(),
        )
        for name in one.keys() - {"path", "class"}:
            assert float(one[name]) == pytest.approx(float(other[name]), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(
    ("form", "script"), [("onnx", "use_onnx"), ("torchscript", "use_torchscript")]
)
def test_the_examples_classify_without_skal(
    form: str,
    script: str,
    runs: dict[str, Path],
    exported: Export,
    photos: Path,
    tmp_path: Path,
) -> None:
    path, _ = exported("frozen", form)
    for name, base in (("see-through", 0), ("veil", 170)):  # black below what is transparent
        pixels = np.full((40, 52, 4), (base, base, base, 0), np.uint8)
        pixels[:10, :, 3] = 128
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    images = [*sorted(photos.rglob("*.png")), *sorted(tmp_path.glob("*.png"))]
    code = (EXAMPLES / f"{script}.py").read_text()
    assert "import skal" not in code
    assert len([line for line in code.split('"""')[2].splitlines() if line.strip()]) <= 20
    command = [sys.executable, "-W", "error", "-c", code, str(path), *map(str, images)]
    if form == "torchscript":
        command.remove("error"), command.remove("-W")  # torch warns of TorchScript itself
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "own.csv"
    skal.predict(runs["frozen"], images, out, threads=1)
    with out.open(newline="") as file:
        expected = [f"{row['path']}: {row['class']}" for row in csv.DictReader(file)]
    assert [line.rpartition(" (")[0] for line in done.stdout.splitlines()] == expected


def test_any_number_of_images_is_answered(runs: dict[str, Path], exported: Export) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    path, _ = exported("small-cnn", "onnx")
    session = onnxruntime.InferenceSession(path)
    classifier = skal.load_classifier(runs["small-cnn"], "cpu")
    for n in (1, 2, 7):
        images = np.random.default_rng(n).integers(0, 256, (n, 3, 32, 32), np.uint8)
        proba, embeddings = session.run(None, {"images": images})
        assert np.abs(proba - classifier.predict_proba(images)).max() <= 1e-4
        assert embeddings.shape[0] == n


def said_of_an_export(folder: Path, labels: Mapping[str, int]) -> str:
    """Label the images under ``photos``, train, export, and return what the last one tells."""
    photos, out, table = folder / "photos", folder / "model", folder / "labels.csv"
    rows = "".join(f"{path},{label}\n" for path, label in labels.items())
    table.write_text(f"path,label\n{rows}")
    settings = ("--model", "lenet", "--steps", "2", "--image-size", "12", "--out", str(out))
    for command in (
        ("import", str(photos), str(table), "--classes", "0,1,2"),
        ("train", str(photos), *settings),
        ("export-model", str(out), "--format", "torchscript"),
    ):
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 0, done.output
    return done.stderr


def test_who_labels_a_flat_folder_has_the_network_checked_on_its_images(
    tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    write_images(tmp_path / "photos", tiny.X[:30, 0])
    said = said_of_an_export(tmp_path, {f"{number:05}.png": number % 3 for number in range(20)})
    assert "on 30 images the largest difference" in said
    assert "noise" not in said


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_is_told_that_skal_itself_rounds_where_the_file_does_not(
    tiny: skal.ImageDataset, tmp_path: Path, precision: str
) -> None:
    skal.run(
        tiny,
        "random",
        model="lenet",
        steps=2,
        n_rounds=0,
        out=tmp_path / "run",
        precision=precision,
    )
    done = export_model(tmp_path / "run", format="torchscript", images=tiny.X_test)
    classes = skal.load_classifier(tmp_path / "run").predict(tiny.X_test)
    file, _ = read_exported(done.out, True)
    exact = file(tiny.X_test)[0].argmax(axis=1)
    assert done.n_same_class == len(tiny.X_test)
    same = int((classes == exact).sum()) if precision == "bf16" else None
    assert done.n_same_in_bf16 == same
    write_images(tmp_path / "photos", tiny.X_test[:, 0])
    command = ["export-model", tmp_path / "run", tmp_path / "photos", "--format", "torchscript"]
    said = CliRunner().invoke(main, [*map(str, command), "--out", str(tmp_path / "again.pt")])
    assert said.exit_code == 0, said.output
    assert ("computes in bfloat16 on this machine" in said.stderr) is (precision == "bf16")


def test_of_many_images_some_of_each_class_are_checked(runs: dict[str, Path], photos: Path) -> None:
    for paths in ([], [photos]):
        images = images_for(runs["small-cnn"], paths, most=5)
        assert images is not None and len(images) == 5
        assert {bool(mean > 120) for mean in images.mean(axis=(1, 2, 3))} == {False, True}


def test_who_labels_is_not_told_of_doubles_between_folders_when_a_network_is_exported(
    tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    for year in ("2019", "2020"):  # each image is in both: where folders are classes, in the test
        write_images(tmp_path / "photos" / year, tiny.X[:15, 0])
    labels = {f"{year}/{n:05}.png": n % 3 for year in (2019, 2020) for n in range(15)}
    said = said_of_an_export(tmp_path, labels)
    assert "the largest difference" in said and "noise" not in said
    assert "warning" not in said and "duplicates" not in said


def test_without_their_images_a_network_is_checked_on_noise(
    tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    skal.run(tiny, "random", model="lenet", steps=2, n_rounds=0, n_init=6, out=tmp_path / "run")
    done = CliRunner().invoke(
        main, ["export-model", str(tmp_path / "run"), "--format", "torchscript"]
    )
    assert done.exit_code == 0, done.output
    assert "checking the file on noise" in done.stderr and "on 64 images of noise" in done.stderr
    assert (tmp_path / "run/network.pt").is_file()
    images = tmp_path / "images"
    images.mkdir()
    for number in range(3):
        Image.fromarray(tiny.X[number, 0]).save(images / f"{number}.png")
    again = ["export-model", str(tmp_path / "run"), str(images), "--format", "state-dict"]
    done = CliRunner().invoke(main, again)
    assert done.exit_code == 0 and "on 3 images" in done.stderr, done.output


def test_what_cannot_be_exported_is_said(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="network format 'onyx'; did you mean onnx"):
        export_model(runs["mlp"], format="onyx")
    with pytest.raises(RunFolderError, match=r"it has no model\.json"):
        export_model(tmp_path)
    (tmp_path / "there.onnx").touch()
    with pytest.raises(RunExistsError, match="already exists"):
        export_model(runs["mlp"], tmp_path / "there.onnx")
    with pytest.raises(DataError, match=r"cannot write .*nowhere"):
        export_model(runs["mlp"], tmp_path / "nowhere/a.pt", format="torchscript")
    if Path("/proc/self").is_dir():  # of Linux, in which even root may make no file
        with pytest.raises(DataError, match="its folder is not writable"):
            export_model(runs["mlp"], "/proc/self/a.pt", format="torchscript")
    assert [path.name for path in tmp_path.iterdir()] == ["there.onnx"]


def test_what_is_no_network_is_said(exported: Export, photos: Path, tmp_path: Path) -> None:
    image = next(photos.rglob("*.png"))
    for form in FORMATS:
        path, _ = exported("mlp", form)
        damaged = tmp_path / f"damaged{NETWORK_FORMATS.get(form).suffix}"
        damaged.write_bytes(path.read_bytes()[:1000])
        with pytest.raises(RunFolderError, match=r"cannot read .* as|is damaged"):
            skal.predict(damaged, [image], tmp_path / "out.csv", trust=True)
    with pytest.raises(RunFolderError, match=r"is not a network; expected .*\.onnx"):
        skal.predict(image, [image], tmp_path / "out.csv")
    with pytest.warns(FutureWarning, match="deprecated"):
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "other.pt")
    with pytest.raises(RunFolderError, match="may run code; if you trust it"):
        read_exported(tmp_path / "other.pt")
    with pytest.raises(RunFolderError, match="not written by skal export-model"):
        read_exported(tmp_path / "other.pt", trust=True)


@pytest.mark.parametrize("form", FORMATS)
def test_a_flipped_bit_in_a_file_is_found(form: str, exported: Export, tmp_path: Path) -> None:
    path, _ = exported("small-cnn", form)
    whole = path.read_bytes()
    damaged = tmp_path / f"damaged{NETWORK_FORMATS.get(form).suffix}"
    damaged.write_bytes(whole)
    read_exported(damaged, trust=True)
    for place in np.linspace(len(whole) // 4, 3 * len(whole) // 4, 12).astype(int):
        content = bytearray(whole)
        content[place] ^= 4
        damaged.write_bytes(content)
        with pytest.raises(RunFolderError, match="damaged"):
            read_exported(damaged, trust=True)


def test_weights_of_a_stranger_run_nothing(exported: Export, tmp_path: Path) -> None:
    path, _ = exported("small-cnn", "state-dict")
    with safetensors.safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["skal"])
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    about["params"]["model"], about["file_sha256"] = "stranger:build", "0" * 64
    other = tmp_path / "other.safetensors"
    safetensors.torch.save_file(state, other, {"skal": json.dumps(about)})
    content = other.read_bytes()
    other.write_bytes(content.replace(b"0" * 64, sha256(content).encode()))
    with pytest.raises(RunFolderError, match=r"names code .*'stranger:build'"):
        read_exported(other)


def test_scores_that_need_more_than_a_file_says_are_refused(
    exported: Export, photos: Path, tmp_path: Path
) -> None:
    path, _ = exported("small-cnn", "onnx")
    out = tmp_path / "out.csv"
    with pytest.raises(ParameterError, match=r"bald needs more than .* use the run folder"):
        skal.predict(path, [photos], out, utilities=["bald"])
    assert skal.predict(path, [photos], out, utilities=["entropy"]).n_images == 40


def test_a_device_that_a_file_is_not_computed_on_is_refused(
    exported: Export, photos: Path, tmp_path: Path
) -> None:
    path, _ = exported("small-cnn", "onnx")
    with pytest.raises(ParameterError, match="exported network runs on the CPU"):
        skal.predict(path, [photos], tmp_path / "out.csv", device="cuda")


def test_a_format_of_ones_own_is_taken(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mine", sys.modules[__name__])
    done = export_model(runs["small-cnn"], tmp_path / "a.mine", format="mine:Pickled")
    assert done.format == "mine:Pickled" and done.n_same_class == done.n_images


class Pickled(NetworkFormat):
    """A format of one's own, in a few lines."""

    suffix = ".mine"

    def write(self, classifier: Any, description: Any, path: Path) -> None:
        torch.save((Deployed.of(classifier), dict(description)), path)

    def read(self, path: Path, trust: bool = False) -> Any:
        from skal.prediction.networks import ExportedNetwork

        network, description = torch.load(path, weights_only=False)

        def answer(images: Any) -> Any:
            with torch.inference_mode():
                return tuple(part.numpy() for part in network(torch.tensor(images)))

        return ExportedNetwork(description, answer), description


def test_a_missing_package_is_named(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"skal\[onnx\]"):
        export_model(runs["mlp"], tmp_path / "network.onnx")


@pytest.mark.parametrize("name", NETWORK_FORMATS.names())
def test_a_format_is_listed_with_the_suffix_of_its_files(name: str) -> None:
    entry = NETWORK_FORMATS.resolve(name)
    assert entry.facts["suffix"] == entry.load().suffix
