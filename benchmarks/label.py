"""`skal label`: waiting times on a large pool, labels after kill -9, and labelling to the end.

    python benchmarks/label.py times [--n-known 10000]
    python benchmarks/label.py starts --other CHECKOUT [--n-images 20000]
    python benchmarks/label.py known openclipart
    python benchmarks/label.py kills
    python benchmarks/label.py end

A real server is asked through its own HTTP interface, as the page does; what a browser adds to
that is measured in a browser, by benchmarks/label_page.py.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import click
import httpx
import numpy as np
import psutil
from _report import report
from PIL import Image
from sklearn.datasets import load_digits

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from label_server import Client, serving

import skal
from skal.datasets.index import find_images
from skal.label.project import LabelProject
from skal.label.store import Action, ModelRow, Store

CLASSES = ("--classes", "a,b,c,d,e")
KINDS = 200


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Yield a folder with the data folder of all that is started here."""
    with tempfile.TemporaryDirectory(prefix="skal-label-") as folder:
        os.environ["SKAL_DATA_DIR"] = str(Path(folder) / "data")
        yield Path(folder)


def make_pool(folder: Path, n: int, width: int = 640, height: int = 480) -> None:
    """Write photographs of nothing, `KINDS` different ones, and many copies of each."""
    draw = np.random.default_rng(0)
    kinds = []
    for _ in range(min(KINDS, n)):
        coarse = Image.fromarray(draw.integers(0, 255, (12, 16, 3), dtype=np.uint8))
        picture = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
        grain = draw.integers(-12, 12, picture.shape)
        out = io.BytesIO()
        Image.fromarray((picture + grain).clip(0, 255).astype(np.uint8)).save(out, "JPEG")
        kinds.append(out.getvalue())
    folder.mkdir(parents=True)
    for number in range(n):
        (folder / f"{number:06d}.jpg").write_bytes(kinds[number % len(kinds)])


def milliseconds(seconds: list[float]) -> str:
    return f"{np.median(seconds) * 1000:.0f} (worst {max(seconds) * 1000:.0f})"


@click.group()
@click.option("--keep/--no-keep", default=True, help="Whether to write to RESULTS.md.")
@click.pass_context
def main(ctx: click.Context, keep: bool) -> None:
    """Measure one part."""
    ctx.obj = keep


@main.command()
@click.option("--n-images", default=20_000, show_default=True)
@click.option("--n-labels", default=120, show_default=True)
@click.option("--starts", default=5, show_default=True)
@click.option("--pace", default=0.5, show_default=True, help="Seconds that somebody looks.")
@click.option("--n-known", default=0, show_default=True, help="Labels that are there already.")
@click.pass_obj
def times(keep: bool, n_images: int, n_labels: int, starts: int, pace: float, n_known: int) -> None:
    """Time starts, labels, and the wait between batches, while a network trains."""
    with scratch() as folder:
        make_pool(folder / "pool", n_images)
        if n_known:
            label_before(folder / "pool", n_known)
        arguments = [*CLASSES, "--n-init", "20", "--n-query", "20", "--strategy", "badge"]
        with serving(folder / "pool", *arguments) as server:  # makes the cache
            wait = server.client().wait_for
            wait(lambda state: state["learner"] != "training", patience=3600)
        seconds: dict[str, list[float]] = {"start": [], "action": [], "image": [], "batch": []}
        for _ in range(starts):
            begun = time.perf_counter()
            with serving(folder / "pool", *arguments) as server:
                client = server.client()
                fetch(client, client.state()["queue"][0]["image"])
                seconds["start"].append(time.perf_counter() - begun)
        sources, n_trained = label_pool(folder / "pool", arguments, n_labels, pace, seconds)
    report(
        f"Labelling on a pool of {n_images:,} images"
        + (f", {n_known:,} of them labelled before" if n_known else ""),
        ["what", "milliseconds, median", "target"],
        [
            ["start of `skal label` to the first image", milliseconds(seconds["start"]), "3000"],
            ["a label, till it is on the disk", milliseconds(seconds["action"]), ""],
            ["a label and the next image", milliseconds(seconds["image"]), "30"],
            [
                "last image of a batch to the first of the next",
                milliseconds(seconds["batch"]),
                "100",
            ],
        ],
        f"JPEGs of 640x480 px, their pixels for the network cached; {starts} starts; {n_labels} "
        f"labels in batches of 20 by BADGE, {pace} s each, while {n_trained} networks were "
        f"trained. The images came by: {sources}. Through the HTTP interface, without a browser.",
        keep,
    )


