"""What other tools write is read right, or refused by one line that names it."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from label_server import write_images

from skal.cli import main
from skal.core.errors import DataError
from skal.label.formats import READERS, Row, Source, read_rows
from skal.label.importing import import_into
from skal.label.project import LabelProject

CLASSES = ["cat", "dog"]
IMAGES = ["a/0012.png", "a/1.png", "b/2.png"]
MEANT = {"a/0012.png": "cat", "b/2.png": "dog"}


def lines(*objects: dict[str, Any]) -> str:
    return "\n".join(map(json.dumps, objects)) + "\n"


def answer(label: str, name: str = "choice") -> dict[str, Any]:
    return {"type": "choices", "from_name": name, "value": {"choices": [label]}}


FILES: dict[str, tuple[str, str, str]] = {
    "CSV of a colleague": ("csv", "x.csv", "filename,class\na/0012.png,cat\nb/2.png,dog\n"),
    "ids without a suffix": ("csv", "train.csv", "id,breed\n0012,cat\n2,dog\n"),
    "TSV": ("csv", "x.tsv", "image\ttarget\na/0012.png\tcat\nb/2.png\tdog\n"),
    "a folder in front": (
        "csv",
        "x.csv",
        "file;label\nphotos/b/2.png;dog\nphotos/a/0012.png;cat\n",
    ),
    "bars": ("csv", "x.csv", "path|label\na/0012.png|cat\nb/2.png|dog\n"),
    "Excel": ("csv", "x.csv", "sep=;\r\npath;label\r\na/0012.png;cat\r\nb/2.png;dog\r\n"),
    "HF metadata.csv": ("csv", "metadata.csv", "file_name,label\na/0012.png,cat\nb/2.png,dog\n"),
    "Label Studio CSV": (
        "csv",
        "x.csv",
        "image,id,choice,annotator,lead_time\n/data/local-files/?d=photos/a/0012.png,1,cat,3,2.5\n"
        "/data/local-files/?d=photos/b/2.png,2,dog,3,1.5\n",
    ),
    "HF metadata.jsonl": (
        "json-lines",
        "metadata.jsonl",
        lines(
            {"file_name": "a/0012.png", "label": "cat"}, {"file_name": "b/2.png", "label": "dog"}
        ),
    ),
    "Ground Truth": (
        "json-lines",
        "output.manifest",
        lines(
            {"source-ref": "s3://x/a/0012.png", "pets": 0, "pets-metadata": {"class-name": "cat"}},
            {"source-ref": "s3://x/b/2.png", "pets": 1, "pets-metadata": {"class-name": "dog"}},
        ),
    ),
    "Vertex AI": (
        "json-lines",
        "x.jsonl",
        lines(
            {
                "imageGcsUri": "gs://x/a/0012.png",
                "classificationAnnotation": {"displayName": "cat"},
            },
            {"imageGcsUri": "gs://x/b/2.png", "classificationAnnotation": {"displayName": "dog"}},
        ),
    ),
    "Azure ML": (
        "json-lines",
        "x.jsonl",
        lines(
            {"image_url": "azureml://datastores/x/paths/a/0012.png", "label": "cat"},
            {"image_url": "azureml://datastores/x/paths/b/2.png", "label": "dog"},
        ),
    ),
    "Label Studio": (
        "label-studio",
        "x.json",
        json.dumps(
            [
                {
                    "data": {"image": f"/data/local-files/?d=photos/{path}"},
                    key: [{"result": [answer(c)]}],
                }
                for key, (path, c) in zip(
                    ("annotations", "completions"), MEANT.items(), strict=True
                )
            ]
        ),
    ),
    "Label Studio JSON_MIN": (
        "json",
        "x.json",
        json.dumps([{"image": f"s3://x/{p}", "choice": c, "id": 3} for p, c in MEANT.items()]),
    ),
    "scikit-activeml-annotation": (
        "skactiveml-annotation",
        "x.json",
        json.dumps(
            {
                path: {"embedding_idx": n, "label": c, "first_view_time": "", "last_edit_time": ""}
                for n, (path, c) in enumerate({**MEANT, "a/1.png": "MISSING_LABEL"}.items())
            }
        ),
    ),
    "the same with what was annotated automatically": (
        "skactiveml-annotation",
        "x.json",
        json.dumps(
            {
                "manual": {p: {"embedding_idx": 0, "label": c} for p, c in MEANT.items()},
                "automated": {"a/1.png": {"embedding_idx": 1, "label": "dog", "confidence": 0.9}},
            }
        ),
    ),
    "COCO": (
        "coco",
        "x.json",
        json.dumps(
            {
                "images": [{"id": n, "file_name": path} for n, path in enumerate(IMAGES)],
                "annotations": [
                    {"image_id": 0, "category_id": 5},
                    {"image_id": 2, "category_id": 7},
                ],
                "categories": [{"id": 5, "name": "cat"}, {"id": 7, "name": "dog"}],
            }
        ),
    ),
    "Datumaro": (
        "datumaro",
        "x.json",
        json.dumps(
            {
                "categories": {"label": {"labels": [{"name": "cat"}, {"name": "dog"}]}},
                "items": [
                    {"id": "a/0012", "annotations": [{"type": "label", "label_id": 0}]},
                    {"id": "b/2", "annotations": [{"type": "label", "label_id": 1}]},
                    {"id": "a/1", "annotations": []},
                ],
            }
        ),
    ),
    "FiftyOne": (
        "fiftyone",
        "labels.json",
        json.dumps({"classes": CLASSES, "labels": {"a/0012": 0, "b/2": {"label": "dog"}}}),
    ),
    "VIA": (
        "via",
        "x.json",
        json.dumps(
            {
                f"{path}99": {
                    "filename": path,
                    "size": 99,
                    "regions": [],
                    "file_attributes": {"pet": c},
                }
                for path, c in MEANT.items()
            }
        ),
    ),
    "Roboflow": (
        "roboflow",
        "_classes.csv",
        "filename, cat, dog\na/0012.png, 1, 0\nb/2.png, 0, 1\n",
    ),
    "imagenet_txt": ("imagenet-txt", "train.txt", "a/0012.png 0\nb/2.png 1\n"),
}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_images(tmp_path / "photos", np.arange(48, dtype=np.uint8).reshape(3, 4, 4), IMAGES)
    return tmp_path / "photos"


def labels(root: Path) -> dict[str, str]:
    project = LabelProject.open(root)
    return {project.paths[n]: project.classes[label] for n, label in project.labels.items()}


def recognised(source: Source) -> str:
    return next(entry.name for entry in READERS if entry.facts["recognises"](source))


@pytest.mark.parametrize("kind", FILES)
def test_a_file_is_recognised_by_its_content_and_read(
    photos: Path, tmp_path: Path, kind: str
) -> None:
    form, name, text = FILES[kind]
    (tmp_path / "synsets.txt").write_text("cat\ndog\n")
    (tmp_path / name).write_text(text)
    assert recognised(Source(tmp_path / name)) == form
    assert import_into(photos, tmp_path / name, CLASSES).new == 2
    assert labels(photos) == MEANT


def test_parquet_is_read(photos: Path, tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = arrow.table({"image_id": ["0012", "2"], "label": ["cat", "dog"], "n": [1, 2]})
    parquet.write_table(table, tmp_path / "x.parquet")
    assert recognised(Source(tmp_path / "x.parquet")) == "parquet"
    import_into(photos, tmp_path / "x.parquet", CLASSES)
    assert labels(photos) == MEANT


def test_columns_and_questions_can_be_named(photos: Path, tmp_path: Path) -> None:
    tasks = [
        {"data": {"image": p}, "annotations": [{"result": [answer("yes", "sharp"), answer(c)]}]}
        for p, c in MEANT.items()
    ]
    cases = [
        ("x.csv", "a/0012.png,cat\nb/2.png,dog\n", ["--path-column", "1", "--label-column", "2"]),
        (
            "y.csv",
            "place,label,pet\na/0012.png,x,cat\nb/2.png,y,dog\n",
            ["--path-column", "place", "--label-column", "pet"],
        ),
        ("x.json", json.dumps(tasks), ["--choice", "choice"]),
        ("x.txt", "path,label\na/0012.png,cat\nb/2.png,dog\n", ["--format", "csv"]),
    ]
    for name, text, options in cases:
        (tmp_path / name).write_text(text)
        command = ["import", str(photos), str(tmp_path / name), "--classes", "cat,dog", *options]
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
        assert labels(photos) == MEANT


def chained(path: str, *names: str) -> dict[str, Any]:
    """A line of Ground Truth after two jobs."""
    jobs = zip(("Coat", "animal"), names, strict=True)
    cells = [{job: 0, f"{job}-Metadata": {"class-name": name}} for job, name in jobs]
    return {"source-ref": f"s3://x/{path}"} | cells[0] | cells[1]


def test_of_chained_jobs_one_is_named(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "x.manifest").write_text(lines(*(chained(p, "long", c) for p, c in MEANT.items())))
    with pytest.raises(DataError, match=r"line 1 has several classes .Coat 'long', animal 'cat'."):
        import_into(photos, tmp_path / "x.manifest", CLASSES)
    import_into(photos, Source(tmp_path / "x.manifest", label_column="animal"), CLASSES)
    assert labels(photos) == MEANT


def test_a_label_beside_a_class_name_is_not_passed_over(tmp_path: Path) -> None:
    one = {"path": "a/1.png", "label": "dog", "pet-metadata": {"class-name": "cat"}}
    (tmp_path / "x.jsonl").write_text(lines(one))
    with pytest.raises(DataError, match=r"several classes .pet 'cat', label 'dog'."):
        list(read_rows(Source(tmp_path / "x.jsonl")))


@pytest.mark.parametrize(("cell", "meant"), [(0, "0"), (0.0, "0"), (12.0, "12"), (None, "")])
def test_numbers_are_ids(tmp_path: Path, cell: Any, meant: str) -> None:
    (tmp_path / "x.jsonl").write_text(lines({"id": cell, "label": 1.0}))
    (row,) = read_rows(Source(tmp_path / "x.jsonl"))
    assert (row.address, row.label) == (meant, "1")


def test_many_lines_are_read_each_as_it_stands(tmp_path: Path) -> None:
    others = {
        3: {"label": "dog", "path": "b"},
        1200: {"path": "c", "label": 1.0},
        1300: {"path": "d", "label": " dog ", "more": {"x": 1}},
        2100: {"path": "e", "label": None, "annotator": "ann"},
        2200: {"path": 12, "label": "cat"},
        2300: {"path": "f", "class_id": 3},
    }
    text = [json.dumps(others.get(n, {"path": f"{n}.png", "label": "cat"})) for n in range(3500)]
    text[2050] = "  "
    (tmp_path / "x.jsonl").write_text("\n".join(text))
    rows = {int(row.where.split()[1]) - 1: row for row in read_rows(Source(tmp_path / "x.jsonl"))}
    assert [*rows] == [n for n in range(3500) if n != 2050]
    said = {n: (row.address, row.label, row.annotator) for n, row in rows.items()}
    for n, meant in ((3, ("b", "dog", "")), (1200, ("c", "1", "")), (1300, ("d", "dog", ""))):
        assert said.pop(n) == meant
    for n, meant in (
        (2100, ("e", None, "ann")),
        (2200, ("12", "cat", "")),
        (2300, ("f", None, "")),
    ):
        assert said.pop(n) == meant
    assert all(one == (f"{n}.png", "cat", "") for n, one in said.items())
    for bad in ('{"path": "a", "label": "cat"}, {"path": "b", "label": "cat"}', "[1", "2", "{}]"):
        (tmp_path / "x.jsonl").write_text("\n".join([*text[:1500], bad, *text[1500:]]))
        with pytest.raises(DataError, match=r"line 1501 is no"):
            list(read_rows(Source(tmp_path / "x.jsonl")))


UNLABELLED = {"source-ref": "s3://x/a/1.png"}


def test_objects_without_a_label_are_counted_if_others_have_one(
    photos: Path, tmp_path: Path
) -> None:
    file = tmp_path / "x.manifest"
    file.write_text(lines(UNLABELLED) + FILES["Ground Truth"][2])
    assert str(import_into(photos, file, CLASSES)).endswith("1 row without a label")
    assert labels(photos) == MEANT
    file.write_text(lines(UNLABELLED, UNLABELLED))
    with pytest.raises(DataError, match=r"has no column 'label' .found: source-ref"):
        import_into(photos, file)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"path": "a/1.png", "Category": "dog"}, "line 1 has 'label' and line 2 has 'Category'"),
        (
            {"id": "1", "label": "dog"},
            "line 1 has 'path' and line 2 has 'id'; name one with --path",
        ),
        (
            {"path": "a/1.png", "label": "cat", "Label": "dog"},
            "line 2 has two columns with the same name",
        ),
    ],
)
def test_no_object_has_its_label_elsewhere_than_the_others(
    photos: Path, tmp_path: Path, other: dict[str, str], message: str
) -> None:
    (tmp_path / "x.jsonl").write_text(lines({"path": "b/2.png", "label": "cat"}, other))
    with pytest.raises(DataError, match=message):
        import_into(photos, tmp_path / "x.jsonl", CLASSES)


def test_labels_that_answer_several_questions_are_refused(photos: Path, tmp_path: Path) -> None:
    said = [{f"{job}-metadata": {"class-name": "cat"}} for job in ("pet", "coat")]
    answers = [[answer("cat", "pet")], [answer("dog", "coat")]]
    tasks = [
        {"data": {"image": path}, "annotations": [{"result": own}]}
        for path, own in zip(IMAGES, answers, strict=False)
    ]
    attributes = [{"pet": "cat"}, {"coat": "dog"}]
    files = [
        {"filename": path, "regions": [], "file_attributes": own}
        for path, own in zip(IMAGES, attributes, strict=False)
    ]
    images = [{"source-ref": path} | own for path, own in zip(IMAGES, said, strict=False)]
    cases = [
        (
            "x.jsonl",
            lines(*images),
            "line 1 has 'pet' and line 2 has 'coat'; name one with --label-col",
        ),
        ("x.json", json.dumps(tasks), "x.json has answers to coat, pet; name one with --choice"),
        ("x.json", json.dumps({str(n): one for n, one in enumerate(files)}), "'a/1.png' has the"),
    ]
    for name, text, message in cases:
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=message):
            import_into(photos, tmp_path / name, CLASSES)
    assert import_into(photos, Source(tmp_path / "x.json", label_column="pet"), CLASSES).new == 1
    with pytest.raises(DataError, match=r"x.json has no file attribute 'size'"):
        import_into(photos, Source(tmp_path / "x.json", label_column="size"), CLASSES)


def test_numbers_beside_a_column_of_images_are_no_ids(photos: Path, tmp_path: Path) -> None:
    row = {"id": 1, "Photo": "b/2.png", "label": "dog"}
    for name, text in (("x.csv", "id,Photo,label\n1,b/2.png,dog\n"), ("x.jsonl", lines(row))):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=r"column 'id' or in 'Photo'; name one with --path-col"):
            import_into(photos, tmp_path / name, CLASSES)
        import_into(photos, Source(tmp_path / name, path_column="photo"), CLASSES)
        assert labels(photos) == {"b/2.png": "dog"}


def test_rows_that_are_cut_or_have_more_empty_cells_are_counted_or_read(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "x.csv").write_text("path,label,note\na/1.png\na/0012.png,cat\nb/2.png,dog,,,\n")
    assert str(import_into(photos, tmp_path / "x.csv", CLASSES)).endswith("1 row without a label")
    assert labels(photos) == MEANT
    assert "x.csv: 1 row with too few cells (the first is line 2)" in caplog.text
    (tmp_path / "x.csv").write_text("path,label,note\na/0012.png,cat, brown,\n")
    with pytest.raises(DataError, match=r"x.csv, line 2 has more fields than the header"):
        import_into(photos, tmp_path / "x.csv", CLASSES)


def test_lines_of_imagenet_are_each_read_or_refused(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("\ufeffcat\ndog\n\n", "utf-8")
    file = tmp_path / "x.txt"
    file.write_text("a/0012.png\t0\n\nb/2.png 1\n")
    import_into(photos, file, CLASSES)
    assert labels(photos) == MEANT
    file.write_text("a/0012.png 0\nb/2.png\n")
    with pytest.raises(DataError, match=r"x.txt, line 2: 'b/2.png'; expected a path and a number"):
        import_into(photos, file)
    (tmp_path / "classes.txt").write_text("cat\n\ndog\n")  # would make other numbers of the rest
    with pytest.raises(DataError, match=r"classes.txt, line 2 is empty"):
        import_into(photos, file)


def test_rows_that_leave_folders_out_beside_such_that_do_not_are_refused(
    photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "x.csv").write_text("path,label\n\na/0012.png,cat\n2.png,dog\n")
    with pytest.raises(DataError, match=r"x.csv leaves folders of 'b/2.png' out, and not those of"):
        import_into(photos, tmp_path / "x.csv", CLASSES)
    (tmp_path / "x.csv").write_text("\npath;label\n0012.png;cat\n2.png;dog\n")
    import_into(photos, tmp_path / "x.csv", CLASSES)
    assert labels(photos) == MEANT


@pytest.mark.parametrize("way", ["{}", "./{}", "{} "])
def test_no_order_of_rows_makes_a_file_of_several_meanings_clear(tmp_path: Path, way: str) -> None:
    root = tmp_path / "t"
    names = ["a/y.jpg", "b/x.jpg", "u.jpg", "x.jpg"]
    write_images(root, np.arange(64, dtype=np.uint8).reshape(4, 4, 4), names)
    for order in permutations(("u.jpg,cat", "x.jpg,dog", "y.jpg,cat")):
        rows = [row.split(",") for row in order]
        said = [f"{way.format(name)},{label}" for name, label in rows]
        (tmp_path / "x.csv").write_text("\n".join(["path,label", *said]))
        with pytest.raises(DataError, match=r"of 'a/y.jpg' out, and 'x.jpg' may be in several, in"):
            import_into(root, tmp_path / "x.csv", CLASSES)
    (tmp_path / "x.csv").write_text(f"path,label\n{way.format('u.jpg')},cat\ny.jpg,dog\n")
    import_into(root, tmp_path / "x.csv", CLASSES)
    assert labels(root) == {"u.jpg": "cat", "a/y.jpg": "dog"}


@pytest.mark.parametrize("way", ["{}", "./{}", "{} ", "/data/local-files/?d={}"])
def test_a_folder_of_the_roots_name_is_not_taken_for_the_root(tmp_path: Path, way: str) -> None:
    root, file = tmp_path / "flowers", tmp_path / "x.csv"
    names = ["0.png", "a/2.png", "flowers/0.png", "flowers/3.png"]
    write_images(root, np.arange(64, dtype=np.uint8).reshape(4, 4, 4), names)
    rows = [f"{way.format('flowers/' + name)},cat" for name in ("a/2.png", "3.png", "0.png")]
    for order in permutations(rows):
        file.write_text("\n".join(["path,label", *order]))
        with pytest.raises(DataError, match=r"'flowers/0.png' may be '0.png' or 'flowers/0.png'"):
            import_into(root, file, CLASSES)
    file.write_text("\n".join(["path,label", *rows[:2]]))
    assert import_into(root, file, CLASSES).new == 2  # 3.png is in one place alone
    file.write_text("path,label\nflowers/0.png,dog\n0.png,cat\n")
    import_into(root, file)
    assert labels(root)["flowers/0.png"] == "dog" and labels(root)["0.png"] == "cat"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.csv", "path,path,label\na,b,cat\n", "two columns 'path'"),
        ("x.json", '{"a": 1}', "JSON of an unknown format .an object with 'a'"),
        ("x.jsonl", '{"path": "a/1.png", "label": "cat"}\n{"path": \n', "line 2 is not JSON"),
        (
            "x.json",
            json.dumps(
                [
                    {
                        "data": {"image": "a/1.png"},
                        "annotations": [{"result": [answer("cat", "one"), answer("dog", "two")]}],
                    }
                ]
            ),
            "--choice selects one",
        ),
        (
            "x.json",
            json.dumps(
                {
                    "images": [{"id": 1, "file_name": "a/1.png"}],
                    "annotations": [{"image_id": 1, "category_id": n} for n in (1, 2)],
                    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
                }
            ),
            "not detections",
        ),
        (
            "_classes.csv",
            "filename,cat,dog\na/1.png,1,1\n",
            "line 2 has the classes cat, dog; expected one",
        ),
        ("x.csv", "id,label\n0012,cat\nmissing,dog\n", "line 3: 'missing' matches no image"),
        (
            "x.json",
            json.dumps(
                {
                    "a": {
                        "filename": "a/1.png",
                        "regions": [],
                        "file_attributes": {"pet": {"cat": True, "dog": True}},
                    }
                }
            ),
            "'a/1.png' has cat, dog ticked; expected one",
        ),
        (
            "x.json",
            json.dumps(
                [
                    {
                        "data": {"image": "a/1.png"},
                        "annotations": [{"result": [answer("cat")]}, {"result": [answer("dog")]}],
                    }
                ]
            ),
            "both from 'me'",
        ),
        (
            "x.csv",
            'path,"a\nb"\na/1.png,cat\n',
            r"^x.csv has no column 'label' .found: path, a\\nb",
        ),
        (
            "x.jsonl",
            lines({"path": "a/1.png", "label": ["\x1b[2Jcat", "dog"]}),
            r"^x.jsonl, line 1 has the classes \\x1b\[2Jcat, dog; expected one$",
        ),
        (
            "x.csv",
            "path,label,annotator\na/1.png,cat,ann\x1b\n",
            r"^x.csv, line 2: got the annotator 'ann\\x1b'; expected a printable name$",
        ),
    ],
)
def test_what_does_not_fit_is_one_line_and_changes_nothing(
    photos: Path, tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        import_into(photos, tmp_path / name, CLASSES)
    assert not (photos / ".skal").exists()


DAYS = ("2024-03-01T10:00:00.5Z", "2024-03-02T10:00:00+00:00")


@pytest.mark.parametrize(
    ("first", "second", "counts"),
    [
        ({}, {}, "dog"),
        ({"updated_at": DAYS[1]}, {"updated_at": DAYS[0]}, "cat"),
        ({"created_at": DAYS[1]}, {"created_at": DAYS[0]}, "cat"),
        ({"created_at": DAYS[0], "updated_at": DAYS[1]}, {"created_at": DAYS[0]}, "cat"),
        ({"created_at": DAYS[1]}, {"created_at": "a while ago"}, "dog"),
    ],
)
def test_the_later_of_two_annotations_of_one_person_counts(
    photos: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    first: dict[str, str],
    second: dict[str, str],
    counts: str,
) -> None:
    both = [
        {"completed_by": 4, "result": [answer("cat")], **first},
        {"completed_by": 4, "result": [answer("dog")], **second},
    ]
    (tmp_path / "x.json").write_text(
        json.dumps([{"data": {"image": "b/2.png"}, "annotations": both}])
    )
    with caplog.at_level("INFO", logger="skal"):
        import_into(photos, tmp_path / "x.json", CLASSES)
    assert labels(photos) == {"b/2.png": counts}
    assert "x.json: 1 earlier annotation does not count" in caplog.text


def stars(source: Source) -> list[Row]:
    """A reader of one's own: a path and a class, with stars between."""
    return [Row(line, *line.split("*")) for line in source.text.split()]


