from __future__ import annotations

import copy
import http.client
import io
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from label_server import PATIENCE, InProcess, disk_full, serving, write_images
from PIL import ExifTags, Image, PngImagePlugin
from starlette.routing import Route

from skal.core.errors import UsageError
from skal.label.learning import BatchRequest, ComputedBatch, Guesses
from skal.label.previews import FULL, LARGE, SMALL, Previews, render
from skal.label.project import LabelProject
from skal.label.service import LabelService
from skal.label.store import Store
from skal.label.web import guard
from skal.label.web.address import (
    Address,
    PortTakenError,
    claim,
    listen,
    names_of,
    open_browser,
)
from skal.label.web.server import make_app
from skal.label.web.tokens import Tokens

TOKEN = "a-token"
POLICY = (
    "default-src 'none'; img-src 'self'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    write_images(root, np.random.default_rng(0).integers(0, 255, (40, 6, 9), dtype=np.uint8))
    return root


@pytest.fixture
def project(folder: Path) -> LabelProject:
    return LabelProject.open(folder, ["daisy", "<i>rose"], {"n_init": 8, "n_query": 8})


@pytest.fixture
def service(project: LabelProject) -> LabelService:
    return LabelService(project)


def client_of(service: LabelService, **options: Any) -> httpx.Client:
    app = make_app(service, token=TOKEN, port=8000, **options)
    return httpx.Client(
        transport=InProcess(app),
        base_url="http://127.0.0.1:8000",
        headers={"X-Skal-Project": service.project.id},
    )


def known_client_of(service: LabelService, **options: Any) -> httpx.Client:
    client = client_of(service, **options)
    client.get("/", params={"token": TOKEN})
    return client


@pytest.fixture
def stranger(service: LabelService) -> httpx.Client:
    return client_of(service)


@pytest.fixture
def client(service: LabelService) -> httpx.Client:
    return known_client_of(service)


def test_the_token_is_asked_for_once(stranger: httpx.Client) -> None:
    answer = stranger.get("/", params={"token": TOKEN, "as": "anna b"})
    assert answer.status_code == 303
    assert answer.headers["location"] == "/?as=anna+b"
    cookie = answer.headers["set-cookie"]
    assert cookie == f"skal-8000={TOKEN}; HttpOnly; SameSite=Strict; Path=/"
    assert stranger.get("/").status_code == 200
    assert stranger.get("/api/state").status_code == 200


def test_a_link_from_another_site_is_answered_without_a_redirect(stranger: httpx.Client) -> None:
    # the cookie would not be sent along the redirect
    answer = stranger.get("/", params={"token": TOKEN}, headers={"sec-fetch-site": "cross-site"})
    assert answer.status_code == 200
    assert "<html" in answer.text
    assert stranger.get("/api/state").status_code == 200


PATHS = [
    "/",
    "/api/state",
    "/images/0",
    "/thumbs/0",
    "/full/0",
    "/static/app.js",
    "/api/grid",
    "/nowhere",
]


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_told_without_the_token(stranger: httpx.Client, path: str) -> None:
    for query in ("", "?token=", "?token=wrong", f"?token={TOKEN}x", "?token=%ff%00"):
        answer = stranger.get(path + query)
        assert answer.status_code == 403
        told = answer.text if path == "/" else answer.json()["error"]
        assert "skal label" in told
    answer = stranger.get(path, headers={"cookie": f"skal-8001={TOKEN}; skal-8000=wrong"})
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


def test_a_pipe_in_the_place_of_an_image_holds_nothing_up(
    client: httpx.Client, project: LabelProject, folder: Path
) -> None:
    (folder / project.paths[3]).unlink()
    os.mkfifo(folder / project.paths[3])
    for kind in ("images", "thumbs", "full"):
        assert client.get(f"/{kind}/3").status_code == 404
    answer = client.post("/api/actions", json={"action": "label", "image": 3, "label": 1})
    assert answer.status_code == 200
    project.close()  # it does not wait to hash it


def test_half_a_character_is_no_key(client: httpx.Client, project: LabelProject) -> None:
    said = {"action": "label", "image": 3, "label": 1}
    for name in ("key", "window", "undoes"):
        for path in ("actions", "undo", "next", "leave"):
            content = json.dumps({**said, name: "\ud800"})
            headers = {"content-type": "application/json"}
            answer = client.post(f"/api/{path}", content=content, headers=headers)
            assert answer.status_code < 500
    assert client.post("/api/actions", json={**said, "key": "a\x00"}).status_code == 400


def test_a_window_that_was_closed_is_elsewhere_no_more(client: httpx.Client) -> None:
    for window in ("one", "other"):
        client.post("/api/next", json={"window": window})
    assert client.get("/api/state", params={"window": "one"}).json()["elsewhere"]
    client.post("/api/leave", json={"window": "other"})
    assert not client.get("/api/state", params={"window": "one"}).json()["elsewhere"]


@pytest.mark.parametrize(
    "others",
    [
        'prefs={"theme":"dark"}',
        "a,b=c d",
        "no value",
        "=no name",
        'open="to the end',
        "skal-8000=that of another",
        "caf\xe9=\xff",
        ";;",
    ],
)
def test_cookies_of_other_programs_lock_nobody_out(
    service: LabelService, stranger: httpx.Client, others: str
) -> None:
    own = f"skal-8000={TOKEN}"
    for cookies in (f"{others}; {own}", f"{own}; {others}", f"{others};{own};{others}"):
        headers = {"cookie": cookies.encode("latin-1")}
        assert stranger.get("/api/state", headers=headers).status_code == 200
    assert stranger.get("/api/state", headers={"cookie": f'a="{own}"'}).status_code == 403


@pytest.mark.parametrize("path", PATHS[1:])
def test_the_token_in_an_address_opens_the_page_alone(stranger: httpx.Client, path: str) -> None:
    assert stranger.get(path, params={"token": TOKEN}).status_code == 403


def test_nothing_is_written_without_the_token(
    stranger: httpx.Client, project: LabelProject
) -> None:
    body = {"action": "label", "image": 0, "label": 0}
    assert stranger.post("/api/actions", json=body).status_code == 403
    assert stranger.post("/api/undo", json={}).status_code == 403
    assert project.store.actions() == []


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:8000",
        "127.0.0.1:8001",
        "127.0.0.1",
        "127.0.0.1.evil.example:8000",
        "",
        "[::2]",
    ],
)
def test_other_hosts_are_refused(client: httpx.Client, host: str) -> None:
    answer = client.get("/api/state", headers={"host": host})
    assert answer.status_code == 403
    assert "is not an address of this page" in answer.json()["error"]


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "LOCALHOST:8000", "[::1]:8000"])
def test_own_hosts_are_known(client: httpx.Client, host: str) -> None:
    assert client.get("/api/state", headers={"host": host}).status_code == 200


