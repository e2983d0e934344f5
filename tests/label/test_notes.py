"""What cleanlab and cleanvision find, on the images that they mean, and never as a label.

The files were written by these versions of theirs, on the images that `photos` has.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from label_server import write_images

from skal.cli import main
from skal.core.errors import DataError
from skal.label.doubts import Doubts
from skal.label.exporting import describe_doubts, export_csv, export_doubts
from skal.label.formats import Source
from skal.label.importing import import_into
from skal.label.project import LabelProject
from skal.label.review import Review
from skal.label.service import LabelService

FILES = Path(__file__).parents[1] / "data/cleanlab"
VISION, LABELS = FILES / "cleanvision-0.3.7.csv", FILES / "datalab-2.9.0-label.csv"
OF_LABELS = {
    "cat/2.png": "cleanlab: label, rather cat (0.03)",
    "dog/3.png": "cleanlab: label, rather dog (0.03)",
}
ROW_NUMBERS = FILES / "cleanlab-2.9.0.csv", FILES / "datalab-2.9.0.csv"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six cats and six dogs, all to be labelled."""
    names = [f"{folder}/{n}.png" for folder in ("cat", "dog") for n in range(6)]
    write_images(tmp_path / "photos", np.zeros((12, 6, 9), np.uint8), names)
    LabelProject.open(tmp_path / "photos", ["tabby", "poodle"]).close()
    return tmp_path / "photos"


def noted(folder: Path) -> dict[str, str]:
    project = LabelProject.open(folder, create=False)
    return {project.paths[n]: project.notes.of(n) for n in project.notes.by_image}


def test_what_cleanvision_finds_is_noted_of_its_images(photos: Path) -> None:
    told = str(import_into(photos, VISION))
    assert told == (
        "cleanvision: 4 of 12 images with notes (dark 1, exact duplicates 2, light 1, "
        "low information 2, near duplicates 2); no label was changed"
    )
    found = noted(photos)
    assert found["cat/0.png"] == (
        "cleanvision: low information (0.16); cleanvision: dark (0.01); "
        "cleanvision: near duplicates (0.50)"
    )
    assert list(found) == ["cat/0.png", "dog/1.png", "dog/4.png", "dog/5.png"]
    project = LabelProject.open(photos, create=False)
    assert not project.labels and not project.ledger.annotators()


def test_what_cleanlab_finds_stands_beside_it(photos: Path) -> None:
    import_into(photos, VISION)
    before = noted(photos)
    assert str(import_into(photos, LABELS)).startswith(
        "cleanlab: 2 of 12 images with notes (label 2)"
    )
    assert noted(photos) == before | OF_LABELS


def test_numbers_of_classes_are_not_shown_as_names(photos: Path) -> None:
    import_into(photos, FILES / "cleanlab-2.9.0-index.csv")
    assert set(noted(photos).values()) == {"cleanlab: label (0.03)"}


def test_a_newer_table_takes_the_place_of_an_older_one(photos: Path, tmp_path: Path) -> None:
    import_into(photos, VISION)
    import_into(photos, LABELS)
    (tmp_path / "issues.csv").write_text(
        ",dark_score,is_dark_issue\ncat/1.png,0.2,True\ndog/0.png,1,False\n"
    )
    told = str(import_into(photos, tmp_path / "issues.csv"))
    assert "; the notes of 1 image not in the file were removed; no label" in told
    found = noted(photos)
    assert found["cat/1.png"] == "cleanvision: dark (0.20)"
    assert found["cat/0.png"] == (
        "cleanvision: low information (0.16); cleanvision: near duplicates (0.50)"
    )
    none = VISION.read_text().replace("True", "False")
    (tmp_path / "issues.csv").write_text(none)
    assert "no more" not in str(import_into(photos, tmp_path / "issues.csv"))
    assert noted(photos) == OF_LABELS