def test_a_reader_of_ones_own_is_named(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "x.stars").write_text("a/0012.png*cat\nb/2.png*dog\n")
    rows = list(read_rows(Source(tmp_path / "x.stars"), f"{__name__}:stars"))
    assert [row.label for row in rows] == CLASSES
    import_into(photos, tmp_path / "x.stars", CLASSES, form=f"{__name__}:stars")
    assert labels(photos) == MEANT


def test_all_formats_are_listed() -> None:
    result = CliRunner().invoke(main, ["list", "import-formats", "--json"])
    assert {entry["name"] for entry in json.loads(result.output)} == set(READERS.names())
    assert "recognises" not in result.output


def test_readers_from_outside_are_asked_before_ours(tmp_path: Path) -> None:
    (tmp_path / "x.stars").write_text("a/0012.png*cat\n")
    facts = [{}, {"recognises": lambda s: 1 / 0}, {"recognises": lambda s: "*" in s.text}]
    for name, fact in zip("abc", facts, strict=True):
        READERS.add(name, stars, **fact)
    try:
        assert [row.label for row in read_rows(Source(tmp_path / "x.stars"))] == ["cat"]
    finally:
        for name in "abc":
            READERS.remove(name)


COCO = {"images": [{"id": 1}], "annotations": [], "categories": [3]}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"PK\x03\x04\x14\0", "an Excel workbook or an archive"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "an old Excel workbook"),
        (b"\x1f\x8b\x08", "compressed; unpack it"),
        (b"SQLite format 3\0", "a database"),
        (b"\x80\x04\x95", "a pickle, which may run any code"),
        (b"<?xml version='1.0'?>\n<annotations>", "CVAT's XML"),
        (b"<annotation><folder>x", "Pascal VOC's XML"),
        (b"<!doctype html>", "XML or HTML"),
        (b"0 0.5 0.5 0.25 0.25\n", "a YOLO file with boxes"),
        (
            "path,label\n".encode("utf-16-be"),
            "neither UTF-8 text nor UTF-16 with a byte order mark",
        ),
        ("path,label\n".encode("utf-32"), "neither UTF-8 text nor UTF-16 with a byte order mark"),
        (b'{"version": "5", "shapes": [], "imagePath": "1.png"}', "LabelMe's JSON"),
        (b'{"columns": ["path", "label"], "data": []}', "pandas' JSON as split"),
        (b'{"path": {"0": "a/1.png"}, "label": {"0": "cat"}}', "pandas' JSON by columns"),
        (b'{"imageGcsUri": "a/1.png", "classificationAnnotations": []}\n', "Vertex AI's lines"),
        (b"filename,region_shape_attributes\na/1.png,x\n", "VGG Image Annotator's CSV"),
    ],
)
def test_what_is_known_and_not_read_is_named(
    photos: Path, tmp_path: Path, content: bytes, told: str
) -> None:
    file = tmp_path / ("x.jsonl" if content.startswith(b'{"image') else "x.csv")
    file.write_bytes(content)
    with pytest.raises(DataError, match=rf"^{file.name} is {told}.*; nothing was imported$"):
        import_into(photos, file, CLASSES)