@main.command()
@click.option("--other", type=click.Path(path_type=Path), required=True)
@click.option("--n-images", default=200_000, show_default=True)
@click.option("--repeats", default=3, show_default=True)
@click.pass_obj
def starts(keep: bool, other: Path, n_images: int, repeats: int) -> None:
    """Time starts on very many images, in turn with another checkout of skal."""
    checkouts = {"this build": Path(skal.__file__).parent.parent, "the one before": other}
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in checkouts}
    with scratch() as folder:
        make_pool(folder / "pool", n_images, 48, 48)
        LabelProject.open(folder / "pool", ["a", "b", "c", "d", "e"]).close()
        for _, (name, checkout) in itertools.product(range(repeats), checkouts.items()):
            # with its bytecode, as installed, which the first start writes where it is not there
            found_by = {"PYTHONPATH": str(checkout), "PYTHONSAFEPATH": "1"}
            found_by["PYTHONDONTWRITEBYTECODE"] = ""
            begun = time.perf_counter()
            with serving(folder / "pool", env=found_by) as server:
                client = server.client()
                fetch(client, client.state()["queue"][0]["image"])
                seconds = time.perf_counter() - begun
                process = psutil.Process(server.process.pid)
                memory, times = process.memory_info().rss / 2**20, process.cpu_times()
                found[name].append((seconds, times.user + times.system, memory))
    best = {name: np.min(values, axis=0) for name, values in found.items()}
    report(
        f"Start of the labelling page on {n_images:,} images",
        ["build", "seconds to the first image", "of a processor", "MiB of the server then"],
        [[name, f"{v[0]:.2f}", f"{v[1]:.2f}", f"{v[2]:.0f}"] for name, v in best.items()],
        f"Best of {repeats}, in turn, the files known to the system, through the HTTP interface, "
        "without a browser. Targets: 3 s and 150 MiB with 200,000 images, 1.2 s with 20,000.",
        keep,
    )


@main.command()
@click.argument("images", type=click.Path(path_type=Path))
@click.option("--n-labels", default=1000, show_default=True)
@click.option("--repeats", default=20, show_default=True)
@click.option("--size", default=224, show_default=True, help="Of images, in pixels.")
@click.option("--most", default=100_000, show_default=True, help="Images that are taken.")
@click.pass_obj
def known(keep: bool, images: Path, n_labels: int, repeats: int, size: int, most: int) -> None:
    """Time the last label of a batch to a network that knows it, on the images of class folders."""
    with scratch() as folder:
        truth = label_by_folder(images, folder / "pool", n_labels, most)
        seconds: list[float] = []
        arguments = ["--n-query", "1", "--image-size", str(size)]  # each is a batch's last
        with serving(folder / "pool", *arguments) as server:
            client = server.client()
            state = client.wait_for(lambda state: state["learner"] != "training", patience=36000)
            while len(seconds) < repeats:
                entry, n_test = state["queue"][0], state["n_test"]
                begun = time.perf_counter()
                client.label(entry["image"], truth[entry["name"]])
                state = client.wait_for(lambda state: state["learner"] != "training")
                assert state["learner"] == "idle", state["learner"]
                if state["n_test"] == n_test:  # else no network is to know it
                    seconds.append(time.perf_counter() - begun)
                    assert state["accuracy"]["n_known"] == state["n_labeled"] - n_test
    report(
        f"Last label of a batch to a network that knows it, {n_labels:,} labels",
        ["milliseconds, median", "fastest", "target"],
        [[milliseconds(seconds), f"{1000 * min(seconds):.0f}", "1000"]],
        f"{len(truth):,} images of {images.name} at {size} px, features kept, defaults but "
        f"for batches of one; {repeats} labels after {n_labels:,}, a tenth of them of the test. To "
        "the fit belong the pass over the pool and the next picks. Through the HTTP interface, "
        "which is asked each 50 ms whether it is done.",
        keep,
    )