def test_a_table_without_scores_is_recognised_by_its_faults(photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "issues.csv"
    file.write_text("path,is_dark_issue,is_blurry_issue\ncat/0.png,True,False\n")
    import_into(photos, file)
    file.write_text("path,is_label_issue\ncat/1.png,True\n")
    import_into(photos, file)
    assert noted(photos) == {"cat/0.png": "cleanvision: dark", "cat/1.png": "cleanlab: label"}
    file.write_text("path,label,is_dark_issue\ncat/0.png,tabby,True\n")
    assert import_into(photos, file).new == 1
    file.write_text("path,is_health_issue\ncat/0.png,True\n")
    told = refused(photos, str(file))
    assert "--format cleanlab imports faults (is_health_issue) as notes" in told


def test_a_summary_of_faults_is_named_as_such(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(",issue_type,num_images\n0,dark,3\n")
    assert "x.csv is a summary of cleanlab or cleanvision" in refused(
        photos, str(tmp_path / "x.csv")
    )


@pytest.mark.parametrize("file", ROW_NUMBERS, ids=lambda file: file.stem)
def test_row_numbers_mean_no_image(photos: Path, file: Path) -> None:
    (photos / "0.png").write_bytes((photos / "cat/0.png").read_bytes())  # a number, as its name
    done = CliRunner().invoke(main, ["import", str(photos), str(file)])
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)
    assert f"{file.name} has row numbers instead of images; nothing was imported" in done.stderr
    assert noted(photos) == {}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("cat/0.png,True,0.1\nmissing.png,False,1\n", "line 3: 'missing.png' matches no image"),
        ("cat/0.png,True,0.1\nphotos/cat/0.png,False,1\n", "line 3: an earlier row is also for"),
        ("cat/0.png,maybe,0.1\n", "line 2 has 'maybe'; expected True or False"),
        ("cat/0.png,True\n", "line 2 has 2 fields; expected 3"),
    ],
)
def test_of_a_table_with_a_fault_nothing_is_noted(
    photos: Path, tmp_path: Path, rows: str, message: str
) -> None:
    (tmp_path / "issues.csv").write_text(f",is_dark_issue,dark_score\n{rows}")
    with pytest.raises(DataError, match=message):
        import_into(photos, tmp_path / "issues.csv")
    assert noted(photos) == {}


def test_the_column_of_images_is_asked_for(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "issues.csv").write_text("where,is_dark_issue,dark_score\ncat/0.png,True,0.1\n")
    with pytest.raises(DataError, match=r"no column 'path' .* name it with --path-column"):
        import_into(photos, tmp_path / "issues.csv")
    words = ["import", str(photos), str(tmp_path / "issues.csv"), "--path-column", "where"]
    assert CliRunner().invoke(main, words).exit_code == 0
    assert noted(photos) == {"cat/0.png": "cleanvision: dark (0.10)"}


def refused(folder: Path, *words: str) -> str:
    """Import by the command line, which says why not in one line."""
    done = CliRunner().invoke(main, ["import", str(folder), *words])
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1), done.output
    return done.stderr


def test_a_table_without_faults_takes_no_notes_away(photos: Path, tmp_path: Path) -> None:
    import_into(photos, VISION)
    before = noted(photos)
    (tmp_path / "x.csv").write_text("path,label\ncat/0.png,tabby\n")
    told = refused(photos, str(tmp_path / "x.csv"), "--format", "cleanlab")
    assert "x.csv has no column is_..._issue" in told
    header = VISION.read_text().partition("\n")[0]
    for name, text in (("header.csv", header), ("header-line.csv", f"{header}\n")):
        (tmp_path / name).write_text(text)
        assert f"{name} has no row" in refused(photos, str(tmp_path / name))
    assert noted(photos) == before != {}


def test_labels_beside_a_column_that_is_called_as_a_fault_are_read(
    photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "x.csv").write_text("path,label,is_health_issue\ncat/0.png,tabby,True\n")
    assert str(import_into(photos, tmp_path / "x.csv")) == "1 new, 0 changed, 0 unchanged"
    (tmp_path / "x.csv").write_text("path,is_health_issue\ncat/0.png,True\n")
    assert "no column 'label'" in refused(photos, str(tmp_path / "x.csv"))
    assert noted(photos) == {}


