"""Folders as people have them: classes and parts are what their owner means, or an error."""

from __future__ import annotations

import csv
import io
import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from PIL import Image

from skal.core.errors import DataError
from skal.datasets import load_dataset
from skal.datasets.index import find_images
from skal.datasets.layout import read_layout

CLASSES = ("cat", "dog", "train station", "test tube", "Haus", "7", "été")
SPLITS = [
    ("train", "test"),
    ("Train", "Test"),
    ("TRAIN", "TEST"),
    ("training", "testing"),
    ("training_set", "test_set"),
    ("seg_train", "seg_test"),
    ("train_images", "test_images"),
    ("Training Data", "Validation Data"),
    ("train", "val"),
    ("train", "dev"),
    ("train", "eval"),
    ("trainset", "testset"),
]
UNLABELED = ("unlabeled", "_unlabeled", "no_label", "Unlabelled")
N_TREES = 2000


def understood(*folders: str) -> dict[str, tuple[str, str | None]]:
    places = read_layout([tuple(folder.split("/")) if folder else () for folder in folders])
    return {"/".join(folder): place[:2] for folder, place in places.items()}


def made_up_tree(rng: random.Random) -> dict[str, tuple[str, str | None]]:
    """Make folders of images with what they mean: wrappers, splits, unlabelled, depths."""
    classes = rng.sample(CLASSES, rng.randint(2, 4))
    wrapper = "".join(
        f"{name}/" for name in rng.sample(["flowers", "data", "images"], rng.choice((0, 0, 1, 2)))
    )
    meant: dict[str, tuple[str, str | None]] = {}

    def add(place: str, part: str) -> None:
        for name in classes:
            inner = rng.choice((("",), ("", "/a"), ("/2023/may", "/2024"), ("/images",)))
            for below in inner:
                meant[f"{place}{name}{below}"] = (part, name)

    if rng.random() < 0.6:
        for name, part in zip(rng.choice(SPLITS), ("train", "test"), strict=True):
            again = f"{name}/" if rng.random() < 0.4 else ""
            add(f"{wrapper}{name}/{again}", part)
    else:
        add(wrapper, "train")
    if rng.random() < 0.3:
        meant[wrapper + rng.choice(UNLABELED)] = ("unlabeled", None)
    return meant


def test_made_up_trees_are_read_as_they_are_meant_or_refused() -> None:
    refused = 0
    for seed in range(N_TREES):
        meant = made_up_tree(random.Random(seed))
        try:
            found = understood(*meant)
        except DataError as error:
            assert "in the place of classes" in str(error)
            refused += 1
            continue
        assert found == meant, seed
    assert refused < N_TREES / 20


@pytest.mark.parametrize(
    "folders",
    [
        ("train/cat", "train/dog", "test/cat", "test/dog"),
        ("train/train/cat", "train/train/dog", "test/test/cat", "test/test/dog"),
        (
            "seg_train/seg_train/cat",
            "seg_train/seg_train/dog",
            "seg_test/seg_test/cat",
            "seg_test/seg_test/dog",
        ),
        (
            "pets/training_set/training_set/cat",
            "pets/training_set/training_set/dog",
            "pets/test_set/cat",
        ),
        ("train/cats/cat", "train/cats/dog", "test/cat", "test/dog"),
    ],
)
def test_splits_of_kaggle(folders: tuple[str, ...]) -> None:
    for folder, (part, label) in understood(*folders).items():
        assert part == ("test" if "test" in folder else "train")
        assert label == folder.rpartition("/")[2]


