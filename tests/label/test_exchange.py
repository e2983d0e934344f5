from __future__ import annotations

import csv
import gc
import io
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from label_server import write_images
from PIL import Image
from torchvision.datasets import ImageFolder

from skal.cli import main
from skal.core.errors import DataError, RunExistsError, SkalError, UsageError
from skal.label import FORMATS
from skal.label.exporting import export_csv, export_folder, export_query
from skal.label.formats import Source
from skal.label.importing import Imported, import_into
from skal.label.learning import Guesses
from skal.label.project import LabelProject
from skal.label.store import Action
from skal.label.studio.tasks import export_label_studio, labeling_config
from skal.prediction.writers import CSV_HEAD

CLASSES = ["daisy", "ox-eye daisy", 'a "rose" & more']


def make(root: Path) -> LabelProject:
    """Twenty images in four places, no two alike, some of them in a class folder."""
    places = ["{}.png", "unlabeled/{}.png", "daisy/{}.png", "2024/trip/ä {}#1.png"]
    images = np.arange(20 * 16, dtype=np.uint16).reshape(20, 4, 4) % 251
    names = [places[n % 4].format(n) for n in range(20)]
    if not root.exists():
        write_images(root, images.astype(np.uint8), names)
    # with this seed an image that nothing else is said of is kept for the test
    return LabelProject.open(root, CLASSES, {"seed": 1})


def import_labels(project: LabelProject, source: Path, annotator: str = "me") -> Imported:
    done = import_into(project.root, source, annotator=annotator)
    project.refresh()
    return done


def say(project: LabelProject, path: str, label: int | None, **more: Any) -> None:
    image = {place: n for n, place in project.paths.items()}[path]
    facts = {"annotator": "me", "action": "label", "round": 0, "source": "strategy", **more}
    project.record([Action(image=image, label=label, **facts)])


@pytest.fixture
def project(tmp_path: Path) -> LabelProject:
    """One of each kind of verdict."""
    project = make(tmp_path / "flowers")
    say(project, "0.png", 1, seconds=1.5)
    say(project, "4.png", 2, annotator="anna")
    say(project, "4.png", 0, annotator="ben")
    say(project, "8.png", None, action="unsure")
    say(project, "12.png", None, action="bad")
    say(project, "16.png", None, action="skip")
    say(project, "unlabeled/1.png", 2)
    say(project, "2024/trip/ä 3#1.png", 1)
    say(project, "daisy/2.png", 2)
    test = project.paths[project.reserve[0]]
    say(project, test, 0, source="test")
    return project


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def fresh(project: LabelProject, tmp_path: Path) -> LabelProject:
    """Return a project of the same images without a label."""
    copy = tmp_path / "copy" / project.root.name
    for path in project.paths.values():
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        (copy / path).write_bytes((project.root / path).read_bytes())
    return LabelProject.open(copy, CLASSES, {"seed": 1})


def holding(project: LabelProject) -> dict[str, str]:
    return {project.paths[n]: project.classes[label] for n, label in project.labels.items()}


def test_a_table_has_a_row_for_each_verdict(project: LabelProject) -> None:
    rows = rows_of(export_csv(project))
    found = {(row["path"], row["annotator"]): (row["action"], row["label"]) for row in rows}
    assert found["0.png", "me"] == ("label", "ox-eye daisy")
    assert found["4.png", "anna"] == ("label", 'a "rose" & more')
    assert found["4.png", "ben"] == ("label", "daisy")
    assert found["8.png", "me"] == ("unsure", "")
    assert found["12.png", "me"] == ("bad", "")
    assert found["daisy/6.png", ""] == ("label", "daisy")
    assert ("16.png", "me") not in found
    assert [row["path"] for row in rows] == sorted(row["path"] for row in rows)
    assert next(row for row in rows if row["path"] == "0.png")["seconds"] == "1.5"


