"""The cache of embeddings: each image once, whatever happens in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up import model_of, resident_of_files

import skal
from skal.core.errors import DataError
from skal.datasets.hashes import KEY_BYTES, hashes_of
from skal.models import build_network
from skal.models import features as embedding
from skal.models.backbone import Backbone, compact
from skal.models.features import FeatureStore
from skal.models.network import ImageModule

RNG = np.random.default_rng(0)
POOL = RNG.integers(0, 256, (60, 1, 12, 12), dtype=np.uint8)


def state(seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    options = {"n_classes": 2, "in_channels": 1, "image_size": 12, "dropout": 0.0}
    return dict(build_network("lenet", **options).backbone.state_dict())


def frozen(seed: int = 0) -> skal.ImageClassifier:
    return skal.ImageClassifier("lenet", classes=[0, 1], weights=state(seed), freeze=True)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def expected() -> np.ndarray:
    return skal.embed(frozen(), POOL)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the images that are embedded."""
    counts: list[int] = []
    stream = Backbone.stream

    def counted(self: Backbone, *args: Any) -> Iterator[Any]:
        for features in stream(self, *args):
            counts.append(len(features))
            yield features

    monkeypatch.setattr(Backbone, "stream", counted)
    return counts


def folder_of(cache: Path) -> Path:
    (folder,) = (path for path in cache.iterdir() if path.is_dir())
    return folder


def files(folder: Path) -> list[Path]:
    return [folder / f"{name}.bin" for name in ("rows", "keys", "chunks")]


def test_what_is_kept_is_what_the_backbone_says(cache: Path, expected: np.ndarray) -> None:
    first = skal.embed(frozen(), POOL, cache)
    again = skal.embed(frozen(), POOL, cache)
    np.testing.assert_array_equal(first, expected)
    np.testing.assert_array_equal(again, expected)
    assert first.dtype == np.float16


def test_each_image_is_embedded_once_in_whatever_order(
    cache: Path, expected: np.ndarray, seen: list[int]
) -> None:
    order = np.random.default_rng(1).integers(0, 40, 100)  # with repetitions
    np.testing.assert_array_equal(skal.embed(frozen(), POOL[order], cache), expected[order])
    assert sum(seen) == len(np.unique(order))
    np.testing.assert_array_equal(skal.embed(frozen(), POOL, cache), expected)
    assert sum(seen) == len(POOL)
    assert files(folder_of(cache))[0].stat().st_size == expected.nbytes


def test_rows_that_lie_together_are_a_view_of_the_file(cache: Path) -> None:
    whole = skal.embed(frozen(), POOL, cache)
    part = skal.embed(frozen(), POOL[10:30], cache)
    for features in (whole, part):
        assert isinstance(features, np.memmap) and not features.flags.writeable
    assert not isinstance(skal.embed(frozen(), POOL[::2], cache), np.memmap)