def test_a_class_that_is_alone_in_one_part_is_a_class() -> None:
    found = understood("train/cat/2021", "train/cat/2022", "test/cat/2021", "test/dog/2021")
    assert {label for _, label in found.values()} == {"cat", "dog"}


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (
            ("north/cat", "north/dog", "south/cat", "south/dog"),
            "'north', 'south'.*each contains 'cat', 'dog'",
        ),
        (("a/cat", "a/dog", "a/owl", "b/cat", "b/dog"), "each contains 'cat', 'dog'"),
        (("train", "test", "extra"), "'train', 'test'.*names of parts"),
        (("train/a/cat", "train/a/dog", "train/b/cat", "train/b/dog", "test/cat"), "in 'train'"),
        (("val/cat", "test/cat"), "names of parts"),
        (("train_cats", "train_dogs", "test_cats", "test_dogs"), "names of parts"),
        (("trainA", "trainB", "testA", "testB"), "names of parts"),
        (("data/cat", "data/dog", "docs"), "'data' is in.*contains folders"),
        (("x/train/cat", "x/train/dog", "y/train/cat", "y/train/dog"), "each contains 'train'"),
        (("fold1/cat", "fold2/dog"), "'fold1', 'fold2'.*names of parts"),
        (("rose", "tulip", "flowers/rose", "flowers/tulip"), "'flowers' is in.*also next to it"),
    ],
)
def test_parts_in_the_place_of_classes_are_refused(folders: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        understood(*folders)
    assert read_layout([tuple(folder.split("/")) for folder in folders], refuse=False)


@pytest.mark.parametrize(
    "folders",
    [
        ("train station", "bus station"),
        ("train", "bus", "ship"),
        ("cat/images", "dog/images"),
        ("cat/2021", "cat/2022", "dog"),
        ("dev", "ops"),
    ],
)
def test_names_like_those_of_parts_can_be_classes(folders: tuple[str, ...]) -> None:
    found = understood(*folders)
    assert {label for _, label in found.values()} == {folder.split("/")[0] for folder in folders}


def paint(root: Path, *paths: str) -> Path:
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number * 7 % 256, 90, 200)).save(root / path)
    return root


def labels(root: Path) -> dict[str, tuple[str, str | None]]:
    return {file.path: (file.part, file.label) for file in find_images(root)}


def numbered(folder: str, n: int = 4) -> Iterator[str]:
    return (f"{folder}{k}.png" for k in range(n))


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("path,label", "{0}.png,{1}"),
        ("filename\tclass", "{0}.png\t{1}"),
        ("id,breed", "{0},{1}"),
        ("image_id;species;weight", "images/{0}.png;{1};3"),
        ("Image,Label", "/kaggle/input/pets/images/{0}.png,{1}"),
    ],
)
def test_a_table_labels_images_that_lie_together(tmp_path: Path, header: str, row: str) -> None:
    paint(tmp_path, *numbered("images/"))
    lines = [row.format(k, "cat" if k < 2 else "dog") for k in range(3)]
    (tmp_path / "labels.csv").write_text("\n".join([header, *lines]), "utf-8-sig")
    assert labels(tmp_path) == {
        "images/0.png": ("train", "cat"),
        "images/1.png": ("train", "cat"),
        "images/2.png": ("train", "dog"),
        "images/3.png": ("unlabeled", None),
    }


def test_space_before_a_name_in_a_table_is_part_of_it_where_there_is_such_an_image(
    tmp_path: Path,
) -> None:
    paint(tmp_path, "a/ 0.png", "a/0.png", "a/1.png")
    (tmp_path / "labels.csv").write_text("path,label\n 0.png,cat\n 1.png ,dog\n")
    found = {path: label for path, (_, label) in labels(tmp_path).items()}
    assert found == {"a/ 0.png": "cat", "a/0.png": None, "a/1.png": "dog"}


def test_a_competition_has_a_table_for_its_training_images(tmp_path: Path) -> None:
    paint(tmp_path, *numbered("train/"), *numbered("test/"))
    (tmp_path / "train.csv").write_text("id,label\n0,cat\n1,dog\n2,cat\n3,dog\n")
    (tmp_path / "sample_submission.csv").write_text("id,label\n0,cat\n1,cat\n2,cat\n3,cat\n")
    found = labels(tmp_path)
    assert [found[f"train/{k}.png"] for k in range(2)] == [("train", "cat"), ("train", "dog")]
    assert {found[f"test/{k}.png"] for k in range(4)} == {("unlabeled", None)}
    data = load_dataset(tmp_path, image_size=8)
    assert data.classes == ("cat", "dog") and len(data.X_unlabeled) == 4


def test_a_table_decides_where_folders_may_be_parts(tmp_path: Path) -> None:
    folders = ("north/cat/", "north/dog/", "south/cat/", "south/dog/")
    paths = list(itertools.chain.from_iterable(map(numbered, folders)))
    paint(tmp_path, *paths)
    with pytest.raises(DataError, match=r"labels\.csv"):
        find_images(tmp_path)
    rows = [f"{path},{path.split('/')[1]}" for path in paths]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows]))
    assert {label for _, label in labels(tmp_path).values()} == {"cat", "dog"}


def test_a_table_that_contradicts_the_folders_is_told_and_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paint(tmp_path, *numbered("cat/"), *numbered("dog/"))
    rows = [f"{label}/{k}.png,{label}" for label in ("cat", "dog") for k in range(4)]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["path,label", *rows]))
    assert labels(tmp_path)["cat/0.png"] == ("train", "cat") and not caplog.records
    table.write_text("\n".join(["path,label", "cat/0.png,dog", *rows[1:]]))
    assert labels(tmp_path)["cat/0.png"] == ("train", "cat")
    assert "contradicts the folders of 1 image (cat/0.png: 'dog')" in caplog.text


