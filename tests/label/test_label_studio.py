"""Push and pull, over HTTP, to a small server that answers as Label Studio 1.23 does."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from click.testing import CliRunner, Result
from label_server import write_images

from skal.cli import main
from skal.label.learning import Guesses
from skal.label.project import LabelProject
from skal.label.store import Action

CLASSES = ["cat", "dog"]
TOKEN = "a-token-of-somebody"


@dataclass
class Fake:
    """What the server holds, and whom it lets in; `refused` is what its storage finds wrong."""

    projects: list[dict[str, Any]] = field(default_factory=list)
    storages: list[dict[str, Any]] = field(default_factory=list)
    tasks: list[dict[str, Any]] = field(default_factory=list)
    refused: str = ""
    n_imports: int = 0
    url: str = ""

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> Any:
        """Return a status and what goes back."""
        number = int(found[1]) if (found := re.search(r"/projects/(\d+)", path)) else 0
        match method, re.sub(r"/\d+(?=/)", "", path).strip("/"):
            case "GET", "api/projects" if query.get("page", ["1"]) != ["1"]:
                return 404, {"detail": "Invalid page."}
            case "GET", "api/projects" if not number:
                some = {"count": len(self.projects), "next": None, "previous": None}
                return 200, {**some, "results": self.projects}
            case "POST", "api/projects":
                self.projects.append({"id": len(self.projects) + 1, **body})
                return 201, self.projects[-1]
            case "GET", "api/projects":
                return 200, self.projects[number - 1]
            case "PATCH", "api/projects":
                self.projects[number - 1].update(body)
                return 200, self.projects[number - 1]
            case "GET", "api/storages/localfiles":
                return 200, self.storages
            case "POST", "api/storages/localfiles":
                if self.refused:
                    return 400, {"validation_errors": {"non_field_errors": [self.refused]}}
                self.storages.append({"id": len(self.storages) + 1, **body})
                return 201, self.storages[-1]
            case "POST", "api/projects/import":
                self.n_imports += 1
                start = max((task["id"] for task in self.tasks), default=0) + 1
                self.tasks.extend({"id": n, **task} for n, task in enumerate(body, start))
                return 201, {"task_count": len(body)}
            case "GET", "api/predictions":
                return 200, self.predictions()
            case "PATCH", "api/predictions":
                (one,) = (p for p in self.predictions() if f"/{p['id']}/" in path)
                task = next(task for task in self.tasks if task["id"] == one["task"])
                task["predictions"][one["id"] % 10].update(body)
                return 200, {**one, **body}
            case "POST", "api/projects/import/predictions":
                for one in body:
                    task = next(task for task in self.tasks if task["id"] == one["task"])
                    task["predictions"].append(one)
                return 201, {"created": len(body)}
            case "GET", "api/projects/export":
                everything = query.get("download_all_tasks") == ["true"]
                return 200, [t for t in self.tasks if everything or t["annotations"]]
        return 404, {"detail": f"{method} {path}"}

    def predictions(self) -> list[dict[str, Any]]:
        return [
            {**one, "id": 10 * task["id"] + n, "task": task["id"]}
            for task in self.tasks
            for n, one in enumerate(task["predictions"])
        ]

    def say(self, path: str, label: str, user: int = 7) -> None:
        """Label an image there."""
        value = {"choices": [label]}
        item = {"from_name": "choice", "to_name": "image", "type": "choices", "value": value}
        (task,) = (task for task in self.tasks if task["data"]["path"] == path)
        task["annotations"].append({"id": len(path), "completed_by": user, "result": [item]})


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    pytest.importorskip("label_studio_sdk")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", TOKEN)
    fake = Fake()

    class Handler(BaseHTTPRequestHandler):
        def handle_one(self) -> None:
            parts = urlsplit(self.path)
            content = self.rfile.read(int(self.headers.get("content-length", 0)))
            status, given = 401, {"detail": "Invalid token."}
            if self.headers.get("authorization") == f"Token {TOKEN}":
                body = json.loads(content) if content else None
                status, given = fake.answer(self.command, parts.path, parse_qs(parts.query), body)
            data = json.dumps(given).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PATCH = handle_one

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        fake.url = f"http://127.0.0.1:{server.server_port}"
        yield fake
        server.shutdown()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six images, of which one is a cat and another one is bad."""
    root = tmp_path / "pets"
    images = np.arange(6 * 16, dtype=np.uint8).reshape(6, 4, 4)
    write_images(root, images, [f"{'sub é#&/' if n % 2 else ''}{n}.png" for n in range(6)])
    project = LabelProject.open(root, CLASSES)
    at = {path: n for n, path in project.paths.items()}
    project.record(
        [
            Action("me", "label", at["0.png"], 0, 1.5, 0, "strategy"),
            Action("me", "bad", at["2.png"], None, 1.5, 0, "strategy"),
        ]
    )
    numbers = np.array(sorted(project.paths))
    proba = np.full((6, 2), 0.5, np.float32) + np.array([0.25, -0.25], np.float32)
    Guesses(numbers, proba, proba, 1, "lenet").save(root / ".skal/guesses.npz")
    project.close()
    return root


