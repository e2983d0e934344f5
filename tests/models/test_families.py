"""Networks of torchvision and timm by their own names, and builders by import path."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from click.testing import CliRunner
from PIL import Image
from torch import Tensor, nn

import skal
from skal.cli import main
from skal.core.errors import DataError, ParameterError, UnknownNameError
from skal.datasets.decoding import decode
from skal.models import MODELS, Network, build_network
from skal.models.network import ImageModule
from skal.runs.config import RunConfig
from skal.runs.start import decoding_for, input_size

OPTIONS: dict[str, Any] = {"n_classes": 3, "in_channels": 3, "dropout": 0.25}
NAMES = torchvision.models.list_models(module=torchvision.models)
ON_PAPER = [name for name in NAMES if not name.startswith("regnet")]
"""What can be built without its weights; of the others, which are all one class, two are."""


def images(n: int, size: int, channels: int = 3) -> Tensor:
    return torch.randint(0, 256, (n, channels, size, size), dtype=torch.uint8)


@contextmanager
def input_of(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Catch what a layer is given."""
    caught: list[Tensor] = []
    hook = layer.register_forward_hook(lambda _, args, __: caught.append(args[0]))
    yield caught
    hook.remove()


def patch(*, n_classes: int, in_channels: int, image_size: int, dropout: float) -> Network:
    """Build the smallest network: found by its import path."""
    backbone = nn.Sequential(nn.Conv2d(in_channels, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    head = nn.Sequential(nn.Dropout(dropout), nn.Linear(8, n_classes))
    return Network(backbone, head)


class TestTorchvision:
    @pytest.mark.parametrize("name", [*ON_PAPER, "regnet_x_400mf", "regnet_y_400mf"])
    def test_every_network_gives_logits_and_embeddings(self, name: str) -> None:
        smallest = torchvision.models.get_model_weights(name).DEFAULT.meta["min_size"][0]
        with torch.device("meta" if name in ON_PAPER else "cpu"), torch.no_grad():
            network = build_network(f"torchvision:{name}", image_size=64, **OPTIONS).eval()
            size = network.input_size or max(64, smallest)
            logits, embeddings = network(torch.zeros(2, 3, size, size))
        assert logits.shape == (2, 3)
        assert embeddings.shape == (2, network.head[-1].in_features)

    @pytest.mark.parametrize(
        ("name", "last"),
        [
            ("mobilenet_v3_small", "classifier.3"),
            ("densenet121", "classifier"),
            ("googlenet", "fc"),
        ],
    )
    def test_embeddings_are_what_its_last_layer_was_given(
        self, name: str, last: str, tmp_path: Path
    ) -> None:
        torch.manual_seed(0)
        aux = {"init_weights": True} if name == "googlenet" else {}
        theirs = torchvision.models.get_model(name, weights=None, **aux).eval()
        torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
        if name == "googlenet":  # as with its weights
            theirs.transform_input = True
        module = ImageModule(
            f"torchvision:{name}",
            (),
            False,
            image_size=64,
            weights=tmp_path / "theirs.pth",
            **OPTIONS,
        ).eval()
        pixels = images(2, 64)
        expected = torchvision.transforms.functional.normalize(
            pixels / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        )
        with torch.no_grad(), input_of(theirs.get_submodule(last)) as caught:
            theirs(expected)
            _, embeddings = module(pixels)
        torch.testing.assert_close(embeddings, caught[0].flatten(1), atol=1e-4, rtol=1e-4)

    def test_dropout_right_before_the_last_layer_gives_way_to_skals(self) -> None:
        network = build_network("torchvision:mobilenet_v2", image_size=64, **OPTIONS)
        assert not [m for m in network.backbone.modules() if isinstance(m, nn.Dropout)]
        assert network.head[0].p == 0.25

    def test_networks_of_one_size_get_their_images_scaled(self) -> None:
        module = ImageModule("torchvision:vit_b_32", (), False, image_size=48, **OPTIONS).eval()
        assert module.prepare(images(1, 48, 1)).shape == (1, 3, 224, 224)
        other = ImageModule("torchvision:mobilenet_v2", (), False, image_size=48, **OPTIONS).eval()
        assert other.prepare(images(1, 48)).shape == (1, 3, 48, 48)

    def test_pretrained_weights_are_read_by_torchvision(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        weights = torchvision.models.SqueezeNet1_1_Weights.DEFAULT
        folder = tmp_path / "hub/checkpoints"
        folder.mkdir(parents=True)
        state = torchvision.models.squeezenet1_1(weights=None).state_dict()
        torch.save(state, folder / weights.url.rpartition("/")[2])
        network = build_network(
            "torchvision:squeezenet1_1", image_size=64, pretrained=True, **OPTIONS
        )
        assert torch.equal(network.backbone.features[0].weight, state["features.0.weight"])

    @pytest.mark.parametrize("error", [URLError("no route"), RuntimeError("invalid hash value")])
    def test_weights_that_cannot_be_downloaded_whole_may_be_named(
        self, error: Exception, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def offline(*args: object, **kwargs: object) -> None:
            raise error

        kind = torchvision.models.SqueezeNet1_1_Weights
        monkeypatch.setattr(kind, "get_state_dict", offline)
        with pytest.raises(DataError, match=rf"squeezenet1_1-\w+\.pth \(.*{error}.*--weights FILE"):
            build_network("torchvision:squeezenet1_1", image_size=64, pretrained=True, **OPTIONS)

    def test_weights_are_named_behind_an_at(self) -> None:
        newest, old = (
            MODELS.resolve(f"torchvision:{name}") for name in ("resnet50", "resnet50@IMAGENET1K_V1")
        )
        kind = torchvision.models.ResNet50_Weights
        assert newest.facts["pretrained"].args == (kind.IMAGENET1K_V2,)
        assert old.facts["pretrained"].args == (kind.IMAGENET1K_V1,)
        assert old.spec == "torchvision:resnet50@IMAGENET1K_V1"
        with pytest.raises(
            UnknownNameError, match=r"weights of torchvision's resnet50 'IMAGENET1K_V3'; did you m"
        ):
            MODELS.resolve("torchvision:resnet50@IMAGENET1K_V3")

    def test_images_are_prepared_as_the_named_weights_want(self) -> None:
        name = "torchvision:vit_b_16@IMAGENET1K_SWAG_E2E_V1"
        assert MODELS.resolve(name).facts["image_size"] == 384
        with torch.device("meta"):
            network = build_network(name, image_size=64, **OPTIONS)
            vgg = build_network("torchvision:vgg16@IMAGENET1K_FEATURES", image_size=64, **OPTIONS)
        assert network.input_size == 384
        assert vgg.std[0] == pytest.approx(1 / 255)

    def test_models_of_several_weights_are_listed_with_each(self) -> None:
        listed = [entry.name for entry in MODELS.listed("torchvision:resnet[15]*")]
        assert listed == [
            "torchvision:resnet101",
            "torchvision:resnet101@IMAGENET1K_V1",
            "torchvision:resnet101@IMAGENET1K_V2",
            "torchvision:resnet152",
            "torchvision:resnet152@IMAGENET1K_V1",
            "torchvision:resnet152@IMAGENET1K_V2",
            "torchvision:resnet18",
            "torchvision:resnet50",
            "torchvision:resnet50@IMAGENET1K_V1",
            "torchvision:resnet50@IMAGENET1K_V2",
        ]

    def test_runs_keep_the_name_of_the_weights(
        self, tiny: skal.ImageDataset, tmp_path: Path
    ) -> None:
        name = "torchvision:mobilenet_v2@IMAGENET1K_V1"
        skal.run(tiny, "random", model=name, n_rounds=0, steps=1, out=tmp_path / "run")
        assert f'model = "{name}"' in (tmp_path / "run/config.toml").read_text()


class TestTimm:
    @pytest.fixture(autouse=True)
    def timm(self) -> Any:
        return pytest.importorskip("timm")

    @pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_efficientnet"])
    def test_embeddings_are_what_its_classifier_is_given(self, name: str, timm: Any) -> None:
        torch.manual_seed(0)
        theirs = timm.create_model(name).eval()
        module = ImageModule(
            f"timm:{name}", (), False, image_size=160, weights=theirs.state_dict(), **OPTIONS
        ).eval()
        pixels = images(2, 160)
        facts = timm.data.resolve_model_data_config(theirs)
        normalised = torchvision.transforms.functional.normalize(
            pixels / 255, facts["mean"], facts["std"]
        )
        with torch.no_grad():
            expected = theirs.forward_head(theirs.forward_features(normalised), pre_logits=True)
            _, embeddings = module(pixels)
        torch.testing.assert_close(embeddings, expected, atol=1e-4, rtol=1e-4)

    def test_networks_of_one_size_get_their_images_scaled(self) -> None:
        module = ImageModule("timm:test_vit", (), False, image_size=24, **OPTIONS).eval()
        assert module.prepare(images(1, 24, 1)).shape == (1, 3, 160, 160)
        assert module(images(2, 24, 1))[0].shape == (2, 3)

    def test_pretrained_weights_are_read_by_timm(
        self, timm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        state = timm.create_model("test_vit").state_dict()
        torch.save(state, tmp_path / "test_vit.pth")
        create = timm.create_model
        overlay = {"file": str(tmp_path / "test_vit.pth")}

        def from_file(name: str, pretrained: bool = False, **options: Any) -> Any:
            given = {"pretrained_cfg_overlay": overlay} if pretrained else {}
            return create(name, pretrained=pretrained, **given, **options)

        monkeypatch.setattr(timm, "create_model", from_file)
        network = build_network(
            "timm:test_vit.r160_in1k", image_size=160, pretrained=True, **OPTIONS
        )
        assert torch.equal(
            network.backbone.blocks[0].attn.qkv.weight, state["blocks.0.attn.qkv.weight"]
        )

    def test_weights_that_cannot_be_loaded_are_one_clear_error(
        self, timm: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def offline(name: str, pretrained: bool = False, **options: Any) -> Any:
            raise OSError("no route\nto the hub")

        monkeypatch.setattr(timm, "create_model", offline)
        entry = MODELS.resolve("timm:test_vit.r160_in1k")
        with pytest.raises(
            DataError, match=r"weights of test_vit.r160_in1k .no route to the hub.*FILE"
        ):
            entry.facts["pretrained"]()

    def test_folders_are_decoded_as_its_weights_were_tested(self, tmp_path: Path) -> None:
        def shape(name: str, **settings: Any) -> tuple[int | None, str]:
            config = RunConfig(model=f"timm:{name}", **settings)
            return input_size(config, tmp_path), decoding_for(config).geometry

        squashed = "convnext_base.clip_laion2b_augreg_ft_in12k_in1k_384"
        assert shape(squashed, pretrained=True) == (384, "squash")
        assert shape(squashed) == (None, "cover")
        larger = "resnet18.a1_in1k"
        assert shape(larger, pretrained=True) == (224, "cover")
        assert shape(larger, pretrained=True, freeze=True) == (288, "cover")
        assert shape("test_vit.r160_in1k", pretrained=True, freeze=True) == (160, "cover")

    def test_unknown_weights_are_answered_with_those_there_are(self) -> None:
        with pytest.raises(UnknownNameError, match=r"timm's test_vit 'r161'; .*r160_in1k"):
            MODELS.resolve("timm:test_vit.r161")


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        (
            "torchvision:convnext_tin",
            "model of torchvision 'convnext_tin'; did you mean convnext_t",
        ),
        ("timm:resnet81", "model of timm 'resnet81'; did you mean resnet"),
        ("torchvison:resnet50", "'torchvison'; did you mean torchvision"),
        (":resnet50", "''; did you mean|''; known: timm, torchvision"),
        ("resnet81", "did you mean resnet18"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(name: str, answer: str) -> None:
    if name.startswith("timm"):
        pytest.importorskip("timm")
    with pytest.raises(UnknownNameError, match=answer):
        MODELS.resolve(name)


def test_builders_go_by_their_import_path(tiny: skal.ImageDataset) -> None:
    run = skal.run(tiny, "random", model=f"{__name__}:patch", n_rounds=1, steps=2)
    assert run.config.model == f"{__name__}:patch"
    with pytest.raises(
        ParameterError, match="has no pretrained weights; models that have: efficientnet-lite0, eff"
    ):
        skal.run(tiny, "random", model=f"{__name__}:patch", pretrained=True)


def test_families_stand_in_the_list_and_in_the_help() -> None:
    listed = json.loads(CliRunner().invoke(main, ["list", "models", "--json"]).stdout)
    assert [row["name"] for row in listed][-2:] == ["torchvision:NAME", "timm:NAME"]
    assert "torchvision:NAME, timm:NAME" in CliRunner().invoke(main, ["run", "--help"]).stdout


def test_images_too_small_for_a_network_are_found_before_anything_is_trained(
    tiny: skal.ImageDataset, tmp_path: Path
) -> None:
    message = r"'torchvision:alexnet' cannot process images of 12 px \(.*\); choose .* --image-size"
    with pytest.raises(DataError, match=message):
        skal.run(tiny, "random", model="torchvision:alexnet", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folders_are_decoded_at_the_size_that_the_weights_are_made_for(tmp_path: Path) -> None:
    config = RunConfig(model="torchvision:efficientnet_b1", pretrained=True)
    assert input_size(config, tmp_path) == 240
    assert input_size(config, "digits") is None
    assert input_size(config.replace(image_size=64), tmp_path) == 64
    assert input_size(config.replace(pretrained=False), tmp_path) is None
    assert input_size(RunConfig(model="resnet18", pretrained=True), tmp_path) is None


def test_a_run_on_a_folder_says_what_size_it_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("cat", "dog"):
        (tmp_path / "pets" / kind).mkdir(parents=True)
        for number in range(4):
            pixels = np.full((9, 9, 3), 20 * number, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / kind / f"{number}.png")

    @MODELS.register("patches-24", image_size=24, pretrained=f"{__name__}:patch_weights")
    def build(**options: Any) -> Network:
        return patch(**options)

    try:
        options = {"model": "patches-24", "n_rounds": 0, "n_init": 2, "steps": 2}
        assert (
            skal.run(tmp_path / "pets", "random", pretrained=True, **options).config.image_size
            == 24
        )
        assert skal.run(tmp_path / "pets", "random", **options).config.image_size == 48
    finally:
        MODELS.remove("patches-24")


def test_images_become_squares_as_the_weights_want_also_when_they_are_predicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for kind in ("cat", "dog"):
        (tmp_path / "pets" / kind).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, 256, (24, 60, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / kind / f"{number}.png")
    facts = {"image_size": 24, "geometry": "border", "pretrained": f"{__name__}:patch_weights"}

    @MODELS.register("patches-border", **facts)
    def build(**options: Any) -> Network:
        return patch(**options)

    try:
        options: Any = {"model": "patches-border", "n_rounds": 0, "n_init": 2, "steps": 2}
        run = skal.run("./pets", "random", pretrained=True, out="run", **options)
        skal.predict("run", ["pets/cat/0.png"], "predicted.csv", threads=1)
    finally:
        MODELS.remove("patches-border")
    assert json.loads(Path("run/model.json").read_text())["geometry"] == "border"
    image = decode(Path("pets/cat/0.png"), 24, "border")
    (row,) = csv.DictReader(Path("predicted.csv").read_text().splitlines())
    expected = run.classifier.predict_proba(image[None])[0]
    assert float(row["p_cat"]) == pytest.approx(expected[0], abs=1e-5)
    other = run.classifier.predict_proba(decode(Path("pets/cat/0.png"), 24)[None])[0]
    assert abs(other[0] - expected[0]) > 1e-3


def patch_weights() -> dict[str, Tensor]:
    return patch(n_classes=2, in_channels=3, image_size=24, dropout=0).backbone.state_dict()