def test_a_table_whose_rows_may_mean_two_images_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paint(tmp_path, "a/0.png", "b/0.png")
    (tmp_path / "labels.csv").write_text("id,label\n0,cat\n")
    assert {label for _, label in labels(tmp_path).values()} == {"a", "b"}
    assert "'0' may be any of 'a/0.png', 'b/0.png'" in caplog.text


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("labels.csv", "path,label\n0.png,cat\n0.png,dog\n", "labels 0.png both 'cat' and"),
        ("x.csv", "path,class,probability\n0.png,cat,0.9\n", "holds predictions"),
        ("x.csv", "path,class,P_Cat\n0.png,cat,0.9\n", "column 'P_Cat' suggests that it holds"),
        ("x.csv", "id,target\n0,0.134\n1,0.55\n", "fractions"),
        ("x.csv", "path,label,label\n0.png,cat,dog\n", "two columns 'label'"),
        ("x.csv", "path,label,split\n0.png,cat,train\n", "'split' is not supported"),
        ("x.csv", 'path,label\n0.png,cat\n"1.png,cat\n', "used: line 3 has a quote that is never"),
        ("x.csv", "path,label\nroses/0.png,cat\nweeds/1.png,cat\n", "several folders"),
    ],
)
def test_a_table_that_cannot_be_the_truth_is_told_and_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, text: str, why: str
) -> None:
    paint(tmp_path, *numbered(""))
    (tmp_path / name).write_text(text)
    assert {label for _, label in labels(tmp_path).values()} == {None}
    assert why in caplog.text


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        (
            "labels.csv",
            "datei;klasse\n0.png;cat\n",
            "columns are 'datei', 'klasse'; expected one of",
        ),
        ("labels.csv", "datei;klasse\n0.png;cat\n", "images (path, file_name, "),
        ("train.csv", "id,klasse\n0,cat\n", "expected one of labels (label, class, "),
        ("metadata.jsonl", '{"file": "0.png", "text": "a cat"}\n', "columns are 'file', 'text'; "),
        ("labels.csv", "0.png,cat\n1.png,dog\n", "columns are '0.png', 'cat'; expected"),
        ("labels.csv", "", "it is empty"),
        ("labels.csv", "path,label\n0.png,\n", "it has no row with an image and a label"),
        (
            "labels.csv",
            "path,label\na,cat\nb,cat\nc,dog\nd,x\n",
            "4 rows names an image in this folder: 'a',",
        ),
    ],
)
def test_a_table_that_is_passed_over_is_told_where_nothing_else_has_labels(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, text: str, why: str
) -> None:
    paint(tmp_path, *numbered("images/"))  # which is the one class that there may be
    (tmp_path / name).write_text(text)
    assert {label for _, label in labels(tmp_path).values()} <= {None, "images"}
    assert f"{name} is not used: " in caplog.text and why in caplog.text
    caplog.clear()
    paint(tmp_path, "others/10.png", "others/11.png")
    assert {label for _, label in labels(tmp_path).values()} == {"images", "others"}
    assert not caplog.records


def test_a_table_of_another_purpose_is_not_told_beside_one_of_labels(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paint(tmp_path, *numbered(""))
    (tmp_path / "labels.csv").write_text("path,label\n0.png,cat\n1.png,dog\n")
    (tmp_path / "cameras.csv").write_text("camera,place\nnikon,north\n")
    assert {label for _, label in labels(tmp_path).values()} == {"cat", "dog", None}
    assert not caplog.records


def test_rows_that_name_no_image_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paint(tmp_path, *numbered(""))
    rows = ["0.png,cat", "1.png,dog", *(f"lost{k}.png,dog" for k in range(5))]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows]))
    labels(tmp_path)
    named = "'lost0.png', 'lost1.png', 'lost2.png', ..."
    assert f"5 rows of labels.csv name no image in this folder: {named}" in caplog.text
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows[:3]]))
    labels(tmp_path)
    assert caplog.records[-1].getMessage().endswith("image in this folder: 'lost0.png'")