def test_bound_to_all_addresses_any_number_is_an_own_host(project: LabelProject) -> None:
    client = known_client_of(LabelService(project), hosts=names_of("0.0.0.0"))
    for host, status in (("192.168.1.7:8000", 200), ("[fe80::1]:8000", 200), ("evil:8000", 403)):
        assert client.get("/api/state", headers={"host": host}).status_code == status


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:8001"},
        {"origin": "https://127.0.0.1:8000"},
        {"origin": "http://localhost:8000"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_requests_of_other_pages_are_refused(
    client: httpx.Client, project: LabelProject, headers: dict[str, str]
) -> None:
    body = {"action": "label", "image": 0, "label": 0}
    assert client.post("/api/actions", json=body, headers=headers).status_code == 403
    assert client.get("/images/0", headers=headers).status_code == 403
    assert project.store.actions() == []


def test_requests_of_the_own_page_are_answered(client: httpx.Client) -> None:
    headers = {"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"}
    body = {"action": "label", "image": 0, "label": 0}
    assert client.post("/api/actions", json=body, headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/", "/api/state", "/images/0", "/static/app.js", "/nowhere"])
def test_every_answer_has_the_headers_of_safety(
    client: httpx.Client, stranger: httpx.Client, path: str
) -> None:
    for answer in (client.get(path), stranger.get(path)):
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "server" not in answer.headers


def test_answers_are_not_stored_but_for_images(client: httpx.Client) -> None:
    assert client.get("/").headers["cache-control"] == "no-store"
    assert client.get("/api/state").headers["cache-control"] == "no-store"
    assert client.get("/static/app.js").headers["cache-control"] == "no-cache"
    image = client.get("/images/0")
    assert image.headers["cache-control"] == "private, max-age=86400, immutable"
    # another project at the same address has other images of the same numbers
    assert image.headers["vary"] == "Cookie"
    again = client.get("/images/0", headers={"if-none-match": image.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("app.js", "text/javascript"), ("style.css", "text/css"), ("icon.svg", "image/svg+xml")],
)
def test_static_files_are_of_the_type_that_browsers_run(
    client: httpx.Client, name: str, kind: str
) -> None:
    assert client.get(f"/static/{name}").headers["content-type"].partition(";")[0] == kind


def test_all_modules_of_the_page_are_asked_for_at_once(client: httpx.Client) -> None:
    page = client.get("/").text
    loaded = re.findall(r'<link rel="modulepreload" href="/static/(\w+\.js)">', page)
    written = (Path(guard.__file__).parent / "static").glob("*.js")
    assert sorted(loaded) == sorted(path.name for path in written)
    assert all(client.get(f"/static/{name}").status_code == 200 for name in loaded)


def test_the_network_is_told_when_the_first_image_was_sent(service: LabelService) -> None:
    """So that its process does not begin beside the page."""
    seen = threading.Event()
    client = known_client_of(service, seen=seen)
    client.get("/")
    client.get("/images/10000")
    assert not seen.is_set()
    assert client.get("/images/0").status_code == 200
    assert seen.is_set()


def test_a_get_writes_nothing(project: LabelProject, service: LabelService) -> None:
    app = make_app(service, token=TOKEN, port=8000, suggest=True)
    client = known_client_of(service, suggest=True)

    def written() -> tuple[Any, ...]:
        files = {
            p.name: p.read_bytes() for p in project.home.iterdir() if p.suffix != ".sqlite-shm"
        }
        asked = len(source.requests)
        return files, copy.deepcopy(service.leases.told), asked

    def written_a_moment_later() -> tuple[Any, ...]:
        time.sleep(0.5)
        return written()

    source = Waiting()
    service.start(source.ask)
    known(project, service)
    image = min(project.pool)
    paths = [
        route.path.replace("{number:int}", str(image))
        for route in app.routes
        if isinstance(route, Route) and "GET" in (route.methods or ())
    ]
    assert len(paths) > 5
    for n_labeled in (0, 8):  # no batch has begun; the first one is over
        for entry in client.post("/api/next", json={}).json()["queue"][:n_labeled]:
            body = {"action": "label", "image": entry["image"], "label": 0}
            client.post("/api/actions", json=body)
        before = written()
        while before != (before := written_a_moment_later()):
            pass  # what answers to the labels is still being written
        for path in [*paths, "/static/app.js", "/nowhere"]:
            client.get(path, params={"as": "anna", "window": "w", "grid": "1", "n": "8"})
            assert written() == before, path
    client.post("/api/next", json={"as": "anna", "window": "w"})
    assert written() != before


def test_names_are_escaped(folder: Path) -> None:
    root = folder.rename(folder.with_name("<script>alert(1)<"))
    (root / "00000.png").rename(root / "<img src=x onerror=alert(1)>.png")
    client = known_client_of(LabelService(LabelProject.open(root, ["daisy", "<i>rose"])))
    page = client.get("/").text
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page
    assert not re.search(r"\son\w+=|javascript:|<script(?![^>]* src=)", page)
    answer = client.get("/api/state")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["classes"][1]["name"] == "<i>rose"


@pytest.mark.parametrize(
    "path",
    [
        "/images/../../etc/passwd",
        "/images/%2e%2e%2fproject.toml",
        "/images/00000.png",
        "/images/-1",
        "/images/40",
        "/images/99999999999999999999999",
        "/static/../store.py",
        "/static/%2e%2e/store.py",
        "/static/..%2fstore.py",
        "/static//etc/passwd",
        "/static/",
        "/.skal/labels.sqlite",
    ],
)
def test_no_file_is_reached_by_its_path(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert set(answer.json()) == {"error"}


def test_images_are_upright_and_without_metadata(tmp_path: Path) -> None:
    image = Image.new("RGB", (600, 300), "blue")
    image.paste("red", (0, 0, 300, 300))  # left half
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Artist] = "somebody"
    image.save(tmp_path / "a.jpg", exif=exif, comment=b"a secret", quality=95)
    facts = PngImagePlugin.PngInfo()
    facts.add_text("Comment", "a secret")
    image.resize((40, 20)).save(tmp_path / "b.png", pnginfo=facts, exif=exif)
    project = LabelProject.open(tmp_path, ["a", "b"])
    client = known_client_of(LabelService(project))
    sizes = {e["name"]: (e["width"], e["height"]) for e in client.get("/api/state").json()["queue"]}
    assert sizes == {"a.jpg": (300, 600), "b.png": (20, 40)}
    for number, name in project.paths.items():
        answer = client.get(f"/images/{number}")
        assert b"secret" not in answer.content
        assert b"somebody" not in answer.content
        with Image.open(io.BytesIO(answer.content)) as shown:
            assert shown.size == sizes[name]
            assert not shown.getexif()
            assert answer.headers["content-type"] == Image.MIME[str(shown.format)]
            rgb = shown.convert("RGB")
            # turned right: what was on the left is on top
            assert rgb.getpixel((rgb.width // 2, 2))[0] > 200  # type: ignore[index]
            assert rgb.getpixel((rgb.width // 2, rgb.height - 3))[2] > 200  # type: ignore[index]


@pytest.mark.parametrize(
    ("side", "size"), [(FULL, (4000, 2000)), (LARGE, (1024, 512)), (SMALL, (256, 128))]
)
def test_large_images_are_made_as_small_as_needed(
    tmp_path: Path, side: int, size: tuple[int, int]
) -> None:
    Image.new("RGB", (4000, 2000), "green").save(tmp_path / "a.jpg")
    preview = render(tmp_path / "a.jpg", side)
    with Image.open(io.BytesIO(preview.content)) as shown:
        assert shown.size == size


def test_small_images_lose_nothing(project: LabelProject, client: httpx.Client) -> None:
    with Image.open(project.root / project.paths[3]) as image:
        expected = np.asarray(image.convert("RGB"))
    with Image.open(io.BytesIO(client.get("/images/3").content)) as shown:
        np.testing.assert_array_equal(np.asarray(shown.convert("RGB")), expected)


def test_an_image_that_cannot_be_read_is_told(folder: Path) -> None:
    (folder / "00004.png").write_bytes((folder / "00004.png").read_bytes()[:60])
    (folder / "00005.png").write_bytes(b"")
    client = known_client_of(LabelService(LabelProject.open(folder, ["a", "b"])))
    for number in (4, 5):
        answer = client.get(f"/images/{number}")
        assert answer.status_code == 404
        assert answer.json() == {"error": f"image {number} cannot be read"}


def test_a_number_that_another_image_gets_has_another_picture(tmp_path: Path) -> None:
    paths = {n: f"{n}.png" for n in range(3)}
    for n in paths:
        Image.new("L", (10 + n, 5)).save(tmp_path / paths[n])
    previews = Previews(tmp_path, {0: "0.png", 1: "1.png"})
    before, tag = previews.stamp, previews.get(1, SMALL).tag
    assert previews.size(0) == (10, 5)
    previews.paths = paths  # one came: the others stay
    assert previews.stamp == before
    previews.paths = {0: "1.png", 1: "0.png", 2: "2.png"}
    assert previews.stamp != before
    assert previews.size(0) == (11, 5) and previews.size(2) == (12, 5)
    with Image.open(io.BytesIO(previews.get(1, SMALL).content)) as shown:
        assert shown.size == (10, 5) and previews.get(0, SMALL).tag == tag
    assert previews.n_bytes == sum(len(previews.get(n, SMALL).content) for n in (0, 1))
    previews.close()


def test_an_answer_to_a_picture_whose_file_was_changed_since_is_refused_once(
    project: LabelProject, client: httpx.Client
) -> None:
    shown = client.get("/images/3")
    name, stamp = project.paths[3], client.get("/api/state").json()["pictures"]
    Image.new("L", (70, 5)).save(project.root / name)
    answer = {"action": "label", "image": 3, "label": 0}
    refused = client.post("/api/actions", json=answer)
    assert refused.status_code == 400
    assert refused.json() == {"error": f"{name} has changed since it was shown; look at it again"}
    assert not project.ledger.labels
    assert client.get("/api/state").json()["pictures"] != stamp
    again = client.get("/images/3")
    assert again.headers["etag"] != shown.headers["etag"]
    assert client.post("/api/actions", json=answer).status_code == 200
    Image.new("L", (80, 5)).save(project.root / project.paths[4])
    assert client.post("/api/actions", json={**answer, "image": 4}).status_code == 200, (
        "nobody has seen another"
    )


def test_a_picture_of_another_size_tells_that_the_file_was_changed(tmp_path: Path) -> None:
    Image.new("L", (300, 5)).save(tmp_path / "a.png")
    previews = Previews(tmp_path, {0: "a.png"})
    previews.get(0, LARGE)
    before = previews.stamp
    assert not previews.changed(0) and previews.get(0, LARGE) and previews.stamp == before
    Image.new("L", (299, 7)).save(tmp_path / "a.png")
    previews.get(0, SMALL)
    assert previews.stamp != before and not previews.changed(0)
    with Image.open(io.BytesIO(previews.get(0, LARGE).content)) as shown:
        assert shown.size == (299, 7)
    previews.close()


def test_a_preview_that_fails_at_once_harms_no_other(folder: Path) -> None:
    class AtOnce(Executor):
        def submit(self, function: Any, /, *arguments: Any, **_: Any) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_exception(OSError("damaged"))
            return future

    previews = Previews(folder, {0: "00000.png"}, threads=AtOnce())
    previews.prepare([0, 0], LARGE)
    with pytest.raises(OSError, match="damaged"):
        previews.get(0, LARGE)


def test_previews_in_memory_are_bounded(folder: Path) -> None:
    paths = dict(enumerate(sorted(p.name for p in folder.iterdir() if p.is_file())))
    with ThreadPoolExecutor(1) as threads:
        previews = Previews(folder, paths, threads=threads, kept_bytes=1000)
        sizes = [len(previews.get(n, LARGE).content) for n in range(40)]
    assert sum(sizes) > 2000
    assert 0 < previews.n_bytes <= 1000


def test_the_state_has_what_the_page_needs(client: httpx.Client) -> None:
    state = client.get("/api/state", params={"as": "anna"}).json()
    assert state["classes"] == [
        {"id": 0, "name": "daisy", "key": "1", "chosen": ""},
        {"id": 1, "name": "<i>rose", "key": "2", "chosen": ""},
    ]
    assert (state["project"], state["annotator"], state["suggest"]) == ("images", "anna", False)
    assert (state["round"], state["done_in_round"], state["round_size"]) == (0, 0, 8)
    assert (state["n_labeled"], state["n_images"]) == (0, 40)
    assert state["counts"] == {"0": 0, "1": 0}
    assert (state["accuracy"], state["curve"], state["learner"]) == (None, [], "idle")
    assert not state["finished"]
    assert set(state["queue"][0]) == {"image", "width", "height", "name", "note", "why"}
    assert (state["queue"][0]["width"], state["queue"][0]["height"]) == (9, 6)


def test_a_label_is_in_the_store_when_it_is_answered(
    client: httpx.Client, project: LabelProject
) -> None:
    image = client.get("/api/state").json()["queue"][0]["image"]
    body = {"action": "label", "image": image, "label": 1, "seconds": 2.5, "guess": None}
    answer = client.post("/api/actions", json=body).json()
    assert answer["state"]["n_labeled"] == 1
    assert answer["state"]["queue"][0]["image"] != image
    (action,) = Store(project.store.path).actions()
    assert (action.id, action.image, action.label, action.seconds) == (answer["id"], image, 1, 2.5)


def test_many_actions_are_taken_together_or_not_at_all(
    client: httpx.Client, project: LabelProject
) -> None:
    good = [{"action": "label", "image": n, "label": 0} for n in range(5)]
    bad = {"action": "label", "image": 1000, "label": 0}
    refused = client.post("/api/actions", json={"as": "me", "actions": [*good, bad]})
    assert refused.status_code == 400
    assert refused.json() == {"error": "image: there is no image 1000"}
    assert project.store.actions() == []
    answer = client.post("/api/actions", json={"as": "me", "actions": good}).json()
    assert len(answer["ids"]) == 5
    assert answer["state"]["counts"] == {"0": 5, "1": 0}


def test_an_undo_tells_what_was_taken_back(client: httpx.Client) -> None:
    image = client.get("/api/state").json()["queue"][0]["image"]
    client.post("/api/actions", json={"action": "label", "image": image, "label": 1})
    answer = client.post("/api/undo", json={}).json()
    assert answer["undone"] == [{"image": image, "action": "label", "label": 1}]
    assert answer["state"]["queue"][0]["image"] == image
    nothing = client.post("/api/undo", json={"as": "me"})
    assert (nothing.status_code, nothing.json()) == (409, {"error": "nothing to undo"})


def test_a_request_with_the_same_key_is_answered_as_before(client: httpx.Client) -> None:
    body = {"action": "label", "image": 3, "label": 1, "key": "k1"}
    first = client.post("/api/actions", json=body).json()
    assert client.post("/api/actions", json=body).json()["id"] == first["id"]
    many = {"actions": [{"action": "bad", "image": 4}], "key": "k2"}
    ids = client.post("/api/actions", json=many).json()["ids"]
    assert client.post("/api/actions", json=many).json()["ids"] == ids
    undo = client.post("/api/undo", json={"key": "k3"}).json()["undone"]
    assert client.post("/api/undo", json={"key": "k3"}).json()["undone"] == undo
    assert client.get("/api/state").json()["n_labeled"] == 1


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"{}", "text/plain", 415),
        (b"{}", "", 415),
        (b"{" + b" " * 2**21, "application/json", 413),
        (b'{"actions": 1}', "application/json", 400),
        (b'{"actions": [1]}', "application/json", 400),
        (b'{"actions": []}', "application/json", 400),
        (b'{"as": 1}', "application/json", 400),
        (b'{"as": "", "action": "bad", "image": 1}', "application/json", 400),
        (b'{"key": 1, "action": "bad", "image": 1}', "application/json", 400),
    ],
)
def test_bodies_that_are_not_valid_are_refused_with_one_line(
    client: httpx.Client, project: LabelProject, content: bytes, kind: str, status: int
) -> None:
    answer = client.post("/api/actions", content=content, headers={"content-type": kind})
    assert answer.status_code == status
    assert "\n" not in answer.json()["error"]
    assert project.store.actions() == []


def test_what_cannot_be_written_is_not_acknowledged(
    client: httpx.Client, project: LabelProject
) -> None:
    body = {"action": "label", "image": 3, "label": 1}
    with disk_full(project.root, "actions"):
        answer = client.post("/api/actions", json=body)
    assert answer.status_code == 500
    assert "labels.sqlite" in answer.json()["error"]
    assert client.get("/api/state").json()["n_labeled"] == 0


class Defect(LabelService):
    def state(self, annotator: str, *, window: str | None = None) -> dict[str, Any]:
        return {"never": 1 / 0}


def test_a_defect_is_told_as_one_line_and_leaves_its_trace(
    project: LabelProject, caplog: pytest.LogCaptureFixture
) -> None:
    answer = known_client_of(Defect(project)).get("/api/state")
    assert answer.status_code == 500
    assert answer.json() == {"error": "ZeroDivisionError: division by zero"}
    assert answer.headers["content-security-policy"] == POLICY
    (record,) = [r for r in caplog.records if r.name == "skal"]
    assert "ZeroDivisionError: division by zero" in record.getMessage()
    assert record.exc_info is not None


def test_methods_and_places_that_there_are_not(client: httpx.Client) -> None:
    assert client.get("/api/actions").status_code == 405
    assert client.post("/api/state", json={}).status_code == 405
    for place in ("next", "grid", "undo"):
        assert client.get(f"/api/{place}").status_code == 405
    for n in ("many", 0, 201, None, 1.5, True):
        assert client.post("/api/grid", json={"n": n}).status_code == 400
    assert client.get("/api/guess/1").status_code == 404


@pytest.mark.parametrize("into", [True, False, 1.0, "1", [1]])
def test_only_a_number_is_a_class_to_merge_into(client: httpx.Client, into: Any) -> None:
    before = client.get("/api/state").json()["classes"]
    assert client.post("/api/classes", json={"into": {"0": into}}).status_code == 400
    assert client.get("/api/state").json()["classes"] == before


class Waiting:
    """A learner that never answers."""

    def __init__(self) -> None:
        self.requests: list[BatchRequest] = []

    def ask(self, request: BatchRequest, *_: Any) -> None:
        self.requests.append(request)


def known(project: LabelProject, service: LabelService) -> None:
    """Let the service know what a network says: class 1 for all, more surely for later images."""
    images = np.array(sorted(project.paths))
    sure = np.linspace(0.5, 0.9, len(images)).astype(np.float32)
    proba = np.stack([1 - sure, sure], axis=1)
    guesses = Guesses(images, proba, images[:, None].astype(np.float32), 10, "x")
    service.take_batch(ComputedBatch([], "strategy", guesses, [], 0.1))


def test_guesses_are_told_only_on_demand(project: LabelProject, service: LabelService) -> None:
    for suggest in (False, True):
        client = known_client_of(service, suggest=suggest)
        assert client.get("/api/guess/39").status_code == 404
        known(project, service)
        answer = client.get("/api/guess/39")
        if not suggest:
            assert answer.json() == {"error": "predictions are shown only with --suggest"}
            project.guesses = None
            continue
        told = answer.json()
        assert told.pop("why") == ""  # it is in no batch
        assert told == {"label": 1, "probability": 0.9, "proba": [0.1, 0.9]}
        assert client.get("/api/guess/400").status_code == 404


def test_the_grid_has_entries_like_the_queue(
    project: LabelProject, service: LabelService, client: httpx.Client
) -> None:
    known(project, service)
    images = client.post("/api/grid", json={"as": "me", "n": 10}).json()["images"]
    assert len(images) == 10
    assert set(images[0]) == {"image", "width", "height", "name", "note"}
    assert client.get(f"/thumbs/{images[0]['image']}").status_code == 200


def test_small_answers_wait_for_no_acknowledgement() -> None:
    with listen("127.0.0.1", 0) as bound:  # by which asyncio knows that it may set TCP_NODELAY
        assert bound.proto == socket.IPPROTO_TCP


def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTakenError, match=f"port {port}: .*choose another --port"):
            listen("127.0.0.1", port)
    with pytest.raises(UsageError, match=r"--host: 'no such host' is not an address"):
        listen("no such host", 0)


@pytest.mark.parametrize("path", ["/api/state", "/api/guess/1"])
def test_a_page_of_another_project_is_told_so(client: httpx.Client, path: str) -> None:
    for headers in ({"X-Skal-Project": "another"}, {"X-Skal-Project": ""}):
        answer = client.get(path, headers=headers)
        assert answer.status_code == 409
        assert answer.json()["foreign"] is True
    assert client.get("/images/0", params={"project": "another"}).status_code == 409


def test_answers_of_a_page_of_another_project_are_not_written(
    client: httpx.Client, project: LabelProject
) -> None:
    body = {"action": "label", "image": 3, "label": 1}
    for path in ("/api/actions", "/api/undo", "/api/next", "/api/grid"):
        answer = client.post(path, json=body, headers={"X-Skal-Project": "another"})
        assert (answer.status_code, answer.json()["foreign"]) == (409, True)
    assert project.store.actions() == []
    assert f'data-project="{project.id}"' in client.get("/").text


def test_an_undo_can_name_the_request_it_takes_back(
    client: httpx.Client, project: LabelProject
) -> None:
    many = [{"action": "label", "image": n, "label": 0} for n in (1, 2)]
    client.post("/api/actions", json={"actions": many, "key": "one"})
    client.post("/api/actions", json={"action": "bad", "image": 3, "key": "two"})
    undone = client.post("/api/undo", json={"undoes": "one"}).json()["undone"]
    assert [entry["image"] for entry in undone] == [1, 2]
    assert client.post("/api/undo", json={"undoes": "one"}).status_code == 409
    assert client.post("/api/undo", json={"key": "two"}).status_code == 400
    assert project.ledger.aside == {3: "bad"}


def test_labels_of_the_grid_are_told_from_others(
    client: httpx.Client, project: LabelProject
) -> None:
    body = {"action": "label", "image": 39, "label": 0}
    client.post("/api/actions", json={**body, "grid": True})
    client.post("/api/actions", json={**body, "image": 38})
    assert [a.source for a in project.store.actions()] == ["grid", "other"]


def test_a_number_that_is_no_float_is_refused(client: httpx.Client) -> None:
    text = '{"action": "bad", "image": 1, "seconds": 1' + "0" * 400 + "}"
    headers = {"content-type": "application/json"}
    assert client.post("/api/actions", content=text, headers=headers).status_code == 400


def test_the_address_of_the_last_time_is_used_again(tmp_path: Path) -> None:
    with claim(tmp_path, "127.0.0.1", 0) as first:
        first.keep(tmp_path)
        facts = (first.port, first.token)
    assert (tmp_path / "address.json").stat().st_mode & 0o777 == 0o600
    with claim(tmp_path, "127.0.0.1", 0) as second:
        assert (second.port, second.token) == facts
        assert second.urls()[0] == f"http://127.0.0.1:{second.port}/?token={second.token}"
        with claim(tmp_path, "127.0.0.1", 0) as third:  # another program is there
            assert third.port != second.port
            assert third.moved_from == second.port
            third.keep(tmp_path)
        with pytest.raises(PortTakenError), claim(tmp_path, "127.0.0.1", second.port):
            pass
    with claim(tmp_path, "127.0.0.1", 0) as again:
        assert again.port == facts[0]
    with claim(tmp_path, "localhost", 0) as other:  # what went over a network opens nothing here
        assert other.token != facts[1]


@pytest.mark.parametrize("content", ["", "[]", '{"host": 1}', '{"port": 80}', "\0"])
def test_an_address_that_cannot_be_used_is_passed_over(tmp_path: Path, content: str) -> None:
    (tmp_path / "address.json").write_text(content)
    (tmp_path / "address.json").chmod(0o600)
    with claim(tmp_path, "127.0.0.1", 0) as place:
        assert len(place.token) > 40


def test_a_token_that_others_could_read_is_not_used_again(tmp_path: Path) -> None:
    with claim(tmp_path, "127.0.0.1", 0) as first:
        first.keep(tmp_path)
    (tmp_path / "address.json").chmod(0o644)
    with claim(tmp_path, "127.0.0.1", 0) as second:
        assert second.token != first.token


def test_each_annotator_has_an_address_and_each_machine() -> None:
    with listen("127.0.0.1", 0) as bound:
        address = Address(bound, "0.0.0.0", "t", own=("127.0.0.1", "192.168.1.7"))
        port = address.port
        assert not address.is_local
        me, anna = (Tokens("t").of(name) for name in ("me", "anna b"))
        assert address.urls(["me", "anna b"]) == [
            f"http://127.0.0.1:{port}/?token={me}",
            f"http://192.168.1.7:{port}/?token={me}",
            f"http://127.0.0.1:{port}/?token={anna}&as=anna%20b",
            f"http://192.168.1.7:{port}/?token={anna}&as=anna%20b",
        ]
        assert address.urls(["anna b"])[0] == f"http://127.0.0.1:{port}/?token=t&as=anna%20b"


def test_a_person_cannot_take_another_s_name(
    service: LabelService, stranger: httpx.Client, project: LabelProject
) -> None:
    token = Tokens(TOKEN).of("anna b")
    answer = stranger.get("/", params={"token": token, "as": "anna b"})
    assert answer.headers["set-cookie"].startswith(f"skal-8000={token}; HttpOnly")
    label = {"action": "label", "image": 0, "label": 0}
    for name in ("ben", "me", "", None, 3):
        for path, body in (("actions", label), ("next", {}), ("undo", {}), ("grid", {})):
            answer = stranger.post(f"/api/{path}", json={**body, "as": name})
            assert answer.status_code == 403
            assert "this address belongs to 'anna b'" in answer.json()["error"]
    assert stranger.get("/api/state", params={"as": "ben"}).status_code == 403
    assert not project.store.actions()

    assert stranger.post("/api/actions", json={**label, "as": "anna b"}).status_code == 200
    assert stranger.post("/api/actions", json={**label, "image": 1}).status_code == 200
    assert [action.annotator for action in project.store.actions()] == ["anna b", "anna b"]
    # whoever has the address of the page itself takes any name
    owner = known_client_of(service)
    assert owner.post("/api/actions", json={**label, "as": "ben"}).status_code == 200


def test_a_token_of_a_person_is_made_of_that_of_the_page_alone(stranger: httpx.Client) -> None:
    anna, ben = Tokens(TOKEN).of("anna"), Tokens(TOKEN).of("ben")
    name, _, seal = anna.partition(".")
    forged = (
        Tokens("another").of("anna"),
        f"{ben.partition('.')[0]}.{seal}",
        f"{anna}x",
        name,
        f"{name}.",
        f".{seal}",
        f"{name}=.{seal}",
        "é.é",
    )
    for token in forged:
        assert stranger.get("/", params={"token": token}).status_code == 403
        assert Tokens(TOKEN).whose(token) is None
    assert Tokens(TOKEN).whose(anna) == "anna"
    assert Tokens(TOKEN).whose(Tokens(TOKEN).of("Übel 漢")) == "Übel 漢"
    assert TOKEN not in anna


def test_the_browser_gets_the_token_by_a_file_that_others_cannot_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []

    class Process:
        def __init__(self, command: list[str], **_: Any) -> None:
            started.append(command)

        def wait(self) -> None:
            pass

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(subprocess, "Popen", Process)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    open_browser(tmp_path, "http://x/?token=secret&as=anna")
    assert not started  # no screen, no browser in the terminal
    monkeypatch.setenv("DISPLAY", ":0")
    open_browser(tmp_path, "http://x/?token=secret&as=anna")
    ((program, path),) = started
    assert program == "xdg-open"
    assert "secret" not in path
    assert Path(path).stat().st_mode & 0o777 == 0o600
    assert "url=http://x/?token=secret&amp;as=anna" in Path(path).read_text()


# what follows is of a real server

CLASSES = ("--classes", "a,b,c")


def test_ctrl_c_ends_it_and_tells_how_many_labels_are_saved(folder: Path) -> None:
    with serving(folder, *CLASSES) as server:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{40,}", server.url)
        client = server.client()
        state = client.state()
        for entry in state["queue"]:
            client.label(entry["image"], 1)
        code, err = server.stop()
    assert code == 0
    assert f"3 labels are saved in {folder}/.skal/labels.sqlite" in err
    assert "Traceback" not in err
    assert "Warning" not in err


def test_a_closed_terminal_ends_it_as_ctrl_c_does(folder: Path) -> None:
    with serving(folder, *CLASSES) as server:
        client = server.client()
        client.label(client.state()["queue"][0]["image"], 1)
        server.process.send_signal(signal.SIGHUP)
        _, err = server.process.communicate(timeout=PATIENCE)
    assert server.process.returncode == 0
    assert "1 label is saved" in err
    assert f"next: skal train {folder} --out model" in err
    assert len(Store(folder / ".skal/labels.sqlite").contents()) == 1


def test_it_listens_on_loopback_alone(folder: Path) -> None:
    with serving(folder, *CLASSES) as server:
        port = int(server.url.split(":")[2].partition("/")[0])
        table = Path("/proc/net/tcp").read_text().splitlines()[1:]
        listening = {line.split()[1] for line in table if line.split()[3] == "0A"}
    assert f"0100007F:{port:04X}" in listening
    assert f"00000000:{port:04X}" not in listening


def test_a_second_server_of_the_same_folder_is_refused(folder: Path) -> None:
    with serving(folder, *CLASSES):
        second = subprocess.run(
            [sys.executable, "-m", "skal", "label", str(folder), "--no-browser"],
            capture_output=True,
            text=True,
        )
    assert second.returncode == 1
    assert "is being labelled by another process" in second.stderr


def test_the_training_process_ends_with_the_server(folder: Path) -> None:
    with serving(folder, *CLASSES) as server:
        server.client().wait_for(lambda state: state["learner"] == "training")
        parent = psutil.Process(server.process.pid)
        end = time.monotonic() + 60
        while not (found := [child.pid for child in parent.children()]):
            assert time.monotonic() < end
            time.sleep(0.05)
        server.kill()
        end = time.monotonic() + 60
        while any(psutil.pid_exists(child) for child in found):
            assert time.monotonic() < end
            time.sleep(0.05)


def test_no_file_is_reached_by_a_path_that_no_client_has_tidied(folder: Path) -> None:
    with serving(folder, *CLASSES) as server:
        client = server.client()
        address = client.http.base_url
        for path in ("/static/../store.py", "/static/../../../etc/passwd", "/images/../x", "//etc"):
            connection = http.client.HTTPConnection(address.host, address.port)
            cookie = "; ".join(f"{name}={value}" for name, value in client.http.cookies.items())
            connection.request("GET", path, headers={"Cookie": cookie})
            answer = connection.getresponse()
            assert answer.status == 404
            assert b"import" not in answer.read()
            connection.close()


def test_two_annotators_at_once_and_what_they_do_is_kept_apart(folder: Path) -> None:
    with serving(folder, *CLASSES) as server:
        clients = {name: server.client(name) for name in ("anna", "ben")}
        pressed: dict[str, list[tuple[int, int]]] = {name: [] for name in clients}

        def work(name: str) -> None:
            client, label = clients[name], list(clients).index(name)
            for _ in range(12):
                image = client.state()["queue"][0]["image"]
                client.label(image, label)
                pressed[name].append((image, label))

        threads = [threading.Thread(target=work, args=(name,)) for name in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        server.kill()
    actions = Store(folder / ".skal/labels.sqlite").actions()
    for name, labels in pressed.items():
        assert [(a.image, a.label) for a in actions if a.annotator == name] == labels
    assert len({image for labels in pressed.values() for image, _ in labels}) == 24


@pytest.mark.parametrize("seed", range(3))
def test_no_acknowledged_label_is_lost_when_the_server_is_killed(folder: Path, seed: int) -> None:
    draw = random.Random(seed)
    told: dict[int, tuple[int, int]] = {}
    for _ in range(2):
        with serving(folder, *CLASSES) as server:
            client = server.client()
            killer = threading.Timer(draw.uniform(0.0, 0.5), server.process.send_signal, [9])
            if not (queue := client.state()["queue"]):
                break  # the first server lived until all was labelled
            image = queue[0]["image"]
            killer.start()
            try:
                for number in range(100_000):
                    answer = client.label(image, number % 3)
                    told[answer["id"]] = (image, number % 3)
                    image = answer["state"]["queue"][0]["image"]
            except (httpx.TransportError, IndexError):
                pass
            killer.join()
            server.process.communicate()
            assert server.process.returncode in (-signal.SIGKILL, 0)
    kept = {a.id: (a.image, a.label) for a in Store(folder / ".skal/labels.sqlite").actions()}
    assert told
    assert told.items() <= kept.items()


def test_rounds_follow_each_other_by_a_network_trained_meanwhile(
    tmp_path: Path, data_dir: Path
) -> None:
    """Label bars at three heights through the interface until the network knows them."""
    draw = np.random.default_rng(0)
    heights = draw.integers(0, 3, 150)
    images = draw.integers(0, 80, (150, 12, 12), dtype=np.uint8)
    for image, height in zip(images, heights, strict=True):
        image[4 * height : 4 * height + 4] += 150
    names = write_images(tmp_path / "bars", images)
    truth = dict(zip(names, heights.tolist(), strict=True))
    arguments = ("--n-init", "10", "--n-query", "10", "--steps", "60", "--strategy", "margin")
    with serving(
        tmp_path / "bars", *CLASSES, *arguments, "--image-size", "12", "--suggest"
    ) as server:
        client = server.client()
        state = client.wait_for(lambda state: state["learner"] == "idle")
        while state["n_labeled"] < 50:
            entry = state["queue"][0]
            state = client.label(entry["image"], truth[entry["name"]])["state"]
            if state["n_labeled"] % 5 == 0:
                state = client.wait_for(lambda state: state["learner"] == "idle")
        assert state["round"] >= 4
        assert state["accuracy"]["n"] == 5
        assert state["accuracy"]["value"] == 1.0
        assert len(state["curve"]) >= 3
        entry = state["queue"][0]
        guess = client.http.get(f"/api/guess/{entry['image']}").json()
        assert guess["label"] == truth[entry["name"]]
        code, err = server.stop()
    assert code == 0
    assert "accuracy of the last network: too early to say: 5 randomly drawn test images" in err
    sources = {a.source for a in Store(tmp_path / "bars/.skal/labels.sqlite").actions()}
    assert {"start", "strategy", "test"} <= sources


def test_the_client_of_these_tests_is_refused_without_its_token(folder: Path) -> None:
    with serving(folder, *CLASSES) as server:
        answer = httpx.get(server.url[:-1])
    assert answer.status_code == 403
    assert "run this with your image folder" in answer.text
