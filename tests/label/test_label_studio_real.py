"""The real Label Studio on loopback: pushed to, pulled from, and asking for predictions.

It is run where the environment variable `SKAL_LABEL_STUDIO` names the program, which lies best in
an environment of its own, and the SDK is installed; docs/label-studio.md has the commands.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from label_server import PATIENCE, write_images

import skal
from skal.cli import main
from skal.label.project import LabelProject

PROGRAM = os.environ.get("SKAL_LABEL_STUDIO", "")
TOKEN = "0123456789abcdef0123456789abcdef01234567"
CLASSES = ["low", "middle", "top"]

pytestmark = pytest.mark.skipif(not PROGRAM, reason="SKAL_LABEL_STUDIO names no program")


def wait_for(holds: Callable[[], Any], patience: float = 3 * PATIENCE) -> Any:
    end = time.monotonic() + patience
    while not (found := holds()):
        assert time.monotonic() < end
        time.sleep(0.5)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(*command: str, log: Path, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, env={**os.environ, **env}, start_new_session=True
        )
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(PATIENCE)


class Studio:
    """Label Studio, asked by its HTTP interface."""

    def __init__(self, url: str) -> None:
        self.url = url
        headers = {"Authorization": f"Token {TOKEN}"}
        self.http = httpx.Client(base_url=url, headers=headers, timeout=PATIENCE)

    def is_up(self) -> bool:
        try:
            return self.http.get("/health").status_code == 200
        except httpx.HTTPError:
            return False

    def ask(self, method: str, path: str, **more: Any) -> Any:
        answer = self.http.request(method, path, **more)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def tasks(self, project: int) -> list[dict[str, Any]]:
        params = {"download_all_tasks": "true", "exportType": "JSON"}
        return self.ask("GET", f"/api/projects/{project}/export", params=params)

    def annotate(self, task: int, label: str) -> None:
        value = {"choices": [label]}
        item = {"from_name": "choice", "to_name": "image", "type": "choices", "value": value}
        self.ask("POST", f"/api/tasks/{task}/annotations/", json={"result": [item]})


@pytest.fixture
def folder(tmp_path: Path, tiny: skal.ImageDataset) -> Path:
    """Ninety bars at three heights, some in a subfolder with a name that is hard on addresses."""
    names = [f"{'sub é#&/' if n % 2 else ''}{n:02d} a.png" for n in range(90)]
    write_images(tmp_path / "images/bars", tiny.X[:, 0], names)
    return tmp_path / "images/bars"


@pytest.fixture
def studio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Studio]:
    pytest.importorskip("label_studio_sdk")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", TOKEN)
    port = free_port()
    words = ["start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port)]
    words += ["--username", "me@example.com", "--password", "a-password", "--user-token", TOKEN]
    settings = {
        "HOME": str(tmp_path),
        "LABEL_STUDIO_BASE_DATA_DIR": str(tmp_path / "studio"),
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(tmp_path / "images"),
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_ML_BLOCK_LOCAL_IP": "false",
        "LABEL_STUDIO_SSRF_PROTECTION_ENABLED": "false",
        "LABEL_STUDIO_COLLECT_ANALYTICS": "false",
        "PYTHONPATH": "",
    }
    studio = Studio(f"http://127.0.0.1:{port}")
    with running(PROGRAM, *words, log=tmp_path / "studio.log", **settings), studio.http:
        wait_for(studio.is_up)
        yield studio


def skal_(*arguments: object) -> str:
    done = CliRunner().invoke(main, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def label_of(task: dict[str, Any]) -> str:
    return CLASSES[int(task["data"]["path"].rpartition("/")[2][:2]) % 3]


def check_exchange(studio: Studio, folder: Path) -> None:
    push = ("export", folder, "--format", "label-studio", "--push", studio.url)
    assert "/projects/1 (created): 90 tasks added, 0 already on the server" in skal_(*push)
    assert "/projects/1 (existing): 0 tasks added, 90 already on the server" in skal_(*push)
    tasks = studio.tasks(1)
    assert len(tasks) == 90
    for task in tasks[:4]:  # some of them in the subfolder
        image = studio.http.get(task["data"]["image"])
        assert image.content == (folder / task["data"]["path"]).read_bytes()
    (storage,) = studio.ask("GET", "/api/storages/localfiles", params={"project": 1})
    studio.http.post(f"/api/storages/localfiles/{storage['id']}/sync")
    assert len(studio.tasks(1)) == 90
    for task in tasks[10:13]:
        studio.annotate(task["id"], label_of(task))
    pull = ("import", folder, "--pull", studio.url)
    assert ": 3 new, 0 changed, 3 unchanged" in skal_(*pull)
    assert ": 0 new, 0 changed, 6 unchanged" in skal_(*pull)
    project = LabelProject.open(folder)
    said = {project.paths[n]: CLASSES[label] for n, label in project.labels.items()}
    project.close()
    assert said.items() >= {(task["data"]["path"], label_of(task)) for task in tasks[10:13]}


def check_predictions(studio: Studio, backend: str, log: Path) -> None:
    studio.ask("PATCH", "/api/projects/1", json={"sampling": "Uncertainty sampling"})
    studio.ask("POST", "/api/ml", json={"project": 1, "url": backend, "title": "skal"})
    retrieve = {"params": {"id": "retrieve_tasks_predictions", "project": 1}}
    selected = {"selectedItems": {"all": True, "excluded": []}}
    studio.ask("POST", "/api/dm/actions", **retrieve, json=selected)
    predictions = studio.ask("GET", "/api/predictions", params={"project": 1})
    assert len(predictions) == 90
    assert {one["model_version"] for one in predictions} == {"skal"}
    scores = {one["task"]: one["score"] for one in predictions}
    done = {task["id"] for task in studio.tasks(1) if task["annotations"]}
    wanted = sorted(scores.keys() - done, key=scores.__getitem__)
    tasks = {task["id"]: task for task in studio.tasks(1)}
    n_batches = log.read_text().count("picked the next")
    for expected in wanted[:5]:
        following = studio.ask("GET", "/api/projects/1/next")
        assert following["id"] == expected
        studio.annotate(expected, label_of(tasks[expected]))
    # what is labelled there is heard of, and trained on
    wait_for(lambda: log.read_text().count("picked the next") > n_batches)


def test_a_project_goes_there_and_back_and_is_served_predictions(
    studio: Studio, folder: Path, tmp_path: Path
) -> None:
    rows = [f"{'sub é#&/' if n % 2 else ''}{n:02d} a.png,{CLASSES[n % 3]}" for n in range(3)]
    (tmp_path / "first.csv").write_text("\n".join(["path,label", *rows]))
    skal_("import", folder, tmp_path / "first.csv", "--classes", ",".join(CLASSES))
    project = LabelProject.open(folder, settings={"image_size": 12, "model": "lenet", "steps": 40})
    project.close()
    check_exchange(studio, folder)
    port, log = free_port(), tmp_path / "serve.log"
    command = (sys.executable, "-m", "skal", "serve", str(folder), "--port", str(port))
    with running(*command, log=log, SKAL_DATA_DIR=str(tmp_path / "data")):
        wait_for(lambda: "picked the next" in log.read_text())
        check_predictions(studio, f"http://127.0.0.1:{port}", log)