def test_rows_with_too_few_or_too_many_cells_are_counted_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "skal")
    paint(tmp_path, *numbered("", 9))
    rows = [
        "0.png,cat,x",
        "1.png",
        "2.png,dog",
        "3.png,dog, brown,",
        "4,dog, a, b",
        "5.png,,",
        ",,",
    ]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,note", *rows]))
    found = {path: label for path, (_, label) in labels(tmp_path).items() if label}
    assert found == {"0.png": "cat", "2.png": "dog"}
    told = "ignored 3 rows of labels.csv (the first is line 3): not as many cells as its header"
    assert told in caplog.text
    assert "labels.csv labels 2 images; without a label: 1 row" in caplog.text
    (tmp_path / "labels.csv").write_text("id,label\n1,0,cat\n2,1,dog\n")  # as R writes them
    labels(tmp_path)
    assert "no row with an image and a label, and 2 rows with not as many cells" in caplog.text


@pytest.mark.parametrize(
    ("text", "separator", "columns"),
    [
        ("id,breed\n0,cat\n1,dog\n", ",", ("id", "breed")),
        ("path;label\n0.png;cat\n1.png;dog, brown\n", ";", ("path", "label")),
        ('path\tnote\tlabel\n0.png\t"a\tb\nc ""d"""\tcat\n', "\t", ("path", "label")),
        ("\ufeffPath,LABEL\r\n0.png,cat\r\n\r\n1.png,dog\r\n", ",", ("Path", "LABEL")),
        ("path,label,,\n0.png,cat,,\n1.png,dog\n,,,\n", ",", ("path", "label")),
        ("path,label\n0.png,cat,,\n1.png,dog,,\n", ",", ("path", "label")),
        ("\n\npath,label\n0.png,cat\n0.png,cat\n", ",", ("path", "label")),
        ("path,label\n 0.png , cat \n./1.png, dog\n", ",", ("path", "label")),
        ("path,label\npets\\0.png,cat\nC:\\pets\\1.png,dog\n", ",", ("path", "label")),
        ("path,label\nmy%20cat.png,cat\npets/my cat.png,cat\n", ",", ("path", "label")),
    ],
)
def test_each_label_is_what_the_csv_module_reads_for_its_image(
    tmp_path: Path, text: str, separator: str, columns: tuple[str, str]
) -> None:
    root = paint(tmp_path / "pets", *numbered(""), "my cat.png")
    (root / "labels.csv").write_bytes(text.encode())
    lines = io.StringIO(text.removeprefix("\ufeff").lstrip("\n"), newline="")
    expected = {}
    for row in csv.DictReader(lines, delimiter=separator):
        name, label = (row[column].strip() for column in columns)
        if label:
            stem = unquote(name).replace("\\", "/").rpartition("/")[2].removesuffix(".png")
            expected[f"{stem}.png"] = label
    assert expected
    assert {path: label for path, (_, label) in labels(root).items() if label} == expected