def tasks(*data: dict[str, str], kind: str = "choices") -> str:
    one = {"type": kind, "from_name": "pet", "to_name": "x", "value": {kind: ["cat"]}}
    return json.dumps([{"data": d, "annotations": [{"result": [one]}]} for d in data])


def test_the_image_of_a_task_is_the_one_text_that_names_one(photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text(tasks({"note": "2", "photo": "s3://x/a/0012.png?v=1"}))
    import_into(photos, file, CLASSES)
    assert labels(photos) == {"a/0012.png": "cat"}
    for data in ({"before": "a/1.png", "after": "b/2.png"}, {"note": "1", "key": "2"}):
        file.write_text(tasks(data))
        told = r"^x.json, task 1: its image may be .*, .*; name its field"
        with pytest.raises(DataError, match=told):
            import_into(photos, file)
    file.write_text(tasks({"path": "a/1.png", "after": ""}))
    with pytest.raises(
        DataError, match=r"x.json has no text in the field 'nix' .found: path, after"
    ):
        import_into(photos, Source(file, path_column="nix"))
    file.write_text(tasks({"after": "b/2.png"}, {"before": "a/1.png"}))
    with pytest.raises(DataError, match=r"x.json, task 2 has no .* 'after' .found: before.$"):
        import_into(photos, Source(file, path_column="after"))
    file.write_text(tasks({"before": "a/1.png", "after": "b/2.png"}))
    import_into(photos, Source(file, path_column="after"))
    assert labels(photos) == {"a/0012.png": "cat", "b/2.png": "cat"}


def test_annotations_without_a_class_are_counted_or_refused(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "x.json"
    file.write_text(tasks({"image": "a/1.png"}, kind="rectanglelabels"))
    with pytest.raises(DataError, match="annotations of type rectanglelabels, but none"):
        import_into(photos, file, CLASSES)
    both = json.loads(file.read_text()) + json.loads(tasks({"image": "b/2.png"}))
    both[0]["annotations"] += [{"result": [], "was_cancelled": True}, {"result": []}]
    file.write_text(json.dumps(both))
    caplog.set_level("INFO", "skal")
    assert import_into(photos, file, CLASSES).new == 1
    assert "annotations without a class: 1 empty, 1 rectanglelabels, 1 skipped" in caplog.text


CAT = {"path": "a", "label": "cat"}


@pytest.mark.parametrize(
    ("cell", "meant"),
    [(["cat"], "cat"), ([], None), ({"choices": ["dog"]}, "dog")],
)
def test_a_list_of_one_class_is_that_class(tmp_path: Path, cell: Any, meant: str | None) -> None:
    (tmp_path / "x.jsonl").write_text(lines({"path": "a/1.png", "label": cell}))
    (row,) = read_rows(Source(tmp_path / "x.jsonl"))
    assert row.label == meant


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.jsonl", lines({"path": "a", "label": ["cat", "dog"]}), "has the classes cat, dog"),
        (
            "x.jsonl",
            lines({"path": "a", "label": [{"x": 1}]}),
            "^x.jsonl, line 1: .*expected the name",
        ),
        ("x.csv", 'path,label\na,cat\n"b,cat\nc,dog\n', "^x.csv, line 3 has a quote that is never"),
        (
            "x.csv",
            'path,label\n"b"x",cat\n',
            "line 2 has a quote that is .* not doubled within its",
        ),
        ("_classes.csv", 'path,cat,dog\na,1,0\n"b,0,1\n', "^_classes.csv, line 3 has a quote that"),
        ("x.csv", f"path,label\na,{'b' * 200_000}\n", r"^x.csv, line 2: field larger than"),
        (
            "x.jsonl",
            '{"path": "a", "label": "x", "label": "y"}\n',
            "^x.jsonl, line 1: .* 'label' twi",
        ),
        (
            "x.jsonl",
            '{"path": "a", "label": 1, "label": 2}\n',
            "^x.jsonl, line 1: .* 'label' twice",
        ),
        ("x.jsonl", lines(CAT, CAT) + '{"label": "x", "label": "y"}\n', "line 3: .* 'label' twice"),
        (
            "x.json",
            '[{"path": "a", "label": "x", "label": "y"}, {"path": "b"}]',
            "'label' twice; exp",
        ),
        (
            "x.json",
            '[{"data": {"image": "a", "image": "b"}}]',
            "^x.json: an object has the name 'image' twice",
        ),
        ("x.csv", "path,cat,dog\na,1\n", "line 2 has 2 fields; expected 3"),
        ("x.csv", "path,cat,dog\na,1,0,0\n", "line 2 has 4 fields; expected 3"),
    ],
)
def test_rows_that_are_broken_or_of_several_classes_are_told(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        list(read_rows(Source(tmp_path / name)))


def test_names_in_brackets_are_no_json(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    (tmp_path / "x.txt").write_text("[x].png 1\n")
    (tmp_path / "x.csv").write_text("[x].png,dog\n")
    numbers = {"path_column": "1", "label_column": "2"}
    for source in (Source(tmp_path / "x.txt"), Source(tmp_path / "x.csv", **numbers)):
        (row,) = read_rows(source)
        assert (row.address, row.label) == ("[x].png", "dog")
    (tmp_path / "y.txt").write_text(json.dumps([{"path": "a", "label": "cat"}]))
    assert recognised(Source(tmp_path / "y.txt")) == "json"


def test_a_separator_is_one_that_gives_the_path_a_column(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("path;label;height, width, depth\na,1.png;cat;1\n")
    (row,) = read_rows(Source(tmp_path / "x.csv"))
    assert (row.address, row.label) == ("a,1.png", "cat")


def coco(image: Any = 1, category: Any = 1, more: int = 2) -> str:
    images = [{"id": 1, "file_name": "a/1.png"}, {"id": more, "file_name": "b/2.png"}]
    annotations = [{"image_id": image, "category_id": category}]
    names = [{"id": 1, "name": "cat"}]
    return json.dumps({"images": images, "annotations": annotations, "categories": names})


def via(**said: Any) -> str:
    return json.dumps({"a": {"filename": "a/1.png", **said}})


DATUMARO = FILES["Datumaro"][2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (coco(image=7), "an annotation of image 7 and category 1; expected ids"),
        (coco(image="1"), "an annotation of image '1' and category 1; expected ids"),
        (coco(category=3), "an annotation of image 1 and category 3; expected ids"),
        (coco(more=1), "some of its images have no unique id"),
        (coco(more=[2]), "some of its images have no unique id"),  # type: ignore[arg-type]
        (coco(image=[1]), r"an annotation of image \[1\] and category 1; expected ids"),
        (coco().replace('"name": "cat"', '"title": "cat"'), "x.json: the category 1 has no name"),
        (DATUMARO.replace('"label_id": 1', '"label_id": [1]'), r"item 'b/2' has the label \[1\]"),
        (DATUMARO.replace('"name"', '"title"'), "x.json: some of its labels have no name"),
        (tasks({"image": "a"}).replace('"choices", "from', '["choices"], "from'), "got the result"),
        (via(regions=3, file_attributes=4), "x.json, 'a/1.png' has the attributes 4; expected an"),
        (DATUMARO.replace('"label_id": 1', '"label_id": -1'), "item 'b/2' has the label -1"),
        (DATUMARO.replace('"label_id": 1', '"label_id": 2'), "item 'b/2' has the label 2"),
        (
            via(regions=[{}], file_attributes={}),
            "x.json has 1 region, but no file attributes",
        ),
    ],
)
def test_numbers_that_mean_nothing_are_told(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=message):
        list(read_rows(Source(tmp_path / "x.json")))


@pytest.mark.parametrize(
    ("text", "form", "options", "message"),
    [
        (json.dumps(COCO), None, {}, "x.json cannot be read as coco: AttributeError"),
        ('{"a": 1}', "datumaro", {}, "x.json cannot be read as datumaro: KeyError"),
        ("[]", "label-studio", {}, "cannot be read as label-studio: it has no"),
        ("path,label\na,cat\n", "roboflow", {}, "cells other than 0 and 1"),
        (json.dumps(COCO), None, {"choice": "x"}, "as coco, which does not take --choice"),
        (FILES["Label Studio"][2], None, {"choice": "x"}, "no question 'x' .found: choice."),
        ('[{"path": "http://[x/a.png", "label": "cat"}]', None, {}, "matches no image"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(
    photos: Path, tmp_path: Path, text: str, form: str, options: dict[str, str], message: str
) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=message):
        import_into(photos, Source(tmp_path / "x.json", **options), CLASSES, form=form)


def test_a_table_of_zeros_and_ones_is_no_one_hot_if_columns_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("path,good,sharp\na/1.png,1,0\n")
    (row,) = read_rows(Source(tmp_path / "x.csv", label_column="good"))
    assert row.label == "1"