def skal_(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def push(folder: Path, url: str) -> Result:
    return skal_("export", folder, "--format", "label-studio", "--push", url)


def said(folder: Path) -> dict[str, str]:
    project = LabelProject.open(folder)
    labels = {project.paths[n]: project.classes[label] for n, label in project.labels.items()}
    project.close()
    return labels


def test_a_push_makes_project_interface_storage_and_tasks(fake: Fake, folder: Path) -> None:
    done = push(folder, fake.url)
    assert done.exit_code == 0, done.output
    assert f"{fake.url}/projects/1 (created): 5 tasks added, 0 already on the server" in done.stdout
    ((project,), (storage,)) = fake.projects, fake.storages
    assert project["title"] == "pets" and '<Choice value="dog"/>' in project["label_config"]
    assert (storage["project"], storage["path"]) == (1, str(folder))
    assert storage["recursive_scan"] and storage["use_blob_urls"]
    assert not storage["synchronizable"]
    assert [len(task["annotations"]) for task in fake.tasks] == [1, 0, 0, 0, 0]
    assert {task["predictions"][0]["score"] for task in fake.tasks} == {0.75}


def test_a_second_push_adds_what_is_missing(fake: Fake, folder: Path) -> None:
    push(folder, fake.url)
    del fake.tasks[1]
    again = push(folder, f"{fake.url}/")
    assert "(existing): 1 task added, 4 already on the server" in again.stdout
    assert len(fake.tasks) == 5 and len(fake.projects) == len(fake.storages) == 1
    LabelProject.open(folder, ["bird"]).close()
    assert "(existing): 0 tasks added, 5 already on the server" in push(folder, fake.url).stdout
    assert '<Choice value="bird"/>' in fake.projects[0]["label_config"]


def test_a_second_push_renews_predictions(fake: Fake, folder: Path) -> None:
    push(folder, fake.url)
    assert "updated" not in push(folder, fake.url).stdout
    theirs = {"model_version": "another", "score": 0.1, "result": []}
    fake.tasks[0]["predictions"].insert(0, theirs)
    del fake.tasks[1]["predictions"][:]
    project = LabelProject.open(folder)
    numbers, proba = np.array(sorted(project.paths)), np.full((6, 2), 0.5, np.float32)
    proba += np.array([-0.4, 0.4], np.float32)
    project.close()
    Guesses(numbers, proba, proba, 2, "lenet").save(folder / ".skal/guesses.npz")
    done = push(folder, fake.url)
    assert "0 tasks added, 5 already on the server, 5 predictions updated" in done.stdout, (
        done.output
    )
    assert fake.tasks[0]["predictions"].pop(0) == theirs
    for task in fake.tasks:
        (one,) = task["predictions"]
        assert (one["score"], one["model_version"]) == (0.9, "skal")
        assert one["result"][0]["value"] == {"choices": ["dog"]}
    assert "updated" not in push(folder, fake.url).stdout


def test_what_was_labelled_there_is_pulled_once(fake: Fake, folder: Path) -> None:
    push(folder, fake.url)
    fake.say("sub é#&/1.png", "dog")
    fake.say("4.png", "cat")
    for url in (fake.url, f"{fake.url}/projects/1/data?tab=3"):
        done = skal_("import", folder, "--pull", url)
        assert done.exit_code == 0, done.output
        assert said(folder) == {"0.png": "cat", "sub é#&/1.png": "dog", "4.png": "cat"}
    assert ": 0 new, 0 changed, 3 unchanged" in done.stdout


def test_a_label_of_an_image_that_is_not_here_is_an_error(fake: Fake, folder: Path) -> None:
    push(folder, fake.url)
    fake.say("4.png", "dog")
    fake.tasks[-1]["data"] = {"image": "/data/local-files/?d=other/9.png"}
    fake.tasks[-1]["annotations"] = fake.tasks[0]["annotations"]
    done = skal_("import", folder, "--pull", fake.url)
    assert done.exit_code == 1 and "nothing was imported" in done.stderr
    assert said(folder) == {"0.png": "cat"}


def test_of_several_fields_with_images_one_is_named(fake: Fake, folder: Path) -> None:
    push(folder, fake.url)
    fake.say("4.png", "dog")
    (task,) = (task for task in fake.tasks if task["data"]["path"] == "4.png")
    task["data"] = {"before": "sub é#&/1.png", "after": "4.png"}
    done = skal_("import", folder, "--pull", fake.url)
    assert done.exit_code == 1
    assert "its image may be 'sub é#&/1.png', '4.png'; name its field" in done.stderr
    done = skal_("import", folder, "--pull", fake.url, "--path-column", "after")
    assert ": 1 new, 0 changed" in done.stdout and said(folder)["4.png"] == "dog"
    fake.projects[0]["label_config"] = "of before"
    done = push(folder, fake.url)
    assert done.exit_code == 1 and len(done.stderr.splitlines()) == 1
    assert f"task {task['id']}: its image may be" in done.stderr
    assert "nothing was pushed" in done.stderr and len(fake.tasks) == 5
    assert fake.projects[0]["label_config"] == "of before"
    task["data"] = {"before": "sub é#&/1.png", "image": "4.png"}
    assert "0 tasks added, 5 already on the server" in push(folder, fake.url).stdout


def test_a_project_without_labels_gives_none(fake: Fake, folder: Path) -> None:
    fake.projects.append({"id": 1, "description": ""})
    done = skal_("import", folder, "--pull", f"{fake.url}/projects/1")
    assert ": 0 new, 0 changed, 0 unchanged" in done.stdout
    done = skal_("import", folder, "--pull", fake.url)
    assert done.exit_code == 1 and "has no project for" in done.stderr


def test_a_refused_storage_is_told_with_what_must_be_set(fake: Fake, folder: Path) -> None:
    fake.refused = "LOCAL_FILES_SERVING_ENABLED is disabled"
    done = push(folder, fake.url)
    assert done.exit_code == 0 and "5 tasks added" in done.stdout
    assert fake.refused in done.stderr
    assert f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={folder.parent}" in done.stderr


def test_a_large_folder_is_pushed_in_parts(fake: Fake, tmp_path: Path) -> None:
    write_images(tmp_path / "many", np.zeros((1500, 2, 2), np.uint8))
    LabelProject.open(tmp_path / "many", CLASSES).close()
    assert "1500 tasks added" in push(tmp_path / "many", fake.url).stdout
    assert (fake.n_imports, len(fake.tasks)) == (2, 1500)


def test_what_the_server_does_not_take_is_one_line(
    fake: Fake, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "another")
    done = push(folder, fake.url)
    assert done.exit_code == 1 and "refused the token" in done.stderr
    done = push(folder, "http://127.0.0.1:1")
    assert done.exit_code == 1 and "cannot be reached" in done.stderr
    monkeypatch.delenv("LABEL_STUDIO_API_KEY")
    done = push(folder, fake.url)
    assert done.exit_code == 2 and "LABEL_STUDIO_API_KEY is not set" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("export", "--format", "csv", "--push", "http://x"), "--push takes --format label-studio"),
        (("export", "--format", "label-studio", "--copy", "--push", "http://x"), "nor --copy"),
        (("export", "--format", "label-studio", "--push", "x:8080"), "expected a server such as"),
        (("import",), "either FILE or --pull URL"),
        (("import", "--pull", "http://x", "--format", "csv"), "file options --path-column"),
    ],
)
def test_what_does_not_go_together_is_said(
    folder: Path, arguments: tuple[str, ...], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "a token")
    done = skal_(arguments[0], folder, *arguments[1:])
    assert done.exit_code == 2 and told in done.stderr


def test_a_project_is_no_address_to_push_to(folder: Path, fake: Fake) -> None:
    done = push(folder, f"{fake.url}/projects/1")
    assert done.exit_code == 2 and "a project; expected the server's address" in done.stderr


def test_tasks_in_a_file_have_what_must_be_set_beside_them(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "tasks.json"
    done = skal_("export", folder, "--format", "label-studio", "--out", out)
    assert done.exit_code == 0 and len(json.loads(out.read_text())) == 5
    text = (tmp_path / "tasks-setup.md").read_text()
    assert f"export LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={folder.parent}\n" in text
    assert "export LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true\n" in text
    assert '<Choices name="choice"' in text and "tasks.json" in text
    assert f"the path {folder}," in text and "sub-folders" in text
