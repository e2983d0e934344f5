"""The settings of datasets and of noise on images and labels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from ..core.kinds import Range, Share
from ..core.settings import Settings, setting

PAGES = ("first", "mean", "all")
LABEL_NOISE_KINDS = ("uniform", "pairs", "class=A:B")

_data = partial(setting, group="data")
_noise = partial(setting, group="noise")


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class DataSettings(Settings):
    """Which images to use, and what to do to them and their labels."""

    dataset: str = _data(
        "digits", "A dataset's name, or a folder of images", metavar="NAME|DIR", names=("datasets",)
    )
    image_size: int | None = _data(
        None,
        "Height and width in pixels; by default the dataset's own, or for folders what suits the "
        "network and the number of images",
        metavar="N",
        lowest=8,
        highest=4096,
    )
    white: Range | None = _data(
        None,
        "Value of white, or of black and white, in files of more than 8 bits; by default found "
        "from some of them",
        metavar="N|LOW:HIGH",
        details="It is the same for all images of a dataset: see `skal.datasets.deep.decide`. For "
        "a folder with both whole numbers and fractions, give two values with a comma between "
        "them; ``none`` leaves one undecided.",
    )
    pages: str = _data(
        "first",
        "What to use of files with several pages",
        choices=PAGES,
        details="Only pages of the first page's size count. ``all`` makes each page an image, such "
        "as ``stack.tif#2``; a drawn test set has all pages of a file or none.",
    )
    data_dir: str | None = _data(
        None,
        "Folder for datasets and caches; by default $SKAL_DATA_DIR, else ./data",
        metavar="DIR",
    )
    seed: int = _data(
        0,
        "Random seed",
        metavar="N",
        lowest=0,
        highest=2**63 - 1,
        details="It seeds split, initial set, training, noise and draws, each independently.",
    )
    drop_duplicates: bool = _data(
        False,
        "Leave out images of the pool that repeat one of the test set or of the pool",
        details="Images are duplicates if all their decoded pixels are equal. ``skal doctor DIR`` "
        "finds near-duplicates.",
    )
    noise_rate: Share = _noise(
        "0%",
        "Noise on the training images: its standard deviation as a share of white, or the share "
        "of pixels to turn into salt or pepper",
        metavar="P%",
    )
    image_noise: str = _noise(
        "gaussian",
        "Kind of noise that --noise-rate adds to the training images",
        choices=("gaussian", "salt-and-pepper"),
        needs=("noise_rate",),
        details="See `skal.datasets.noise.add_noise`; the test images stay clean.",
    )
    label_noise: Share = _noise(
        "0%",
        "Share of the pool's labels to make wrong",
        metavar="P%",
        details="See `skal.datasets.oracles.NoisyLabels`; the test labels stay right.",
    )
    label_noise_kind: str = _noise(
        "uniform",
        "Which wrong label --label-noise gives: any other, the next class, or B for images of A",
        choices=LABEL_NOISE_KINDS,
        pattern="class=.+:.+",
        needs=("label_noise",),
    )