def test_a_large_selection_lies_in_an_unnamed_file(
    cache: Path, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    skal.embed(frozen(), POOL, cache)
    before = sorted(cache.rglob("*"))
    monkeypatch.setattr("skal.core.kept.LARGEST_IN_MEMORY", 0)
    part = skal.embed(frozen(), POOL[::2], cache)
    assert isinstance(part, np.memmap)
    np.testing.assert_array_equal(part, expected[::2])
    assert sorted(cache.rglob("*")) == before


def test_other_weights_and_sizes_and_precisions_are_kept_apart(cache: Path) -> None:
    skal.embed(frozen(), POOL, cache)
    other = skal.embed(frozen(1), POOL, cache)
    assert not np.array_equal(other, skal.embed(frozen(), POOL, cache))
    for precision in ("fp32", "bf16"):
        skal.embed(frozen().set_params(precision=precision), POOL, cache)
    skal.embed(frozen(), np.repeat(POOL, 3, axis=1)[:, :1], cache)  # the same pixels
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 3


def test_features_of_other_code_with_the_same_weights_are_made_anew(
    cache: Path, seen: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    def features(answer: Any, cache: Path | None = cache) -> np.ndarray:
        with model_of(answer) as name:
            return skal.embed(skal.ImageClassifier(name, classes=[0, 1], freeze=True), POOL, cache)

    first, again = features(torch.relu), features(torch.relu)
    np.testing.assert_array_equal(first, again)
    assert caplog.text == ""
    np.testing.assert_array_equal(features(torch.tanh), features(torch.tanh, None))
    assert "the network's code has changed" in caplog.text
    seen.clear()
    for answer in (torch.tanh, torch.relu):
        features(answer)
    assert seen == []


def test_features_that_differ_in_the_last_digits_are_the_same(
    cache: Path, expected: np.ndarray, seen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    skal.embed(frozen(), POOL, cache)
    embed = ImageModule.embed
    monkeypatch.setattr(ImageModule, "embed", lambda *args: embed(*args) * (1 + 1e-3))
    seen.clear()
    np.testing.assert_array_equal(skal.embed(frozen(), POOL, cache), expected)
    assert seen == []


def test_a_network_that_draws_numbers_is_known_again(cache: Path, seen: list[int]) -> None:
    with model_of(lambda features: torch.nn.functional.dropout(features, 0.5)) as name:
        for _ in range(2):
            skal.embed(skal.ImageClassifier(name, classes=[0, 1], freeze=True), POOL, cache)
    assert sum(seen) == len(POOL)


def test_looking_up_leaves_no_pages_of_a_memmap(tmp_path: Path) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("needs Linux's /proc")
    np.save(tmp_path / "x.npy", np.ones((1024, 1, 2**5, 2**10), np.uint8))
    pixels = np.load(tmp_path / "x.npy", mmap_mode="r")
    before = resident_of_files()
    assert len(set(hashes_of(pixels))) == 1
    assert resident_of_files() - before < pixels.nbytes / 4


def test_no_images_have_no_features(cache: Path) -> None:
    assert len(skal.embed(frozen(), POOL[:0], cache)) == 0
    assert len(skal.embed(frozen(), POOL[:0])) == 0


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("size", [0, 1, -1])
def test_a_file_that_was_cut_is_made_whole(
    number: int, size: int, cache: Path, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "COMMIT_SECONDS", 0)
    skal.embed(frozen(), POOL, cache)
    path = files(folder_of(cache))[number]
    os.truncate(path, size if size >= 0 else path.stat().st_size + size)
    np.testing.assert_array_equal(skal.embed(frozen(), POOL, cache), expected)
    np.testing.assert_array_equal(skal.embed(frozen(), POOL, cache), expected)
    assert files(folder_of(cache))[0].stat().st_size == expected.nbytes


def test_damaged_rows_are_noticed_and_made_again(
    cache: Path,
    expected: np.ndarray,
    seen: list[int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(embedding, "COMMIT_SECONDS", 0)
    monkeypatch.setattr("skal.models.devices.Device.scoring_batch_size", lambda *_: 16)
    mapped = skal.embed(frozen(), POOL, cache)
    rows = files(folder_of(cache))[0]
    with rows.open("r+b") as file:
        file.seek(20 * expected[0].nbytes)  # in the second lot of 16
        file.write(b"\xff")
    damaged = np.array(mapped)
    seen.clear()
    np.testing.assert_array_equal(skal.embed(frozen(), POOL, cache), expected)
    assert sum(seen) == 60 - 16
    assert "rows.bin is damaged; embedding the lost images again" in caplog.text
    np.testing.assert_array_equal(mapped, damaged)  # whoever looks at the old file still can


def test_opening_reads_the_last_lot_alone_unless_somebody_wrote_there(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "COMMIT_SECONDS", 0)
    monkeypatch.setattr("skal.models.devices.Device.scoring_batch_size", lambda *_: 16)
    one_row = skal.embed(frozen(), POOL, cache)[0].nbytes + KEY_BYTES
    read, crc32 = [0], embedding.zlib.crc32

    def counted(content: bytes, *start: int) -> int:
        read[0] += len(content)
        return crc32(content, *start)

    def opened() -> int:
        read[0] = 0
        assert len(FeatureStore(folder_of(cache), np.float16)) == 60
        return read[0] // one_row

    rows, _, chunks = files(folder_of(cache))
    os.utime(chunks, (time.time() + 9, time.time() + 9))
    monkeypatch.setattr(embedding.zlib, "crc32", counted)
    assert opened() == 12  # 60 are three lots of 16 and the rest
    os.utime(chunks, (1, 1))
    assert opened() >= 60
    os.utime(rows, (1, 1))
    os.utime(files(folder_of(cache))[1], (1, 1))
    assert opened() == 12


def test_features_too_large_for_float16_are_kept_as_float32(
    cache: Path, seen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skal.models.devices.Device.scoring_batch_size", lambda *_: 20)
    embed = Backbone._embed
    bright = POOL.copy()
    bright[40:] = 255  # of which the backbone makes more than float16 holds

    def large(self: Backbone, images: torch.Tensor) -> np.ndarray:
        return embed(self, images) * (1e6 if images.min() == 255 else 1)

    monkeypatch.setattr(Backbone, "_embed", large)
    expected = skal.embed(frozen(), bright)
    assert expected.dtype == np.float32 and expected.max() > 1e5
    seen.clear()
    assert skal.embed(frozen(), bright[:40], cache).dtype == np.float16
    kept = skal.embed(frozen(), bright, cache)
    assert kept.dtype == np.float32
    np.testing.assert_allclose(kept, expected, rtol=2e-3, atol=1e-3)
    again = skal.embed(frozen(), bright[30:], cache)
    np.testing.assert_array_equal(again, kept[30:])
    assert sum(seen) <= 42  # the bright one, once more after the files were made wider


def test_small_numbers_are_not_rounded_away() -> None:
    features = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    assert compact(features).dtype == np.float16
    np.testing.assert_array_equal(compact(1e-7 * features), 1e-7 * features)
    assert compact(np.zeros((2, 3), np.float32)).dtype == np.float16


def test_a_backbone_that_answers_nan_is_an_error(cache: Path) -> None:
    broken = {name: tensor * float("nan") for name, tensor in state().items()}
    classifier = skal.ImageClassifier("lenet", classes=[0, 1], weights=broken, freeze=True)
    with pytest.raises(DataError, match="backbone are NaN or infinite"):
        skal.embed(classifier, POOL, cache)


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(DataError, match=r"cannot write the embeddings .*--data-dir"):
        skal.embed(frozen(), POOL, tmp_path / "taken")


def test_a_full_disk_costs_what_did_not_fit(
    cache: Path, expected: np.ndarray, seen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "COMMIT_SECONDS", 0)
    monkeypatch.setattr("skal.models.devices.Device.scoring_batch_size", lambda *_: 20)
    append, full = FeatureStore.append, OSError(28, "No space left on device")

    def until_full(self: FeatureStore, features: Any, keys: Any) -> None:
        if len(self) == 40:
            with self._rows.open("ab") as file:
                file.write(features.tobytes()[:100])
            raise full
        append(self, features, keys)

    with monkeypatch.context() as patched:
        patched.setattr(FeatureStore, "append", until_full)
        with pytest.raises(DataError, match="No space left on device; choose another folder"):
            skal.embed(frozen(), POOL, cache)
    seen.clear()
    np.testing.assert_array_equal(skal.embed(frozen(), POOL, cache), expected)
    assert sum(seen) == 20


SLOWLY = """
import sys, time
from pathlib import Path
sys.path[:0] = {tests!r}
import torch
torch.set_num_threads(1)
import skal
from skal.models import backbone, devices, features as embedding
from test_features import POOL, frozen
embedding.COMMIT_SECONDS = 0
devices.Device.scoring_batch_size = lambda *_: 4
embed = backbone.Backbone._embed
def slowly(self, images):
    time.sleep(0.05)
    return embed(self, images)
backbone.Backbone._embed = slowly
features = skal.embed(frozen(), POOL, {cache!r})
print(float(features.astype('f8').sum()))
"""


def start(cache: Path) -> subprocess.Popen[str]:
    code = SLOWLY.format(tests=[str(Path(__file__).parents[k]) for k in (0, 1)], cache=str(cache))
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_after_a_kill_it_goes_on_where_it_was(
    cache: Path, expected: np.ndarray, seen: list[int]
) -> None:
    process = start(cache)
    one_row, end = expected[0].nbytes, time.monotonic() + 60
    while time.monotonic() < end and not (
        cache.is_dir()
        and any(path.stat().st_size > 8 * one_row for path in cache.glob("*/rows.bin"))
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with files(folder_of(cache))[0].open("ab") as file:
        file.write(b"half a row")  # as if it had been killed a moment later
    seen.clear()
    np.testing.assert_array_equal(skal.embed(frozen(), POOL, cache), expected)
    assert 0 < sum(seen) <= 52


def test_of_two_processes_one_embeds_and_both_have_all(cache: Path, expected: np.ndarray) -> None:
    processes = [start(cache) for _ in range(2)]
    answers = [float(process.communicate(timeout=300)[0]) for process in processes]
    assert answers == [pytest.approx(float(expected.astype("f8").sum()), rel=1e-9)] * 2
    assert files(folder_of(cache))[0].stat().st_size == expected.nbytes