def test_of_a_table_with_labels_and_faults_one_is_asked_for(photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("path,Class,is_label_issue,label_score\ncat/0.png,tabby,True,0.2\n")
    told = refused(photos, str(file))
    assert "labels (column 'Class')" in told and "--format cleanlab" in told
    assert import_into(photos, file, form="cleanlab").noted
    assert noted(photos) == {"cat/0.png": "cleanlab: label (0.20)"}
    assert import_into(photos, Source(file, label_column="Class")).new == 1


def test_another_fault_of_the_same_tool_stands_beside_it(photos: Path, tmp_path: Path) -> None:
    import_into(photos, LABELS)
    (tmp_path / "x.csv").write_text("path,is_outlier_issue,outlier_score\ncat/0.png,True,0.3\n")
    import_into(photos, tmp_path / "x.csv")
    assert noted(photos) == OF_LABELS | {"cat/0.png": "cleanlab: outlier (0.30)"}
    (tmp_path / "x.csv").write_text("path,is_label_issue,label_score\ncat/1.png,True,0.5\n")
    import_into(photos, tmp_path / "x.csv")
    assert noted(photos) == {
        "cat/0.png": "cleanlab: outlier (0.30)",
        "cat/1.png": "cleanlab: label (0.50)",
    }


def test_who_is_to_answer_reads_no_class_in_a_note(photos: Path) -> None:
    import_into(photos, VISION)
    import_into(photos, LABELS)
    service = LabelService(LabelProject.open(photos))
    review, images = Review(service), service.project.numbers
    cat, dog = images["cat/2.png"], images["dog/3.png"]

    def reviewed() -> list[str]:
        return [row["note"] for row in review.rows([cat, dog])]

    service.next("ben")
    assert not any("label" in one["note"] for one in service.state("ben")["queue"])
    assert service.describe(cat)["note"] == "" and reviewed() == ["", ""]
    service.act("anna", [{"action": "label", "image": cat, "label": 0}])
    assert reviewed() == [OF_LABELS["cat/2.png"], ""]
    assert service.describe(cat)["note"] == ""  # ben may be shown it, too
    service.undo("anna")
    assert reviewed() == ["", ""]


def test_which_images_are_of_the_rarest_class_is_not_read_either(
    photos: Path, tmp_path: Path
) -> None:
    table = tmp_path / "issues.csv"
    table.write_text("path,is_class_imbalance_issue,class_imbalance_score\ncat/2.png,True,0.01\n")
    import_into(photos, table)
    service = LabelService(LabelProject.open(photos))
    cat = service.project.numbers["cat/2.png"]
    assert service.describe(cat)["note"] == ""
    assert "class imbalance" in service.describe(cat, note_of_label=True)["note"]


def test_notes_go_with_an_image_that_is_labelled_and_moved(photos: Path) -> None:
    (photos / "cat/0.png").write_bytes((photos / "cat/0.png").read_bytes() + b"unlike others")
    import_into(photos, VISION)
    (photos.parent / "labels.csv").write_text("path,label\ncat/0.png,tabby\n")
    import_into(photos, photos.parent / "labels.csv")
    (photos / "cat/0.png").rename(photos / "moved.png")
    LabelProject.open(photos).close()
    assert "dark (0.01)" in noted(photos)["moved.png"]


def test_the_page_shows_notes_and_the_review_finds_them(photos: Path) -> None:
    import_into(photos, VISION)
    service = LabelService(LabelProject.open(photos))
    review = Review(service)
    number = service.project.numbers
    assert "dark (0.01)" in service.describe(number["cat/0.png"])["note"]
    assert service.describe(number["cat/1.png"])["note"] == ""
    found = review.find({"notes": "noted", "sort": "note"})
    by_score = ["dog/1.png", "cat/0.png", "dog/4.png", "dog/5.png"]
    assert [service.project.paths[n] for n in found["images"]] == by_score
    assert found["n_noted"] == 4
    assert review.find({"sort": "note"})["images"][:4] == found["images"]
    import_into(photos, LABELS)  # by another process
    assert review.find({"notes": "noted"})["n_noted"] == 6


def test_tables_say_what_is_noted(photos: Path) -> None:
    import_into(photos, VISION)
    (photos.parent / "labels.csv").write_text("path,label\ncat/1.png,tabby\ndog/4.png,poodle\n")
    import_into(photos, photos.parent / "labels.csv")
    project = LabelProject.open(photos)
    one, other = csv.DictReader(io.StringIO(export_csv(project)))
    assert (one["path"], one["note"]) == ("cat/1.png", "")
    assert (other["path"], "exact duplicates" in other["note"]) == ("dog/4.png", True)
    images = np.array([project.numbers["cat/1.png"], project.numbers["dog/4.png"]])
    proba = np.array([[0.3, 0.7], [0.4, 0.6]], np.float32)
    doubts = Doubts(images, np.array([0, 1]), proba)
    paths = [row["path"] for row in describe_doubts(project, doubts)]
    assert paths == ["cat/1.png", "dog/4.png"]
    described = describe_doubts(project, doubts, noted=True)
    assert [row["path"] for row in described] == paths[::-1]
    (first, _) = csv.DictReader(io.StringIO(export_doubts(described)))
    assert first["note"] == json.loads(json.dumps(described))[0]["note"] != ""
    project.close()
    assert str(import_into(photos, _written(photos))) == "0 new, 0 changed, 2 unchanged"


def _written(photos: Path) -> Path:
    """Export the labels, as somebody brings them back."""
    project = LabelProject.open(photos)
    (photos.parent / "out.csv").write_text(export_csv(project))
    project.close()
    return photos.parent / "out.csv"