def test_numbers_beside_a_column_of_images_are_not_taken_for_these(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paint(tmp_path, *numbered(""))
    (tmp_path / "labels.csv").write_text("Id,photo,label\n0,3.png,cat\n1,2.png,dog\n")
    assert {label for _, label in labels(tmp_path).values()} == {None}
    assert "may be in the column 'Id' or 'photo'; rename the right one to 'path'" in caplog.text


def test_a_column_of_other_files_is_no_rival_of_ids_that_are_images(tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.new("L", (8, 8)).save(tmp_path / f"{name}.png")
    (tmp_path / "labels.csv").write_text("id,breed,mask\na,cat,a_mask.png\nb,dog,b_mask.png\n")
    found = find_images(tmp_path)
    assert [(file.path, file.label) for file in found] == [("a.png", "cat"), ("b.png", "dog")]


def test_a_table_that_is_passed_over_by_its_name_is_told_where_it_would_have_been_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paint(tmp_path, *numbered(""))
    told = "is not used: its name suggests that it holds no true labels; rename it if it does"
    for name in ("sample_submission.csv", "samples.tsv", "predicted.csv"):
        (tmp_path / name).write_text("path\tlabel\n0.png\tcat\n1.png\tdog\n")
        labels(tmp_path)
        assert f"{name} {told}" in caplog.text
        (tmp_path / name).unlink()
    caplog.clear()
    (tmp_path / "sample_submission.csv").write_text("path,label\n0.png,0.5\n")
    labels(tmp_path)
    paint(tmp_path, *numbered("cat/"), *numbered("dog/"))
    (tmp_path / "sample_submission.csv").write_text("path,label\n0.png,cat\n")
    labels(tmp_path)
    assert not caplog.records


def test_predictions_and_contradicting_tables_are_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paint(tmp_path, *numbered(""))
    (tmp_path / "predictions.csv").write_text("path,class\n0.png,cat\n")
    assert {label for _, label in labels(tmp_path).values()} == {None}
    (tmp_path / "labels.csv").write_text("path,label\n0.png,cat\n1.png,dog\n")
    (tmp_path / "old.csv").write_text("path,label\n0.png,dog\n")
    assert {label for _, label in labels(tmp_path).values()} == {None}
    assert "old.csv contradicts another table about 0.png: no table is used" in caplog.text


def test_rows_of_folders_beside_this_one_are_not_of_it(tmp_path: Path) -> None:
    root = paint(tmp_path / "cats", *numbered(""))
    rows = "".join(f"dogs/{k}.png,dog\n" for k in range(4)) + "".join(
        f"cats/{k}.png,{'old' if k % 2 else 'young'}\n" for k in range(4)
    )
    (root / "labels.csv").write_text(f"path,label\n{rows}")
    assert {label for _, label in labels(root).values()} == {"old", "young"}


def test_a_table_of_hugging_face_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "skal")
    for part in ("train", "test"):
        paint(tmp_path, *numbered(f"{part}/"))
        rows = [{"file_name": f"{k}.png", "label": ("cat", "dog")[k % 2]} for k in range(4)]
        rows[0]["objects"] = {"bbox": [[0, 0, 1, 1]]}
        lines = "".join(f"{json.dumps(row)}\n" for row in rows)
        (tmp_path / part / "metadata.jsonl").write_text(lines)
    found = labels(tmp_path)
    assert found["train/0.png"] == ("train", "cat") and found["test/3.png"] == ("test", "dog")
    assert "ignored" not in caplog.text
    (tmp_path / "train/metadata.jsonl").write_text("no JSON")
    labels(tmp_path)
    assert "train/metadata.jsonl is not used: it is not one JSON object per line" in caplog.text
    caplog.clear()
    twice = '{"file_name": "0.png", "label": "cat", "label": "dog"}'
    (tmp_path / "train/metadata.jsonl").write_text(twice)
    labels(tmp_path)
    assert "train/metadata.jsonl is not used: an object has the name 'label' twice" in caplog.text
    (tmp_path / "train/metadata.jsonl").write_text("[" * 100_000)
    labels(tmp_path)
    assert "train/metadata.jsonl is not used: it is not one JSON object per line" in caplog.text


def test_only_ends_of_lines_part_the_objects_of_a_table(tmp_path: Path) -> None:
    paint(tmp_path, *numbered("x/"))
    rows = [
        {"file_name": f"{k}.png", "label": ("cat", "dog")[k % 2], "text": "one\u2028two\x85three"}
        for k in range(4)
    ]
    lines = "".join(f"{json.dumps(row, ensure_ascii=False)}\r\n" for row in rows)
    (tmp_path / "x/metadata.jsonl").write_bytes(lines.encode())
    assert {label for _, label in labels(tmp_path).values()} == {"cat", "dog"}


def test_tables_lie_in_any_folder_beside_their_images(tmp_path: Path) -> None:
    paint(tmp_path, *numbered("lab/2024/monday/"))
    rows = "".join(f"{k}.png,{('cat', 'dog')[k % 2]}\n" for k in range(4))
    (tmp_path / "lab/2024/monday/labels.csv").write_text(f"path,label\n{rows}")
    found = labels(tmp_path)
    assert [label for _, label in found.values()] == ["cat", "dog", "cat", "dog"]


def test_kaggle_has_a_table_for_the_folder_of_training_images(tmp_path: Path) -> None:
    paint(tmp_path, *numbered("train_images/"), *numbered("test_images/"))
    (tmp_path / "train.csv").write_text("image_id,label\n0.png,cat\n1.png,dog\n2.png,cat\n")
    found = labels(tmp_path)
    assert found["train_images/1.png"] == ("train", "dog")
    assert found["test_images/1.png"] == ("unlabeled", None)


def test_an_address_in_another_folder_that_is_here_is_not_meant(tmp_path: Path) -> None:
    paint(tmp_path, "photos/1.png", "photos/new/2.png")
    (tmp_path / "labels.csv").write_text("path,label\nnew/1.png,cat\nnew/2.png,dog\n")
    assert labels(tmp_path)["photos/new/2.png"][1] == "dog"
    assert labels(tmp_path)["photos/1.png"][1] != "cat"


def test_classes_that_differ_by_case_or_spaces_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paint(tmp_path, *numbered("Cat/"), *numbered("cat/"), *numbered("dog/"))
    find_images(tmp_path)
    assert "the classes 'Cat' and 'cat' differ only by case or spaces" in caplog.text