def label_by_folder(images: Path, folder: Path, n: int, most: int) -> dict[str, int]:
    """Put images of class folders into one folder, and label `n` of them, a tenth for the test."""
    found = [(Path(path), label) for path, _, label in find_images(images) if label is not None]
    classes = sorted({label for _, label in found})
    folder.mkdir()
    truth = {}
    for number in np.random.default_rng(0).permutation(len(found))[:most].tolist():
        path, label = found[number]
        name = f"{len(truth):06d}{path.suffix}"
        (folder / name).symlink_to((images / path).resolve())
        truth[name] = classes.index(label)
    with contextlib.closing(LabelProject.open(folder, classes)) as project:
        tests = project.reserve[: n // 10]
        others = sorted(project.pool - set(project.reserve))[: n - len(tests)]
        kinds = {**dict.fromkeys(others, "strategy"), **dict.fromkeys(tests, "test")}
        project.record(
            [
                Action("me", "label", image, truth[project.paths[image]], round=0, source=kind)
                for image, kind in kinds.items()
            ]
        )
    return truth


def label_before(folder: Path, n: int) -> None:
    """Let a project be one of many days: a tenth of its labels are of the test, a network to 20."""
    with contextlib.closing(LabelProject.open(folder, ["a", "b", "c", "d", "e"])) as project:
        tests = project.reserve[: n // 10]
        others = sorted(project.pool - set(project.reserve))[: n - len(tests)]
        kinds = {**dict.fromkeys(others, "strategy"), **dict.fromkeys(tests, "test")}
        project.record(
            [
                Action("me", "label", image, image % 5, round=0, source=kind)
                for image, kind in kinds.items()
            ]
        )
        images = np.array(project.reserve, dtype=np.int64)
        predicted = (images % 5).tobytes()
        for n_labeled in range(0, n, 20):
            project.add_model(ModelRow(n_labeled, 1.0, images.tobytes(), predicted))


def fetch(client: Client, image: int) -> None:
    client.http.get(f"/images/{image}").raise_for_status()


def label_pool(
    folder: Path, arguments: list[str], n: int, pace: float, seconds: dict[str, list[float]]
) -> tuple[str, int]:
    """Label images as a page does, with the next image fetched ahead."""
    fetched: set[int] = set()
    with serving(folder, *arguments) as server:
        client = server.client()
        state = client.state()
        for number in range(n):
            for entry in state["queue"]:
                if entry["image"] not in fetched:
                    fetch(client, entry["image"])
                    fetched.add(entry["image"])
            time.sleep(pace)
            before, begun = state["round"], time.perf_counter()
            state = client.label(state["queue"][0]["image"], number % 5)["state"]
            seconds["action"].append(time.perf_counter() - begun)
            image = state["queue"][0]["image"]
            if image not in fetched:
                fetch(client, image)
                fetched.add(image)
            seconds["image"].append(time.perf_counter() - begun)
            if state["round"] != before:
                seconds["batch"].append(time.perf_counter() - begun)
        server.stop()
    store = Store(folder / ".skal/labels.sqlite")
    sources: dict[str, int] = {}
    for action in store.actions():
        sources[action.source] = sources.get(action.source, 0) + 1
    told = ", ".join(f"{source} {count}" for source, count in sorted(sources.items()))
    return told, len(store.models())


@main.command()
@click.option("--n-kills", default=300, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.pass_obj
def kills(keep: bool, n_kills: int, seed: int) -> None:
    """Kill the server at random times while somebody labels, and count what was lost."""
    draw = random.Random(seed)
    told: dict[int, tuple[int, int]] = {}
    lost = 0
    kept: dict[int, tuple[int, int | None]] = {}
    with scratch() as folder:
        make_pool(folder / "pool", 20_000, 32, 24)
        for number in range(n_kills):
            label_until_killed(folder / "pool", draw.uniform(0, 1), told)
            path = folder / "pool/.skal/labels.sqlite"
            with contextlib.closing(sqlite3.connect(path)) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            with contextlib.closing(Store(path)) as store:
                kept = {a.id: (a.image, a.label) for a in store.actions()}
            lost = sum(kept.get(key) != value for key, value in told.items())
            if number % 20 == 19:
                print(f"{number + 1} kills, {len(told)} labels, {lost} lost", flush=True)
    report(
        "kill -9 while labelling",
        ["kills", "labels acknowledged", "of them lost", "kept, but not acknowledged any more"],
        [[n_kills, f"{len(told):,}", lost, len(kept.keys() - told.keys())]],
        "One label after the other, as fast as the server takes them, from within the first second "
        "after its first answer; after each kill the store is read and checked by SQLite, and the "
        "server is started again on it.",
        keep,
    )


def label_until_killed(folder: Path, seconds: float, told: dict[int, tuple[int, int]]) -> None:
    """Label until the server is gone, and note what it acknowledged."""
    with serving(folder, *CLASSES, "--n-init", "2000") as server:
        client = server.client()
        image = client.state()["queue"][0]["image"]
        killer = threading.Timer(seconds, server.process.kill)
        killer.start()
        try:
            for number in range(1_000_000):
                answer = client.label(image, number % 5)
                told[answer["id"]] = (image, number % 5)
                image = answer["state"]["queue"][0]["image"]
        except httpx.TransportError:
            pass
        killer.join()
        server.process.communicate()


@main.command()
@click.option("--n-labels", default=120, show_default=True)
@click.option("--seeds", default=3, show_default=True)
@click.option("--pace", default=1.0, show_default=True, help="Seconds that somebody looks.")
@click.option("--strategy", default="auto", show_default=True)
@click.pass_obj
def end(keep: bool, n_labels: int, seeds: int, pace: float, strategy: str) -> None:
    """Label digits to the end: the final network, its predictions, all exports and back."""
    rows = []
    for seed in range(seeds):
        with scratch() as folder:
            rows.append([seed, *label_digits(folder, n_labels, seed, pace, strategy)])
            print(rows[-1], flush=True)
    report(
        "Digits labelled to the end through the page's interface",
        ["seed", "labels", "accuracy on all other digits", "accuracy stated", "exports and back"],
        rows,
        f"1,797 PNGs of 8x8 px; {n_labels} labels, {pace} s each, by the strategy {strategy}; then "
        "`skal train` and `skal predict`. Stated is what `skal train` says by the test sample "
        "alone. Exports are a table, a folder and tasks of Label Studio, each imported into a new "
        "project, where the same labels must hold.",
        keep,
    )


def label_digits(
    folder: Path, n_labels: int, seed: int, pace: float, strategy: str
) -> tuple[object, ...]:
    digits = load_digits()
    place = folder / "digits"
    place.mkdir()
    for number, image in enumerate(digits.images):
        Image.fromarray((image * 255 / 16).round().astype(np.uint8)).save(
            place / f"{number:04d}.png"
        )
    arguments = ["--classes", "0,1,2,3,4,5,6,7,8,9", "--image-size", "16", "--seed", str(seed)]
    with serving(place, *arguments, "--strategy", strategy) as server:
        client = server.client()
        state = client.wait_for(lambda state: state["learner"] != "training")
        while state["n_labeled"] < n_labels:
            time.sleep(pace)
            entry = state["queue"][0]
            label = int(digits.target[int(entry["name"][:4])])
            state = client.label(entry["image"], label, seconds=pace)["state"]
        code, err = server.stop()
    assert code == 0, err
    summary = json.loads(run("train", place, "--out", folder / "model", "--json"))
    run("predict", folder / "model", place, "--out", folder / "predictions.csv")
    labeled = {row["path"] for row in table(folder / "model/labels.csv")}
    right = [
        int(row["class"]) == digits.target[int(Path(row["path"]).stem)]
        for row in table(folder / "predictions.csv")
        if Path(row["path"]).name not in labeled
    ]
    assert len(right) == len(digits.target) - n_labels
    stated = "{accuracy:.3f} ({accuracy_low:.3f} to {accuracy_high:.3f}), n={n_test}"
    same = [comes_back(place, folder, form) for form in ("csv", "folder", "label-studio")]
    return n_labels, f"{np.mean(right):.4f}", stated.format(**summary), f"{sum(same)} of 3"


def comes_back(place: Path, folder: Path, form: str) -> bool:
    """Export labels, import them into a project of the same images, and compare."""
    out, other = folder / f"out-{form}", folder / f"again-{form}" / place.name
    out = out.with_suffix({"csv": ".csv", "label-studio": ".json"}.get(form, ""))
    run("export", place, "--format", form, "--out", out)
    shutil.copytree(place, other, ignore=shutil.ignore_patterns(".skal"))
    run("import", other, out, "--classes", "0,1,2,3,4,5,6,7,8,9")
    labels = [
        {(row["path"], row["label"]) for row in csv.DictReader(io.StringIO(text))}
        for text in (run("export", p, "--format", "csv") for p in (place, other))
    ]
    return labels[0] == labels[1]


def run(*arguments: object) -> str:
    command = [sys.executable, "-m", "skal", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main()