def test_a_table_brings_back_what_it_was_made_of(project: LabelProject, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(export_csv(project))
    other = fresh(project, tmp_path)
    done = import_labels(other, tmp_path / "labels.csv")
    assert (done.changed, done.same) == (1, 4)  # daisy/2.png, and the class folder's others

    def without_time(text: str) -> list[dict[str, str]]:
        rows = rows_of(text)
        for row in rows:
            row.pop("time")
            row["source"] = row["source"] if row["source"] in ("test", "folder") else ""
        return rows

    assert without_time(export_csv(other)) == without_time(export_csv(project))
    assert other.test_labels == project.test_labels
    assert import_labels(other, tmp_path / "labels.csv").new == 0
    assert len(other.store.actions()) == done.new + done.changed


@pytest.mark.parametrize(
    "text",
    [
        "path,label\n0.png,daisy\n",
        "\ufeffpath;label\r\n0.png;daisy\r\n",
        'label\tnotes\tpath\ndaisy\t"x\ny"\t./0.png\n',
        "path,label\n0.png,daisy\n4.png,\n",
        "Path , LABEL\n0.png,daisy\n",
        "path,label\n0.png,daisy\n0.png,daisy\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_tables_of_other_programs_are_read(tmp_path: Path, text: str, encoding: str) -> None:
    project = make(tmp_path / "flowers")
    (tmp_path / "x.csv").write_bytes(text.encode(encoding))
    done = import_labels(project, tmp_path / "x.csv", "anna")
    assert (done.new, done.changed, done.same) == (1, 0, 0)
    (action,) = project.store.actions()
    assert (action.annotator, action.source, action.label) == ("anna", "import", 0)


def test_absolute_paths_below_the_folder_are_known(tmp_path: Path) -> None:
    project = make(tmp_path / "flowers")
    (tmp_path / "x.csv").write_text(f"path,label\n{tmp_path}/flowers/0.png,daisy\n")
    assert import_labels(project, tmp_path / "x.csv").new == 1


def test_what_a_table_changes_is_a_new_action(project: LabelProject, tmp_path: Path) -> None:
    before = project.store.actions()
    (tmp_path / "x.csv").write_text("path,label\n0.png,daisy\nunlabeled/1.png,daisy\n")
    assert import_labels(project, tmp_path / "x.csv") == Imported(0, 2, 0)
    assert project.store.actions()[: len(before)] == before
    assert holding(project)["0.png"] == "daisy"


def corrections(project: LabelProject, path: str, form: str, folder: Path) -> Path:
    """Write that an image is of the second class, as an expert's table, tasks or folders say it."""
    if form == "folder":
        place = folder / "expert" / CLASSES[1] / Path(path).name
        place.parent.mkdir(parents=True)
        place.write_bytes((project.root / path).read_bytes())
        return folder / "expert"
    out = folder / ("x.csv" if form == "csv" else "x.json")
    tasks = [task({"path": path}, annotation(CLASSES[1]))]
    out.write_text(f"path,label\n{path},{CLASSES[1]}\n" if form == "csv" else json.dumps(tasks))
    return out


@pytest.mark.parametrize("form", ["csv", "folder", "label-studio"])
def test_a_test_image_that_is_corrected_stays_one(tmp_path: Path, form: str) -> None:
    project = make(tmp_path / "flowers")
    image = project.reserve[0]
    say(project, project.paths[image], 0, source="test")
    source = corrections(project, project.paths[image], form, tmp_path)
    assert import_labels(project, source, "me").changed == 1
    assert project.test_labels == {image: 1}
    assert image not in project.training_labels
    # also where it goes on from here
    row = next(r for r in rows_of(export_csv(project)) if r["path"] == project.paths[image])
    assert row["source"] == "test"
    assert LabelProject.open(project.root).test_labels == {image: 1}


def test_nothing_of_a_file_that_is_refused_is_kept_no_class_either(tmp_path: Path) -> None:
    project = make(tmp_path / "flowers")
    project.close()
    (tmp_path / "x.csv").write_text("path,label\n0.png,Gans\nnone.png,Gans\n")
    with pytest.raises(DataError, match="matches no image of"):
        import_into(project.root, tmp_path / "x.csv", ["Gans"])
    assert LabelProject.open(project.root).classes == CLASSES
    other = tmp_path / "other"
    write_images(other, np.zeros((2, 4, 4), np.uint8), ["0.png", "1.png"])
    with pytest.raises(DataError, match="matches no image of"):
        import_into(other, tmp_path / "x.csv", ["Gans", "Ente"])
    assert not (other / ".skal").exists()
    (tmp_path / "x.csv").write_text("path,label\n0.png,Gans\n1.png,\n")
    done = import_into(other, tmp_path / "x.csv", ["Gans", "Ente"])
    assert str(done) == "1 new, 0 changed, 0 unchanged, 1 row without a label"
    assert LabelProject.open(other).labels == {0: 0}
    (tmp_path / "x.csv").write_text("path,label\n1.png,Maus\n")
    import_into(other, tmp_path / "x.csv", ["Maus"])
    assert LabelProject.open(other).classes == ["Gans", "Ente", "Maus"]


def test_what_people_added_to_what_a_network_said_is_named(tmp_path: Path) -> None:
    project = make(tmp_path / "flowers")
    (tmp_path / "x.csv").write_text("class,path,probability,label\nrose,4.png,0.9,daisy\n")
    with pytest.raises(DataError, match=r"a column 'label'; .*--label-column label to import that"):
        import_labels(project, tmp_path / "x.csv")
    import_into(project.root, Source(tmp_path / "x.csv", label_column="label"))
    (action,) = LabelProject.open(project.root).store.actions()
    assert (project.paths[action.image], project.classes[action.label or 0]) == ("4.png", "daisy")


def test_what_a_network_said_is_taken_for_labels_only_if_that_is_asked_for(tmp_path: Path) -> None:
    project = make(tmp_path / "flowers")
    columns = {"path": "0.png", "class": "daisy", "probability": "0.9", "p_daisy": "0.9"}
    table, lines = tmp_path / "said.csv", tmp_path / "said.jsonl"
    table.write_text(f"{','.join(columns)}\n{','.join(columns.values())}\n")
    assert table.read_bytes().startswith(CSV_HEAD)
    lines.write_text(json.dumps(columns))
    for said in (table, lines):
        with pytest.raises(
            DataError, match=r"a network's predictions .* use --label-column class to"
        ):
            import_labels(project, said)
    assert import_into(project.root, Source(table, label_column="class")).new == 1


def test_long_names_of_other_programs_are_shortened_and_kept_apart(tmp_path: Path) -> None:
    project = make(tmp_path / "flowers")
    users = [f"{'x' * 80}{n}@example.org" for n in range(2)]
    tasks = [task({"path": "0.png"}, *(annotation("daisy", completed_by=user) for user in users))]
    (tmp_path / "x.json").write_text(json.dumps(tasks))
    assert import_labels(project, tmp_path / "x.json").new == 2
    assert len({action.annotator for action in project.store.actions()}) == 2


def test_labels_marked_as_tests_are_so_only_where_they_were_drawn(tmp_path: Path) -> None:
    project = make(tmp_path / "flowers")
    drawn = project.paths[project.reserve[0]]
    other = next(p for n, p in project.paths.items() if n in project.pool - set(project.reserve))
    (tmp_path / "x.csv").write_text(f"path,label,source\n{drawn},daisy,test\n{other},daisy,test\n")
    import_labels(project, tmp_path / "x.csv")
    assert project.test_labels == {project.reserve[0]: 0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\nnone.png,daisy\n", "x.csv, line 2: 'none.png' matches no image of"),
        ("path,label\na.png,daisy\nb.png,daisy\n", "line 2: 'a.png' .*, and 1 more"),
        ("path,label\n../weeds/0.png,daisy\n", "matches no image of"),
        ("path,label\n0.png,daysi\n", "^x.csv, line 2: unknown class 'daysi'; did you mean daisy"),
        (
            "path,label\n0.png,daysi\n4.png,tulip\n5.png,tulip\n",
            "line 2: unknown class 'daysi'; .*; 2 are unknown: daysi,tulip",
        ),
        ("path,label\n0.png,moss\n0.png,tulip\n", "line 2 has 'moss' and line 3 has 'tulip'"),
        (
            "path,label\n" + "".join(f"{n}.png,kind {n}\n" for n in range(90)),
            "line 2: unknown class 'kind 0'; .*; more than 50 are unknown",
        ),
        ("path,kind\n0.png,daisy\n", "x.csv has no column 'label' .found: path, kind"),
        ("Pfad,Art\n0.png,daisy\n", "x.csv has no column 'path' .found: Pfad, Art."),
        ("Path,path,label\n0.png,0.png,daisy\n", "it has two columns 'Path' and 'path'"),
        ('[{"Path": "0.png", "Art": "daisy"}]', "no column 'label' .found: Path, Art."),
        ("", "x.csv has no column 'path' .found: nothing"),
        ("path,label,action\n0.png,daisy,bad\n", "the action 'bad' with the label 'daisy'"),
        ("path,label,action\n0.png,,delete\n", "the action 'delete'"),
        ("path,label\n\0,daisy\n", "x.csv, line 2"),
        (
            "path,label\n0.png,daisy\n4.png,daisy\n0.png,ox-eye daisy\n",
            "line 2 has 'daisy' and line 4 has 'ox-eye daisy' for '0.png', both from 'me'",
        ),
        ("path,label\n0.png,daisy,rose\n", "x.csv, line 2 has more fields than the header"),
        ("path,label\n0.png,Gänse\n", "x.csv is not UTF-8 text .line 2.*'CSV UTF-8'"),
        ("\x89PNG\r\n", "x.csv is not UTF-8 text .line 1"),
    ],
)
def test_tables_that_do_not_fit_change_nothing(tmp_path: Path, text: str, message: str) -> None:
    project = make(tmp_path / "flowers")
    (tmp_path / "x.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=message) as told:
        import_labels(project, tmp_path / "x.csv")
    assert str(told.value).startswith("x.csv")
    assert project.store.actions() == []


def test_who_has_no_class_yet_is_told_those_of_the_file(tmp_path: Path) -> None:
    write_images(tmp_path / "loose", np.zeros((3, 4, 4), np.uint8))
    (tmp_path / "x.csv").write_text("path,label\n00000.png,ox-eye daisy\n00001.png,moss\n")
    told = "no classes yet, and x.csv has 2; .* with --classes 'moss,ox-eye daisy'"
    with pytest.raises(UsageError, match=told):
        import_into(tmp_path / "loose", tmp_path / "x.csv")
    (tmp_path / "y.csv").write_text('path,label\n00000.png,moss\n00001.png,"a, b"\n')
    with pytest.raises(UsageError, match=r"name them with --class 'a, b' --class moss$"):
        import_into(tmp_path / "loose", tmp_path / "y.csv")
    (tmp_path / "y.csv").write_text("path,label\n00000.png,moss\n")
    told = "y.csv has only 'moss'; name at least two with --classes moss,"
    with pytest.raises(UsageError, match=told):
        import_into(tmp_path / "loose", tmp_path / "y.csv")
    with pytest.raises(DataError, match=r"cannot read .*none\.csv"):
        import_into(tmp_path / "loose", tmp_path / "none.csv")
    assert not (tmp_path / "loose/.skal").exists()
    done = import_into(tmp_path / "loose", tmp_path / "x.csv", ["moss", "ox-eye daisy"])
    assert (done.new, done.changed) == (2, 0)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*none\.csv"):
        import_labels(make(tmp_path / "flowers"), tmp_path / "none.csv")


def found_in(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes().hex()
        for p in folder.rglob("*")
        if p.is_file()
    }


def test_a_folder_has_the_labelled_images_by_class(project: LabelProject, tmp_path: Path) -> None:
    n = export_folder(project, tmp_path / "out")
    found = found_in(tmp_path / "out")
    assert n == len(found) == len(project.labels)
    assert set(found) >= {
        "ox-eye daisy/0.png",
        'a "rose" & more/1.png',
        'a "rose" & more/2.png',
        "ox-eye daisy/ä 3#1.png",
        "daisy/6.png",
    }
    assert "12.png" not in {Path(path).name for path in found}
    for path, name in holding(project).items():
        assert found[f"{name}/{Path(path).name}"] == (project.root / path).read_bytes().hex()


@pytest.mark.parametrize("copy", [False, True])
def test_files_are_linked_unless_copies_are_wanted(
    project: LabelProject, tmp_path: Path, copy: bool
) -> None:
    export_folder(project, tmp_path / "out", copy=copy)
    same = (tmp_path / "out/ox-eye daisy/0.png").samefile(project.root / "0.png")
    assert same is not copy


def test_files_are_copied_where_they_cannot_be_linked(
    project: LabelProject, tmp_path: Path
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    n = export_folder(project, tmp_path / "out", link=refuse)
    assert n == len(found_in(tmp_path / "out"))


def test_an_interrupted_export_leaves_nothing(project: LabelProject, tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = sorted(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        export_folder(project, tmp_path / "out", link=interrupt)
    assert sorted(tmp_path.iterdir()) == before


def test_a_link_to_an_image_is_followed(tmp_path: Path) -> None:
    project = make(tmp_path / "flowers")
    (tmp_path / "flowers/link.png").symlink_to(tmp_path / "flowers/0.png")
    project = make(tmp_path / "flowers")
    say(project, "link.png", 0)
    export_folder(project, tmp_path / "out")
    assert not (tmp_path / "out/daisy/link.png").is_symlink()
    assert (tmp_path / "out/daisy/link.png").read_bytes()


def test_files_of_the_same_name_are_both_kept(tmp_path: Path) -> None:
    root = tmp_path / "x"
    write_images(root, np.zeros((3, 4, 4), np.uint8), ["a.png", "unlabeled/a.png", "daisy/A.png"])
    project = LabelProject.open(root, CLASSES)
    say(project, "a.png", 0)
    say(project, "unlabeled/a.png", 0)
    assert export_folder(project, tmp_path / "out") == 3
    assert len({name.casefold() for name in found_in(tmp_path / "out")}) == 3


def test_no_cell_is_a_formula_and_all_come_back_as_they_were(tmp_path: Path) -> None:
    names, classes = ["=1+1.png", "+a.png", "-b.png", "@c.png", "'=d.png"], ["=SUM(A1)", "-no"]
    write_images(tmp_path / "x", np.arange(80, dtype=np.uint8).reshape(5, 4, 4), names)
    project = LabelProject.open(tmp_path / "x", classes)
    for number, name in enumerate(names):
        say(project, name, number % 2, annotator="@me")
    text = export_csv(project)
    assert not any(cell[:1] in "=+-@" for row in rows_of(text) for cell in row.values() if cell)
    (tmp_path / "x.csv").write_text(text)
    assert import_labels(project, tmp_path / "x.csv") == Imported(0, 0, 5)


def test_classes_that_are_read_as_parts_of_a_split_are_refused_as_folders(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_images(tmp_path / "x", np.arange(32, dtype=np.uint8).reshape(2, 4, 4), ["a.png", "b.png"])
    project = LabelProject.open(tmp_path / "x", ["train", "test tube", "cat"])
    say(project, "a.png", 1)
    assert export_folder(project, tmp_path / "out") == 1
    assert "Hugging Face will read the folder of the class 'test tube' as a split" in caplog.text
    say(project, "b.png", 0)
    with pytest.raises(UsageError, match="a folder for the class 'train' would be read as a split"):
        export_folder(project, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_images_without_a_class_are_counted_in_a_folder_of_classes(tmp_path: Path) -> None:
    names = ["a.png", "b.png"]
    write_images(tmp_path / "x", np.arange(32, dtype=np.uint8).reshape(2, 4, 4), names)
    for name, place in zip(names, ("cat", "unlabeled"), strict=True):
        (tmp_path / "y" / place).mkdir(parents=True)
        (tmp_path / "y" / place / name).write_bytes((tmp_path / "x" / name).read_bytes())
    done = import_into(tmp_path / "x", tmp_path / "y", ["cat", "dog"])
    assert (done.new, done.empty) == (1, 1)


@pytest.fixture
def nested(tmp_path: Path) -> LabelProject:
    """Images in folders within folders, two of them of one name, labelled by turns."""
    names = ["a/x.png", "b/x.png", "b/X.png", "b/c/x.bmp", "IMG_test_1.png", "a/b_x.png"]
    images = np.arange(6 * 16, dtype=np.uint8).reshape(6, 4, 4)
    write_images(tmp_path / "y", images, names)
    project = LabelProject.open(tmp_path / "y", CLASSES)
    for number, name in enumerate(names):
        say(project, name, number % 2)
    return project


def by_torchvision(folder: Path) -> list[tuple[Path, str]]:
    found = ImageFolder(folder)
    return [(Path(path), found.classes[label]) for path, label in found.samples]


def by_hugging_face(folder: Path) -> list[tuple[Path, str]]:
    datasets = pytest.importorskip("datasets")
    cache = str(folder.with_name("cache"))
    rows = datasets.load_dataset("imagefolder", data_dir=str(folder), cache_dir=cache)["train"]
    labels, rows = rows.features["label"], rows.cast_column("image", datasets.Image(decode=False))
    return [(Path(row["image"]["path"]), labels.int2str(row["label"])) for row in rows]


def by_fastai(folder: Path) -> list[tuple[Path, str]]:
    vision = pytest.importorskip("fastai.vision.all")
    return [(Path(path), vision.parent_label(path)) for path in vision.get_image_files(folder)]


def by_datumaro(folder: Path) -> list[tuple[Path, str]]:
    components = pytest.importorskip("datumaro.components.dataset")
    found = components.Dataset.import_from(str(folder), "imagenet")
    names = [label.name for label in next(iter(found.categories().values()))]
    return [(Path(item.media.path), names[one.label]) for item in found for one in item.annotations]


@pytest.mark.parametrize("read", [by_torchvision, by_hugging_face, by_fastai, by_datumaro])
def test_exported_folders_are_read_alike(
    nested: LabelProject, read: Callable[[Path], list[tuple[Path, str]]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    export_folder(nested, out)
    found = read(out)
    assert len({path.stem.casefold() for path, _ in found}) == len(found) == len(nested.paths)
    assert all(path.parent.parent == out for path, _ in found)
    assert not any("_test_" in path.name for path, _ in found)
    content = {n: (nested.root / path).read_bytes() for n, path in nested.paths.items()}
    expected = {content[n]: nested.classes[k] for n, k in nested.labels.items()}
    assert {path.read_bytes(): label for path, label in found} == expected


def by_hugging_face(form: str, **where: Any) -> list[dict[str, Any]]:
    """Return the rows that the library reads; images are not decoded."""
    datasets = pytest.importorskip("datasets")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves tables open
        rows = datasets.load_dataset(form, **where)["train"]
        if "image" in rows.column_names:
            rows = rows.cast_column("image", datasets.Image(decode=False))
        found = list(rows)
        del rows
        gc.collect()  # or the warning would come in another test
    return found


def test_hugging_face_reads_the_table_beside_the_images(nested: LabelProject) -> None:
    (nested.root / "metadata.csv").write_text(FORMATS.get("huggingface")(nested))
    cache = str(nested.root.with_name("cache"))
    # a file called so would be a split of its own
    files = {"train": str(nested.root / "**")}
    rows = by_hugging_face("imagefolder", data_files=files, cache_dir=cache)
    found = {Path(row["image"]["path"]): row["label"] for row in rows}
    labels = nested.labels.items()
    assert found == {nested.root / nested.paths[n]: nested.classes[k] for n, k in labels}


@pytest.mark.parametrize("name", ["csv", "json-lines", "huggingface"])
def test_hugging_face_reads_tables_and_lines(
    name: str, nested: LabelProject, tmp_path: Path
) -> None:
    form = "json" if name == "json-lines" else "csv"
    (tmp_path / "labels").write_text(FORMATS.get(name)(nested))
    files, cache = str(tmp_path / "labels"), str(tmp_path / "cache")
    rows = by_hugging_face(form, data_files=files, cache_dir=cache)
    found = {row.get("path", row.get("file_name")): row["label"] for row in rows}
    assert found == {nested.paths[n]: nested.classes[k] for n, k in nested.labels.items()}


@pytest.mark.parametrize(("year", "stands"), [("2020", "daisy"), ("2100", "ox-eye daisy")])
def test_of_two_labels_of_one_person_the_later_counts(
    year: str, stands: str, project: LabelProject, tmp_path: Path
) -> None:
    tasks = json.loads(export_label_studio(project))
    for task in tasks:
        for annotation in task["annotations"]:
            annotation["created_at"] = annotation["updated_at"] = f"{year}-01-01T00:00:00Z"
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    say(project, "0.png", 0)  # which was an ox-eye daisy when the tasks were written
    done = import_labels(project, tmp_path / "tasks.json")
    image = {path: n for n, path in project.paths.items()}["0.png"]
    assert project.classes[project.labels[image]] == stands
    assert (done.older, done.changed) == ((1, 0) if year == "2020" else (0, 1))


def test_hugging_face_gets_names_as_they_are(tmp_path: Path) -> None:
    write_images(tmp_path / "x", np.zeros((2, 4, 4), np.uint8), ["-b.png", "a.png"])
    project = LabelProject.open(tmp_path / "x", ["-1", "+1"])
    say(project, "-b.png", 0)
    say(project, "a.png", 1)
    text = FORMATS.get("huggingface")(project)
    assert text.splitlines() == ["file_name,label", "-b.png,-1", "a.png,+1"]


@pytest.mark.parametrize("name", ["json-lines", "huggingface", "ground-truth"])
def test_labels_come_back_by_each_format_as_they_went(
    name: str, project: LabelProject, tmp_path: Path
) -> None:
    text = FORMATS.get(name)(project)
    suffix = {"json-lines": "jsonl", "huggingface": "csv", "ground-truth": "manifest"}[name]
    (tmp_path / f"labels.{suffix}").write_text(text)
    other = fresh(project, tmp_path)
    done = import_labels(other, tmp_path / f"labels.{suffix}")
    labels = {project.paths[n]: project.classes[k] for n, k in project.labels.items()}
    assert len(labels) > 5 and done.changed + done.new + done.same == len(labels)
    assert {other.paths[n]: other.classes[k] for n, k in other.labels.items()} == labels


def test_a_manifest_of_ground_truth_has_the_fields_of_its_documents(project: LabelProject) -> None:
    for line in FORMATS.get("ground-truth")(project).splitlines():
        entry = json.loads(line)
        assert entry.keys() == {"source-ref", "label", "label-metadata"}
        about = entry["label-metadata"]
        assert CLASSES[entry["label"]] == about["class-name"]
        assert about["type"] == "groundtruth/image-classification"
        assert about["human-annotated"] == "yes" and about["confidence"] == 1


def test_an_export_overwrites_nothing(project: LabelProject, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(RunExistsError, match="exists; name another folder"):
        export_folder(project, tmp_path / "out")
    for inside in ("out", "daisy/out"):
        with pytest.raises(UsageError, match="is inside"):
            export_folder(project, project.root / inside)


def test_an_export_that_fails_leaves_nothing(project: LabelProject, tmp_path: Path) -> None:
    (project.root / project.paths[max(project.labels)]).unlink()
    with pytest.raises(DataError, match="No such file"):
        export_folder(project, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir() if "out" in p.name) == []


@pytest.mark.parametrize("copy", [False, True])
def test_a_folder_brings_back_labels_and_what_was_moved_in_it(
    project: LabelProject, tmp_path: Path, copy: bool
) -> None:
    export_folder(project, tmp_path / "out", copy=copy)
    other = fresh(project, tmp_path) if copy else project
    n = len(project.labels)
    (tmp_path / "out/ox-eye daisy/0.png").rename(tmp_path / "out/daisy/renamed.png")
    done = import_labels(other, tmp_path / "out")
    assert done.new + done.changed + done.same == n
    assert holding(other) == {**holding(project), "0.png": "daisy"}


def test_a_folder_with_a_foreign_image_is_refused(project: LabelProject, tmp_path: Path) -> None:
    export_folder(project, tmp_path / "out")
    write_images(tmp_path / "out/daisy", np.full((1, 5, 5), 77, np.uint8), ["foreign.png"])
    before = project.store.actions()
    with pytest.raises(DataError, match=r"foreign\.png' is not an image of"):
        import_labels(project, tmp_path / "out")
    (tmp_path / "out/daisy/foreign.png").unlink()
    (tmp_path / "out/ox-eye daisy").rename(tmp_path / "out/tulip")
    with pytest.raises(DataError, match="unknown class 'tulip'"):
        import_labels(project, tmp_path / "out")
    assert project.store.actions() == before


def guess_all(project: LabelProject) -> None:
    images = np.array(sorted(project.paths))
    proba = np.tile(np.array([0.2, 0.7, 0.1], np.float32), (len(images), 1))
    project.guesses = Guesses(images, proba, proba, 9, "small-cnn")


def test_tasks_are_as_label_studio_wants_them(project: LabelProject) -> None:
    guess_all(project)
    tasks = {t["data"]["path"]: t for t in json.loads(export_label_studio(project))}
    assert len(tasks) == 19  # all but the bad one
    task = tasks["2024/trip/ä 3#1.png"]
    assert task["data"]["image"] == ("/data/local-files/?d=flowers/2024/trip/%C3%A4%203%231.png")
    (annotation,) = task["annotations"]
    (result,) = annotation["result"]
    assert annotation["was_cancelled"] is False
    assert result.pop("id")
    assert result == {
        "from_name": "choice",
        "to_name": "image",
        "type": "choices",
        "value": {"choices": ["ox-eye daisy"]},
    }
    (prediction,) = task["predictions"]
    assert prediction["model_version"] == "skal"
    assert prediction["score"] == prediction["result"][0]["score"] == 0.7
    assert prediction["result"][0]["value"] == {"choices": ["ox-eye daisy"]}
    for path in ("8.png", "16.png"):  # unsure, skipped
        assert tasks[path]["annotations"] == []
    assert len(tasks["4.png"]["annotations"]) == 2
    assert tasks["0.png"]["annotations"][0]["lead_time"] == 1.5
    assert tasks["daisy/6.png"]["annotations"][0]["result"][0]["value"]["choices"] == ["daisy"]


def test_without_a_network_there_are_no_predictions(project: LabelProject) -> None:
    assert all(task["predictions"] == [] for task in json.loads(export_label_studio(project)))


def test_the_labelling_interface_is_xml_with_all_classes() -> None:
    from xml.etree import ElementTree

    view = ElementTree.fromstring(labeling_config(CLASSES))
    assert [choice.get("value") for choice in view.iter("Choice")] == CLASSES
    choices = view.find("Choices")
    assert choices is not None
    assert (choices.get("name"), choices.get("toName")) == ("choice", "image")


def test_tasks_bring_back_the_labels(project: LabelProject, tmp_path: Path) -> None:
    (tmp_path / "tasks.json").write_text(export_label_studio(project))
    other = fresh(project, tmp_path)
    import_labels(other, tmp_path / "tasks.json")
    assert holding(other) == holding(project)
    assert other.test_labels == project.test_labels
    for image, action in project.ledger.labels.items():
        labels = {who: a.label for who, a in project.ledger.verdicts(image).items()}
        path = project.paths[image]
        (again,) = (n for n, place in other.paths.items() if place == path)
        assert {w: a.label for w, a in other.ledger.verdicts(again).items()} == labels
        assert action.label == other.ledger.labels[again].label
    done = import_labels(project, tmp_path / "tasks.json")
    assert (done.new, done.changed) == (0, 0)


def task(data: dict[str, Any], *annotations: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": 7, "data": data, "annotations": list(annotations), **more}


def annotation(*names: str, **more: Any) -> dict[str, Any]:
    result = {"type": "choices", "value": {"choices": list(names)}, "from_name": "x"}
    return {"result": [result], "was_cancelled": False, **more}


@pytest.mark.parametrize(
    "data",
    [
        {"image": "/data/upload/3/0a1b2c3d-0.png"},
        {"image": "/data/local-files/?d=flowers/0.png"},
        {"img": "https://example.org/pictures/0.png?x=1"},
        {"image": "s3://bucket/0.png", "path": "0.png"},
        {"image": "s3://bucket/0.png", "path": "0.png", "annotators": {"other": "anna"}},
    ],
)
def test_images_are_known_by_what_label_studio_calls_them(
    tmp_path: Path, data: dict[str, str]
) -> None:
    project = make(tmp_path / "flowers")
    text = json.dumps([task(data, annotation("daisy", completed_by=4, lead_time=2.25))])
    (tmp_path / "x.json").write_text(text)
    assert import_labels(project, tmp_path / "x.json") == Imported(1, 0, 0)
    (action,) = project.store.actions()
    assert (project.paths[action.image], action.label) == ("0.png", 0)
    assert (action.annotator, action.seconds) == ("label-studio-4", 2.25)


def test_skipped_and_empty_annotations_are_left_out(tmp_path: Path) -> None:
    project = make(tmp_path / "flowers")
    tasks = [
        task({"path": "0.png"}, annotation("daisy", was_cancelled=True)),
        task({"path": "4.png"}, {"result": [], "was_cancelled": False}),
        task({"path": "no image of ours"}, predictions=[annotation("daisy")]),
        task({"path": "8.png"}, annotation("daisy", completed_by={"id": 2, "email": "a@b.c"})),
    ]
    (tmp_path / "x.json").write_text(json.dumps(tasks))
    assert import_labels(project, tmp_path / "x.json") == Imported(1, 0, 0)
    (action,) = project.store.actions()
    assert action.annotator == "label-studio-a@b.c"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "x.json is not JSON"),
        ("{}", "expected Label Studio tasks"),
        ("[1]", "expected Label Studio tasks"),
        ([task({"path": "0.png"}, annotation("daisy", "ox-eye daisy"))], "task 7 has the choices"),
        ([task({"path": "0.png"}, annotation("daysi"))], "task 7: unknown class 'daysi'"),
        ([task({"image": "x/none.png"}, annotation("daisy"))], "'x/none.png' matches no image"),
        ([task({"path": "0.png"}, 3)], "got an annotation 3"),  # type: ignore[arg-type]
        (
            [task({"path": "0.png"}, annotation("daisy", completed_by="a\nb"))],
            "expected a printable name",
        ),
        ([{"data": {"path": "0.png"}, "annotations": 5}], "task 1: annotations: got 5; expected a"),
        ([task({"path": "0.png"}, {"result": 5})], "task 7: result: got 5; expected a list"),
        (
            [task({"path": "0.png"}, {"result": [{"type": "choices", "value": {"choices": "d"}}]})],
            "task 7: choices: got 'd'; expected a list",
        ),
        ([task({"path": "0.png"}, annotation(5))], "got the choice 5; expected text"),  # type: ignore[arg-type]
    ],
)
def test_tasks_that_do_not_fit_change_nothing(tmp_path: Path, content: Any, message: str) -> None:
    project = make(tmp_path / "flowers")
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(SkalError, match=message):
        import_labels(project, tmp_path / "x.json")
    assert project.store.actions() == []


def test_a_query_is_a_list_or_a_table_to_fill_in(project: LabelProject) -> None:
    paths = {path: n for n, path in project.paths.items()}
    picks = [(paths["16.png"], "strategy"), (paths["2024/trip/ä 7#1.png"], "test")]
    assert export_query(project, picks) == "16.png\n2024/trip/ä 7#1.png\n"
    assert rows_of(export_query(project, picks, as_table=True)) == [
        {"path": "16.png", "label": "", "source": "strategy"},
        {"path": "2024/trip/ä 7#1.png", "label": "", "source": "test"},
    ]


def test_labels_of_pages_begin_a_project_whose_images_are_pages(tmp_path: Path) -> None:
    root, table = tmp_path / "cells", tmp_path / "labels.csv"
    root.mkdir()
    sheets = [Image.fromarray(np.full((8, 8), 40 * n, np.uint8)) for n in range(3)]
    sheets[0].save(root / "stack.tif", save_all=True, append_images=sheets[1:])
    table.write_text("path,label\nstack.tif#2,round\nstack.tif#3,flat\n")
    words = ["import", str(root), str(table), "--classes", "round,flat"]
    refused = CliRunner().invoke(main, words)
    hint = "; nothing was imported; use --pages all to make each page of a file an image"
    assert refused.exit_code == 1 and refused.stderr.endswith(f"{hint}\n")
    done = CliRunner().invoke(main, [*words, "--pages", "all"])
    assert done.stdout == f"{table}: 2 new, 0 changed, 0 unchanged\n"
    again = CliRunner().invoke(main, words)  # the project keeps what an image is
    assert again.stdout == f"{table}: 0 new, 0 changed, 2 unchanged\n"


def test_pages_are_not_proposed_where_they_would_set_labels_aside(tmp_path: Path) -> None:
    project = make(tmp_path / "flowers")
    sheets = [Image.fromarray(np.full((8, 8), 40 * n, np.uint8)) for n in range(2)]
    sheets[0].save(project.root / "stack.tif", save_all=True, append_images=sheets[1:])
    (tmp_path / "x.csv").write_text("path,label\nstack.tif,daisy\n")
    assert import_into(project.root, tmp_path / "x.csv").new == 1
    (tmp_path / "x.csv").write_text("path,label\nstack.tif#2,daisy\n")
    with pytest.raises(DataError, match=r"nothing was imported$"):
        import_into(project.root, tmp_path / "x.csv")


def test_files_whose_pages_are_there_are_not_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "skal")
    project = make(tmp_path / "flowers")
    sheets = [Image.fromarray(np.full((8, 8), 40 * n, np.uint8)) for n in range(3)]
    stack = project.root / "stack.tif"
    sheets[0].save(stack, save_all=True, append_images=sheets[1:])
    LabelProject.open(project.root).close()
    (tmp_path / "x.csv").write_text("path,label\nstack.tif#2,daisy\nstack.tif#3,daisy\n")
    assert import_into(project.root, tmp_path / "x.csv", pages="all").new == 2
    LabelProject.open(project.root).close()
    assert "missing" not in caplog.text
    sheets[0].save(stack, save_all=True, append_images=sheets[1:2])  # one page less
    LabelProject.open(project.root).close()
    assert "1 image of the project is missing" in caplog.text


def labels_in(folder: Path) -> dict[str, str]:
    project = LabelProject.open(folder, create=False)
    return {project.paths[n]: project.classes[k] for n, k in project.labels.items()}


SAID = {"path": "0.png", "label": "daisy"}
AS_A_TABLE = "path,label\n{},daisy\n"
AS_A_LINE = '{{"path":"{}","label":"daisy"}}\n'


@pytest.mark.parametrize(("form", "text"), [("csv", AS_A_TABLE), ("jsonl", AS_A_LINE)])
@pytest.mark.parametrize("folder", ["", "in/"])
def test_space_before_a_name_is_part_of_it_where_there_is_such_a_file(
    tmp_path: Path, form: str, text: str, folder: str
) -> None:
    file = tmp_path / f"x.{form}"
    names = [f"{folder} lead.png", f"{folder}lead.png", "other.png"]
    write_images(tmp_path / "x", np.arange(48, dtype=np.uint8).reshape(3, 4, 4), names)
    file.write_text(text.format(" lead.png"))
    import_into(tmp_path / "x", file, CLASSES)
    file.write_text(text.format(" other.png "))
    import_into(tmp_path / "x", file)
    assert labels_in(tmp_path / "x") == {names[0]: "daisy", names[2]: "daisy"}


def test_a_sign_that_guards_a_cell_is_part_of_a_name_where_there_is_such_a_file(
    tmp_path: Path,
) -> None:
    folder, table, lines = tmp_path / "x", tmp_path / "x.csv", tmp_path / "x.jsonl"
    names = ["'=q.png", "=q.png", "=r.png", "'=s.png"]
    write_images(folder, np.arange(64, dtype=np.uint8).reshape(4, 4, 4), names)
    lines.write_text(AS_A_LINE.format("'=q.png"))
    import_into(folder, lines, CLASSES)
    assert labels_in(folder) == {"'=q.png": "daisy"}
    lines.write_text(AS_A_LINE.format("'=r.png"))
    with pytest.raises(DataError, match="matches no image"):
        import_into(folder, lines)
    table.write_text("path,label\n'=r.png,daisy\n'=s.png,daisy\n")
    import_into(folder, table)
    assert labels_in(folder) == dict.fromkeys(("'=q.png", "=r.png", "'=s.png"), "daisy")
    table.write_text("path,label\n'=q.png,daisy\n")
    with pytest.raises(DataError, match=r"may be any of \"'=q.png\", '=q.png'"):
        import_into(folder, table)
    project = LabelProject.open(folder)
    table.write_text(export_csv(project))
    assert import_labels(project, table) == Imported(0, 0, 3)


def test_a_table_like_one_of_skal_keeps_its_signs(tmp_path: Path) -> None:
    names = ["'=q.png", "=q.png", "a.png"]
    write_images(tmp_path / "x", np.arange(48, dtype=np.uint8).reshape(3, 4, 4), names)
    table = tmp_path / "x.csv"
    table.write_text("path,label,action,annotator,source\n'=q.png,daisy,label,ann,web\n")
    with pytest.raises(DataError, match=r"may be any of \"'=q.png\", '=q.png'"):
        import_into(tmp_path / "x", table, CLASSES)
    table.write_text("place,path,label,action,annotator,source,seconds,time\n'=q.png,,daisy,,,,,\n")
    with pytest.raises(DataError, match=r"may be any of"):
        import_into(tmp_path / "x", Source(table, path_column="place"), CLASSES)


def test_a_sign_that_guards_is_part_of_a_name_in_a_folder_or_it_is_unclear(tmp_path: Path) -> None:
    folder, table = tmp_path / "x", tmp_path / "x.csv"
    names = ["a/'=q.png", "b/=q.png", "a/'=r.png", "=s.png", "a/'=s.png", "'=t.png", "b/=t.png"]
    write_images(folder, np.arange(112, dtype=np.uint8).reshape(7, 4, 4), names)
    for cell in ("'=q.png", "'=s.png"):
        table.write_text(AS_A_TABLE.format(cell))
        with pytest.raises(DataError, match=r"may be any of .* nothing was imported"):
            import_into(folder, table, CLASSES)
    for cell in ("'=r.png", "'=t.png", "b/=q.png"):
        table.write_text(AS_A_TABLE.format(cell))
        import_into(folder, table, CLASSES)
    assert labels_in(folder) == dict.fromkeys(("a/'=r.png", "'=t.png", "b/=q.png"), "daisy")


@pytest.mark.parametrize(
    ("source", "options", "told"),
    [
        ("x.csv", ["--format", "csvv"], "unknown import format 'csvv'; did you mean csv"),
        ("none.csv", [], "cannot read 'none.csv'"),
        ("x", ["--format", "csv"], "'x' is a folder, so its folders are the classes"),
        ("x", ["--label-column", "y"], "'x' is a folder, so its folders are the classes"),
    ],
)
def test_what_cannot_be_read_is_told_before_what_else_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, options: list[str], told: str
) -> None:
    write_images(tmp_path / "x", np.zeros((1, 4, 4), np.uint8), ["a.png"])
    (tmp_path / "x.csv").write_text(AS_A_TABLE.format("a.png"))
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["import", "x", source, *options])  # no classes either
    assert done.exit_code in (1, 2) and told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_what_is_gone_or_moved_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"{n}.png" for n in range(4)]
    write_images(tmp_path / "x", np.arange(64, dtype=np.uint8).reshape(4, 4, 4), names)
    project = LabelProject.open(tmp_path / "x", CLASSES)
    for n in range(3):
        say(project, f"{n}.png", 0)
    project.close()
    (project.root / "0.png").unlink()
    (project.root / "1.png").rename(project.root / "new.png")
    (tmp_path / "x.csv").write_text(AS_A_TABLE.format("3.png"))
    caplog.set_level("INFO", "skal")
    import_into(project.root, tmp_path / "x.csv")
    assert caplog.text.count("1 image of the project is missing") == 1
    assert caplog.text.count("1 labelled image was moved") == 1


def test_names_that_are_shown_alike_are_not_told_apart(tmp_path: Path) -> None:
    names = ["a.png", "in/\ufffd.png", os.fsdecode(b"\xfd/a.png"), "b.png"]
    names += [os.fsdecode(b"\xff.png"), os.fsdecode(b"\xfe.png")]
    write_images(tmp_path / "x", np.arange(96, dtype=np.uint8).reshape(6, 4, 4), names)
    (tmp_path / "x.csv").write_text(AS_A_TABLE.format("\ufffd.png"))
    with pytest.raises(DataError, match=r"may be any of '\\udcfe.png', '\\udcff.png'"):
        import_into(tmp_path / "x", tmp_path / "x.csv", CLASSES)
    (tmp_path / "x.csv").write_text(
        "path,label\na.png,daisy\n\ufffd/a.png,daisy\nin/\ufffd.png,daisy\n"
    )
    import_into(tmp_path / "x", tmp_path / "x.csv", CLASSES)
    assert labels_in(tmp_path / "x") == dict.fromkeys(names[:3], "daisy")


@pytest.mark.parametrize(
    "row", [{"path": "\ud800.png", "label": "daisy"}, {"path": "0.png", "label": "\ud800"}]
)
def test_half_a_character_is_told_with_its_row(tmp_path: Path, row: dict[str, str]) -> None:
    project = make(tmp_path / "flowers")
    (tmp_path / "x.jsonl").write_text(f"{json.dumps(row)}\n")
    done = CliRunner().invoke(main, ["import", str(project.root), str(tmp_path / "x.jsonl")])
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)
    assert "line 1: '\\ud800" in done.stderr and "has a lone surrogate" in done.stderr


@pytest.mark.parametrize("name", ["action", "source", "annotator", "seconds"])
@pytest.mark.parametrize("what", ["path", "label"])
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_columns_that_are_named_may_be_called_as_those_of_skal(
    tmp_path: Path, name: str, what: str, form: str
) -> None:
    project, file = make(tmp_path / "flowers"), tmp_path / f"x.{form}"
    row = {{"path": "path", "label": "label", what: name}[n]: v for n, v in SAID.items()}
    as_table = f"{','.join(row)}\n{','.join(row.values())}\n"
    file.write_text(as_table if form == "csv" else f"{json.dumps(row)}\n")
    words = ["import", str(project.root), str(file), f"--{what}-column", name]
    assert CliRunner().invoke(main, words).exit_code == 0
    assert labels_in(project.root)["0.png"] == "daisy"


TRANSCRIPT = Path(__file__).parents[1] / "data/label_studio"
DIGITS = ["zero", 'a "one" & <more>', "two"]


@pytest.fixture
def digits(tmp_path: Path) -> LabelProject:
    """The project that the real Label Studio was given, see the transcript's README."""
    names = [f"{'' if n % 3 else 'sub folder/'}{n:02d} é#&.png" for n in range(12)]
    images = np.arange(12 * 16, dtype=np.uint8).reshape(12, 4, 4)
    write_images(tmp_path / "digits", images, names)
    return LabelProject.open(tmp_path / "digits", DIGITS)


def verdicts(project: LabelProject) -> dict[str, dict[str, str]]:
    return {
        project.paths[n][-10:-8]: {
            who: DIGITS[a.label] if a.label is not None else a.action
            for who, a in project.ledger.verdicts(n).items()
        }
        for n in project.ledger.images()
        if project.ledger.verdicts(n)
    }


def test_tasks_are_those_that_the_real_label_studio_took(digits: LabelProject) -> None:
    def place(number: int) -> str:
        return next(path for path in digits.paths.values() if f"{number:02d} " in path)

    kept = json.loads((TRANSCRIPT / "from_skal.json").read_text())
    said_there = {
        task["data"]["path"]: task["predictions"][0]["result"][0]["value"]["choices"][0]
        for task in kept
    }
    truth = [DIGITS.index(said_there.get(place(n), "zero")) for n in range(12)]
    for number in range(5):
        say(digits, place(number), truth[number], seconds=1.5)
    say(digits, place(4), (truth[4] + 1) % 3, annotator="anna", seconds=2.0)
    for number, action in ((5, "unsure"), (6, "skip"), (7, "bad")):
        say(digits, place(number), None, action=action)
    images = np.array(sorted(digits.paths))
    proba = np.full((12, 3), 0.1, np.float32)
    for row, image in enumerate(images.tolist()):
        path = digits.paths[image]
        proba[row, DIGITS.index(said_there.get(path, "zero"))] = 0.8
    digits.guesses = Guesses(images, proba, proba, 5, "small-cnn")
    assert json.loads(export_label_studio(digits)) == kept


def test_what_the_real_label_studio_gave_back_is_read(digits: LabelProject) -> None:
    first = import_labels(digits, TRANSCRIPT / "unchanged_from_label_studio.json")
    assert first == Imported(6, 0, 0)
    before = verdicts(digits)
    assert before["04"] == {"me": DIGITS[1], "anna": DIGITS[2]}
    second = import_labels(digits, TRANSCRIPT / "from_label_studio.json")
    assert second == Imported(3, 1, 5)
    assert verdicts(digits) == {
        **before,
        "00": {"me": "two"},
        "08": {"label-studio-1": "two"},
        "09": {"label-studio-1": "zero"},
        "11": {"label-studio-1": DIGITS[1]},
    }


def test_new_classes_are_told_once_they_are_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "skal")
    root = make(tmp_path / "flowers").root
    (tmp_path / "x.csv").write_text("path,label\n0.png,Tier\nnone.png,Essen\n")
    with pytest.raises(DataError, match="matches no image of"):
        import_into(root, tmp_path / "x.csv", ["Tier", "Essen"])
    LabelProject.open(root, ["Tier"], create=False).close()
    assert "new classes" not in caplog.text
    (tmp_path / "x.csv").write_text("path,label\n0.png,Tier\n1.png,Essen\n")
    import_into(root, tmp_path / "x.csv", ["Tier", "Essen"])
    assert caplog.text.count("new classes: Tier, Essen") == 1
    LabelProject.open(root, ["Essen", "Haus"]).close()
    assert caplog.text.count("new classes") == 2
    assert "new classes: Haus\n" in caplog.text
