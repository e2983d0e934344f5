"""The page of `skal label` in a real browser: the store holds what was pressed, nothing else."""

from __future__ import annotations

import io
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe import faults
from label_server import serving
from PIL import Image

try:
    import axe_playwright_python  # noqa: F401 (what `faults` reads)
    import uvicorn
    from playwright.sync_api import Browser, Page, Route, expect

    from skal.core.errors import SkalError
    from skal.label.image_map import lay_out
    from skal.label.importing import import_into
    from skal.label.learning import Fail, Failure, Guesses, LearnerSetup, Pickers, Take
    from skal.label.project import LabelProject
    from skal.label.service import LabelService
    from skal.label.store import BatchRow
    from skal.label.web.address import listen
    from skal.label.web.server import make_app
    from skal.label.web.tokens import Tokens
except ImportError as error:
    if os.environ.get("CI"):
        raise
    pytest.skip(f"needs {error.name}", allow_module_level=True)

TOKEN = "let-me-in"
FLOWERS = ("daisy", "rose", "tulip")
MANY = (
    *FLOWERS,
    "aster",
    "dahlia",
    "iris",
    "lily",
    "orchid",
    "peony",
    "violet",
    "Übeltäter",
    "xyris",
)


class Site:
    """A label project, served in a thread; the first batch is all images, and no network trains."""

    def __init__(
        self,
        folder: Path,
        classes: Sequence[str],
        suggest: bool = False,
        port: int = 0,
        kind: str = "start",
    ) -> None:
        self.folder = folder
        self.project = LabelProject.open(folder, classes)
        if not self.project.store.batches():
            images = self.project.paths
            batch = [BatchRow(0, rank, image, kind, False) for rank, image in enumerate(images)]
            self.project.store.add_batch(batch)
        bound = listen("127.0.0.1", port)
        self.port = port = bound.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}/"
        self.service = service = LabelService(self.project)
        beside = partial(done_in_a_thread, self.project)
        app = make_app(service, token=TOKEN, suggest=suggest, port=port, beside=beside)
        config = uvicorn.Config(
            app, log_config=None, lifespan="off", ws="none", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [bound]})
        self._thread.start()

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join()
        self.project.close()

    def stored(self, *columns: str) -> list[tuple[Any, ...]]:
        """What was done, oldest first: action, image's name, class, or the columns asked for."""
        return stored(self.folder, *columns)


def done_in_a_thread(project: LabelProject, job: Any, take: Take, fail: Fail) -> None:
    """Stand for the process in which all is made, which would import torch."""
    done = work_on(project.learner_setup(), job)
    threading.Thread(target=lambda: (fail if isinstance(done, Failure) else take)(done)).start()


def work_on(setup: LearnerSetup, job: Any) -> str | Failure | None:
    if job is lay_out:
        return None  # there is no better map than that by PCA
    try:
        return job(Pickers(setup))
    except SkalError as error:
        return Failure(str(error))


def stored(folder: Path, *columns: str) -> list[tuple[Any, ...]]:
    wanted = ", ".join(columns or ("action", "images.path", "classes.name"))
    query = (
        f"SELECT {wanted} FROM actions JOIN images ON images.number = actions.image "
        "LEFT JOIN classes ON classes.number = actions.label ORDER BY actions.id"
    )
    with closing(sqlite3.connect(folder / ".skal" / "labels.sqlite")) as connection:
        return connection.execute(query).fetchall()


def write_images(folder: Path, names: Sequence[str]) -> Path:
    folder.mkdir(parents=True)
    for i, name in enumerate(names):
        colour = (37 * i % 256, 91 * i % 256, 53 * i % 256)
        Image.new("RGB", (48 + i % 30, 64), colour).save(folder / name, "PNG")
    return folder


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    return write_images(tmp_path / "flowers", [f"{i:03}.png" for i in range(90)])


@pytest.fixture
def serve() -> Iterator[Callable[..., Site]]:
    sites = []

    def start(*arguments: Any, **keywords: Any) -> Site:
        sites.append(Site(*arguments, **keywords))
        return sites[-1]

    yield start
    for site in sites:
        site.close()


class Visitor:
    """Opens pages, and sees to it that none complains or asks anything of another server."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.addresses: set[str] = set()

    def open(self, site: Site, annotator: str | None = None, **options: Any) -> Page:
        who = f"&as={annotator}" if annotator else ""
        return self.open_address(f"{site.address}?token={TOKEN}{who}", **options)

    def open_address(self, url: str, **options: Any) -> Page:
        self.addresses.add(url.partition("?")[0])
        page = self.browser.new_context(**options).new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(url)
        wait_for_picture(page)
        return page


@pytest.fixture
def visitor(browser: Browser, serve: Callable[..., Site]) -> Iterator[Visitor]:
    visitor = Visitor(browser)
    yield visitor
    for context in browser.contexts:
        context.close()
    assert not visitor.complaints
    foreign = [url for url in visitor.requests if not url.startswith(tuple(visitor.addresses))]
    assert not foreign


@pytest.fixture
def page(visitor: Visitor, flower_site: Site) -> Page:
    return visitor.open(flower_site)


@pytest.fixture
def flower_site(serve: Callable[..., Site], flowers: Path) -> Site:
    return serve(flowers, FLOWERS)


def wait_for_picture(page: Page) -> None:
    picture = page.locator("#picture img")
    picture.wait_for()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


def shown(page: Page) -> str:
    return page.locator("#name").inner_text()


def press(page: Page, *keys: str) -> list[str]:
    """Press keys that answer or undo, each on another picture; return what was seen at each."""
    seen = []
    for key in keys:
        wait_for_picture(page)
        seen.append(shown(page))
        page.keyboard.press(key)
        expect(page.locator("#name")).not_to_have_text(seen[-1])
    return seen


FETCHED = """(n) => new Set(performance.getEntriesByType('resource').map((entry) => entry.name)
    .filter((name) => name.includes('/images/'))).size >= n"""

UNSENT = """Object.keys(sessionStorage).filter((key) => key.startsWith('outbox of'))
    .reduce((sum, key) => sum + JSON.parse(sessionStorage.getItem(key)).length, 0)"""


def wait_until_saved(page: Page) -> None:
    for _ in range(500):
        if page.evaluate(UNSENT) == 0:
            return
        page.wait_for_timeout(20)
    raise AssertionError("something was not sent")


def banner(page: Page) -> Any:
    return page.get_by_role("alert")


def forget(visitor: Visitor, expected: str) -> None:
    """Take the complaints that a test has provoked as read."""
    assert any(expected in complaint for complaint in visitor.complaints)
    visitor.complaints = [c for c in visitor.complaints if expected not in c]


def test_thirty_images_are_labelled_by_thirty_keys(visitor: Visitor, flower_site: Site) -> None:
    began = time.monotonic()
    page = visitor.open(flower_site)
    keys = [str(1 + i * i % 3) for i in range(30)]

    seen = press(page, *keys)
    wait_until_saved(page)

    assert len(set(seen)) == 30
    expected = [("label", s, FLOWERS[int(key) - 1]) for s, key in zip(seen, keys, strict=True)]
    assert flower_site.stored() == expected
    seconds = [s for (s,) in flower_site.stored("seconds")]
    assert min(seconds) > 0
    assert sum(seconds) < time.monotonic() - began
    saved = f"Saved: {FLOWERS[int(keys[-1]) - 1]} ({seen[-1]})"
    expect(page.locator("#status")).to_have_text(saved)
    expect(page.locator("#total")).to_have_text("30 of 90 images labelled")
    for name in FLOWERS:
        n = sum(FLOWERS[int(key) - 1] == name for key in keys)
        expect(page.get_by_role("button", name=f"{name} {n} labelled")).to_be_visible()


def test_a_cookie_of_another_local_program_does_not_lock_the_page(
    page: Page, flower_site: Site
) -> None:
    page.evaluate("""document.cookie = 'prefs={"theme":"dark"}; path=/'""")
    page.reload()
    wait_for_picture(page)
    assert "theme" in page.evaluate("document.cookie")
    press(page, "1")
    wait_until_saved(page)
    assert len(flower_site.stored()) == 1


def test_after_a_first_start_that_failed_the_next_one_labels(
    serve: Callable[..., Site], flowers: Path, visitor: Visitor
) -> None:
    (flowers / ".skal").mkdir()
    (flowers / ".skal/labels.sqlite").touch()
    site = serve(flowers, FLOWERS)
    seen = press(page := visitor.open(site), "2")
    wait_until_saved(page)
    assert site.stored() == [("label", seen[0], "rose")]


def test_undo_goes_back_as_far_as_wanted(page: Page, flower_site: Site, visitor: Visitor) -> None:
    seen = press(page, "1", "2", "3", "1")
    last = shown(page)
    back = []
    for _ in seen:
        press(page, "Backspace")
        back.append(shown(page))
    assert back == seen[::-1]
    wait_until_saved(page)
    page.keyboard.press("Backspace")
    expect(page.locator("#status")).to_have_text("Nothing to undo.")
    forget(visitor, "409")

    again = press(page, "3", "3", "3", "3")
    wait_until_saved(page)

    assert again == seen
    assert shown(page) == last
    assert flower_site.stored() == [
        *(("label", s, FLOWERS[i]) for s, i in zip(seen, (0, 1, 2, 0), strict=True)),
        *(("undo", s, None) for s in seen[::-1]),
        *(("label", s, "tulip") for s in seen),
    ]


def test_ctrl_z_undoes_too(page: Page, flower_site: Site) -> None:
    seen = press(page, "1", "Control+z")
    wait_until_saved(page)
    assert flower_site.stored() == [("label", seen[0], "daisy"), ("undo", seen[0], None)]


def test_undo_at_full_speed_hits_the_image_that_is_shown(page: Page, flower_site: Site) -> None:
    first = press(page, "1")[0]
    second = shown(page)
    wait_for_picture(page)
    for key in ("2", "Backspace", "3"):  # no wait for the server
        page.keyboard.press(key)
    wait_until_saved(page)
    assert flower_site.stored() == [
        ("label", first, "daisy"),
        ("label", second, "rose"),
        ("undo", second, None),
        ("label", second, "tulip"),
    ]


def test_skip_unsure_and_bad_are_kept_apart_from_labels(page: Page, flower_site: Site) -> None:
    seen = press(page, "Space", "u", "x", "1")
    wait_until_saved(page)
    expected = [("skip", None), ("unsure", None), ("bad", None), ("label", "daisy")]
    assert flower_site.stored() == [(a, s, c) for s, (a, c) in zip(seen, expected, strict=True)]
    expect(page.locator("#total")).to_have_text("1 of 90 images labelled")


def test_a_reload_in_the_middle_loses_nothing_and_undo_reaches_past_it(
    page: Page, flower_site: Site
) -> None:
    seen = press(page, "1", "2")
    wait_for_picture(page)
    third = shown(page)
    page.on("dialog", lambda dialog: dialog.accept())  # the browser's, that something is unsaved
    page.keyboard.press("3")
    page.reload()  # perhaps before the server has answered
    wait_for_picture(page)
    wait_until_saved(page)
    assert third != shown(page)
    expect(page.locator("#total")).to_have_text("3 of 90 images labelled")
    press(page, "Backspace")
    assert shown(page) == third
    press(page, "Backspace")
    assert shown(page) == seen[1]
    wait_until_saved(page)
    assert flower_site.stored() == [
        *(("label", s, FLOWERS[i]) for i, s in enumerate([*seen, third])),
        ("undo", third, None),
        ("undo", seen[1], None),
    ]


def test_closed_and_opened_again_it_goes_on(
    serve: Callable[..., Site], flowers: Path, visitor: Visitor
) -> None:
    site = serve(flowers, FLOWERS)
    page = visitor.open(site)
    before = press(page, "1", "2", "3")
    wait_until_saved(page)
    for context in visitor.browser.contexts:
        context.close()
    site.close()

    again = serve(flowers, ())
    page = visitor.open(again)
    expect(page.locator("#total")).to_have_text("3 of 90 images labelled")
    after = press(page, "1")
    wait_until_saved(page)

    assert not set(before) & set(after)
    assert again.stored()[:3] == [("label", s, FLOWERS[i]) for i, s in enumerate(before)]
    assert again.stored()[3:] == [("label", after[0], "daisy")]


def test_a_picture_that_a_browser_keeps_is_not_shown_of_another_file(
    serve: Callable[..., Site], flowers: Path, visitor: Visitor
) -> None:
    site = serve(flowers, FLOWERS)
    page = visitor.open(site)
    name, width = shown(page), page.locator("#picture img").evaluate("image => image.naturalWidth")
    open_review(page)
    thumb = page.locator(f"#tiles [aria-label^='{name}'] img")
    thumb.wait_for()
    page.keyboard.press("r")
    site.close()
    Image.new("RGB", (width + 50, 64)).save(flowers / name)
    serve(flowers, (), port=site.port)
    wide = "(width) => document.querySelector('#picture img')?.naturalWidth === width"
    page.wait_for_function(wide, arg=width + 50)  # of a page that stayed open
    assert shown(page) == name
    open_review(page)
    assert thumb.evaluate("image => image.decode().then(() => image.naturalWidth)") == width + 50
    page.reload()
    wait_for_picture(page)
    assert page.evaluate(wide, width + 50)
    visitor.complaints = [c for c in visitor.complaints if "ERR_CONNECTION_" not in c]


def test_a_file_that_was_changed_behind_its_picture_is_shown_again_before_it_is_labelled(
    page: Page, flower_site: Site, flowers: Path, visitor: Visitor
) -> None:
    name, width = shown(page), page.locator("#picture img").evaluate("image => image.naturalWidth")
    Image.new("RGB", (width + 50, 64)).save(flowers / name)
    page.keyboard.press("1")
    complaint = f"Not saved: daisy ({name}). {name} has changed since it was shown; look at it"
    expect(page.locator("#trouble")).to_contain_text(complaint)
    forget(visitor, "400")
    (other,) = press(page, "2")
    expect(page.locator("#name")).to_have_text(name)
    wait_for_picture(page)
    wide = page.locator("#picture img").evaluate("image => image.naturalWidth")
    assert wide == width + 50
    press(page, "2")
    wait_until_saved(page)
    assert flower_site.stored() == [("label", other, "rose"), ("label", name, "rose")]


def test_labels_pressed_while_the_server_is_dead_reach_the_next_one(
    flowers: Path, visitor: Visitor
) -> None:
    """The command itself, killed from one instruction to the next, and started anew."""
    settings = ("--classes", ",".join(FLOWERS), "--n-init", "10", "--n-query", "5", "--steps", "2")
    with serving(flowers, *settings) as server:
        page = visitor.open_address(server.url)
        seen = press(page, "1", "2", "3", "1", "2", "3")
        wait_until_saved(page)
        page.wait_for_function(FETCHED, arg=9)  # else there is nothing to look at without a server
        server.kill()
        seen += press(page, "1", "2")
        expect(banner(page)).to_contain_text("Not saved yet: 2")
    before = server.url
    with serving(flowers) as server:
        assert server.url == before  # also a bookmark goes on
        wait_until_saved(page)
        expect(page.locator("#total")).to_have_text("8 of 90 images labelled")
        page.context.close()
        code, err = server.stop()
    assert code == 0
    assert "8 labels are saved" in err
    classes = ("daisy", "rose", "tulip", "daisy", "rose", "tulip", "daisy", "rose")
    assert stored(flowers) == [("label", s, c) for s, c in zip(seen, classes, strict=True)]
    forget(visitor, "ERR_CONNECTION_")  # refused or reset


def test_two_annotators_side_by_side_get_different_images(
    visitor: Visitor, flower_site: Site
) -> None:
    pages = {name: visitor.open(flower_site, name) for name in ("anna", "ben")}
    expected = []
    for i in range(8):
        for j, (name, page) in enumerate(pages.items()):
            key = 1 + (i + j) % 3
            expected.append((name, *press(page, str(key)), FLOWERS[key - 1]))
            wait_until_saved(page)
    assert len({image for _, image, _ in expected}) == 16
    assert flower_site.stored("annotator", "images.path", "classes.name") == expected
    press(pages["anna"], "Backspace")  # what ben did last stays
    wait_until_saved(pages["anna"])
    assert flower_site.stored("annotator", "action")[-1] == ("anna", "undo")


def cells(page: Page) -> Any:
    return page.get_by_role("option")


def open_grid(page: Page) -> list[str]:
    page.keyboard.press("g")
    cells(page).first.wait_for()
    return [cell.get_attribute("aria-label") for cell in cells(page).all()]


def test_in_the_grid_a_key_labels_all_that_are_selected(page: Page, flower_site: Site) -> None:
    names = open_grid(page)
    cells(page).nth(1).click()
    cells(page).nth(5).click(modifiers=["Shift"])
    cells(page).nth(3).click()
    cells(page).nth(8).click()
    expect(page.locator("#chosen")).to_contain_text("5 of ")
    page.keyboard.press("2")
    chosen = [names[i] for i in (1, 2, 4, 5, 8)]
    expect(page.locator("#status")).to_have_text("Saved: rose, 5 images")
    for name in chosen:
        expect(cells(page).and_(page.get_by_label(name, exact=True))).to_have_count(0)
    assert flower_site.stored() == [("label", name, "rose") for name in chosen]

    page.keyboard.press("Backspace")
    expect(page.locator("#chosen")).to_contain_text("5 of ")  # still selected, for another class
    page.keyboard.press("1")
    wait_until_saved(page)
    assert flower_site.stored()[5:] == [
        *(("undo", name, None) for name in chosen),
        *(("label", name, "daisy") for name in chosen),
    ]
    page.keyboard.press("g")
    wait_for_picture(page)
    assert shown(page) not in chosen


def test_the_grid_can_be_used_by_keyboard_alone(page: Page, flower_site: Site) -> None:
    names = open_grid(page)
    expect(cells(page).first).to_be_focused()
    for key in ("Space", "ArrowRight", "ArrowRight", "Space", "Shift+ArrowRight"):
        page.keyboard.press(key)
    expect(page.locator("[aria-selected=true]")).to_have_count(3)
    page.keyboard.press("x")
    wait_until_saved(page)
    assert flower_site.stored() == [("bad", names[i], None) for i in (0, 2, 3)]

    expect(cells(page)).to_have_count(48)  # filled up
    page.keyboard.press("ArrowDown")
    page.keyboard.press("a")
    expect(page.locator("[aria-selected=false]")).to_have_count(0)
    page.keyboard.press("Escape")
    expect(page.locator("[aria-selected=true]")).to_have_count(0)
    page.keyboard.press("1")
    expect(page.locator("#status")).to_contain_text("Select images first")
    assert len(flower_site.stored()) == 3


def test_more_than_nine_classes_are_found_by_typing(
    serve: Callable[..., Site], flowers: Path, visitor: Visitor
) -> None:
    site = serve(flowers, MANY)
    page = visitor.open(site)
    seen = press(page, "9")
    for typed, keys, name in (
        ("dah", (), "dahlia"),  # the letters themselves begin it
        ("isY", (), "daisy"),
        ("ubelt", (), "Übeltäter"),
        ("/xyr", (), "xyris"),
        ("l", (), "lily"),  # one that begins so comes before those that have it inside
        ("l", ("ArrowUp", "ArrowUp"), "tulip"),
    ):
        wait_for_picture(page)
        seen.append(shown(page))
        page.keyboard.type(typed)
        for key in keys:
            page.keyboard.press(key)
        expect(page.locator(".best bdi")).to_have_text(name)
        page.keyboard.press("Enter")
        expect(page.locator("#name")).not_to_have_text(seen[-1])
        expect(page.locator("#filter")).to_have_value("")
    page.keyboard.type("/nosuchclass")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    expect(page.locator("#classes button:visible")).to_have_count(len(MANY))
    seen += press(page, "Shift+u", "3")
    wait_until_saved(page)
    names = ["peony", "dahlia", "daisy", "Übeltäter", "xyris", "lily", "tulip", None, "tulip"]
    assert [row[1:] for row in site.stored()] == list(zip(seen, names, strict=True))


STONES = (
    "granite",
    "unakite",
    "xenolith",
    "schist",
    "agate",
    "opal",
    "basalt",
    "flint",
    "jade",
    "slate",
)


def type_class(page: Page, text: str) -> str:
    """Type a class and Enter; return which image it is of."""
    wait_for_picture(page)
    name = shown(page)
    page.keyboard.type(text)
    expect(page.locator("#name")).to_have_text(name)  # nothing was answered by a sign of it
    page.keyboard.press("Enter")
    expect(page.locator("#name")).not_to_have_text(name)
    return name


def test_a_class_whose_name_is_a_key_owns_that_key(
    serve: Callable[..., Site], flowers: Path, visitor: Visitor
) -> None:
    site = serve(flowers, [str(n) for n in range(10)])
    page = visitor.open(site)
    seen = press(page, "5", "0", "9", "1")
    wait_until_saved(page)
    expected = [("label", s, name) for s, name in zip(seen, "5091", strict=True)]
    assert site.stored() == expected
    expect(page.get_by_role("button", name="5 1 labelled")).to_have_attribute(
        "aria-keyshortcuts", "5"
    )


@pytest.mark.parametrize(
    ("classes", "typed", "names"),
    [
        (["1st", "2nd", "3rd", *STONES], ["2nd", "3"], ["2nd", "3rd"]),
        ([str(n) for n in range(13)], ["12", "1"], ["12", "1"]),
    ],
)
def test_what_begins_a_longer_name_is_typed_like_it(
    serve: Callable[..., Site],
    flowers: Path,
    visitor: Visitor,
    classes: list[str],
    typed: list[str],
    names: list[str],
) -> None:
    site = serve(flowers, classes)
    page = visitor.open(site)
    seen = [type_class(page, text) for text in typed]
    seen += press(page, "7")  # nothing begins so
    wait_until_saved(page)
    names = [*names, site.project.classes[7 if "7" in classes else 6]]
    expected = list(zip(seen, names, strict=True))
    assert [row[1:] for row in site.stored()] == expected


def test_classes_are_added_and_renamed_on_the_page_and_labels_go_with_them(
    page: Page, flower_site: Site, visitor: Visitor
) -> None:
    seen = press(page, "1")
    page.get_by_role("button", name="Edit classes and keys").click()
    page.get_by_label("Name of daisy").fill("rose")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#edit-trouble")).to_contain_text("is named twice")
    forget(visitor, "400")
    page.get_by_label("Name of daisy").fill("ox-eye daisy")
    page.get_by_label("New classes").fill("aster\n\n  iris ")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#classes bdi")).to_have_text(
        ["ox-eye daisy", "rose", "tulip", "aster", "iris"]
    )
    expect(page.get_by_role("button", name="ox-eye daisy 1 labelled")).to_be_visible()
    seen += press(page, "5")
    wait_until_saved(page)
    project = flower_site.project
    names = {project.paths[n]: project.classes[k] for n, k in project.labels.items()}
    assert names == dict(zip(seen, ["ox-eye daisy", "iris"], strict=True))


def test_keys_are_chosen_on_the_page_and_kept(
    serve: Callable[..., Site], flowers: Path, visitor: Visitor
) -> None:
    site = serve(flowers, ["cat", "unicorn", "ä"])
    page = visitor.open(site)
    page.get_by_role("button", name="Edit classes and keys").click()
    page.get_by_label("Key of unicorn").fill("c")
    page.get_by_label("Key of cat").fill("c")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#edit-trouble")).to_contain_text("cannot belong to both")
    page.get_by_label("Key of unicorn").fill("U")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Edit classes and keys").click()
    page.get_by_label("Key of unicorn").fill("U")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("button", name="unicorn")).to_have_attribute("aria-keyshortcuts", "u")
    expect(page.get_by_role("button", name="Unsure Shift+U")).to_be_visible()
    seen = press(page, "u", "1", "Shift+U")
    wait_for_picture(page)
    seen.append(shown(page))
    page.evaluate(
        "init => document.body.dispatchEvent(new KeyboardEvent('keydown', init))",
        {"key": "ä", "code": "Quote", "bubbles": True},  # no key of the keyboard here
    )
    expect(page.locator("#name")).not_to_have_text(seen[-1])
    wait_until_saved(page)
    forget(visitor, "400")
    page.context.close()
    site.close()
    site = serve(flowers, ())
    site.project.choose_keys(["cat=c"])
    page = visitor.open(site)
    seen += press(page, "u", "c")
    wait_until_saved(page)
    said = ["unicorn", "cat", None, "ä", "unicorn", "cat"]
    assert [row[1:] for row in site.stored()] == list(zip(seen, said, strict=True))


def test_classes_are_merged_and_removed_on_the_page(
    serve: Callable[..., Site], flowers: Path, visitor: Visitor
) -> None:
    site = serve(flowers, ["daisy", "tulip", "rose", "moss", "fern"])
    page, other = visitor.open(site, "anna"), visitor.open(site, "ben")
    seen = press(page, "1", "2", "3", "4", "5")
    wait_until_saved(page)
    other.context.set_offline(True)  # so that it knows of nothing, and sends when all is changed
    late = press(other, "2", "4", "5")
    page.get_by_role("button", name="Edit classes and keys").click()
    page.get_by_label("Change tulip").select_option("merge into daisy")
    page.get_by_label("Change moss").select_option("remove")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#classes bdi")).to_have_text(["daisy", "rose", "fern"])
    expect(page.get_by_role("button", name="daisy 2 labelled")).to_be_visible()
    expect(page.locator("#total")).to_have_text("4 of 90 images labelled")
    other.context.set_offline(False)
    wait_until_saved(other)
    expect(banner(other)).to_contain_text(f"Not saved: moss ({late[1]}). label: got 3; expected")
    project = site.project
    named = {project.paths[n]: project.classes[label] for n, label in project.labels.items()}
    own = dict(zip(seen, ["daisy", "daisy", "rose", None, "fern"], strict=True))
    theirs = {late[0]: "daisy", late[2]: "fern"}
    assert named == {name: c for name, c in (own | theirs).items() if c}
    press(page, "3")  # the keys are those that are shown
    wait_until_saved(page)
    assert site.stored()[-1][2] == "fern"
    visitor.complaints = [c for c in visitor.complaints if "DISCONNECTED" not in c]
    forget(visitor, "400")


def test_a_key_that_another_window_gave_to_another_class_is_not_taken_blindly(
    visitor: Visitor, flower_site: Site
) -> None:
    page, other = visitor.open(flower_site, "anna"), visitor.open(flower_site, "ben")
    for given, removed in ((["moss", "fern"], None), ([], "rose")):
        page.get_by_role("button", name="Edit classes and keys").click()
        page.get_by_label("New classes").fill("\n".join(given))
        if removed:
            page.get_by_label(f"Change {removed}").select_option("remove")
        page.get_by_role("button", name="Save").click()
        expect(page.locator("#note")).to_be_empty()  # who did it knows
        if not removed:  # what is only new moves no key
            expect(other.locator("#classes bdi")).to_have_count(5)
            expect(other.locator("#note")).to_be_empty()
    expect(other.locator("#classes bdi")).to_have_text(["daisy", "tulip", "moss", "fern"])
    expect(other.locator("#note")).to_contain_text("Keys have changed")
    wait_for_picture(other)
    name = shown(other)
    other.keyboard.press("3")  # was tulip's
    expect(other.locator("#status")).to_contain_text("Nothing was labelled")
    expect(other.locator("#note")).to_be_empty()
    assert shown(other) == name
    press(other, "3")
    wait_until_saved(other)
    assert flower_site.stored() == [("label", name, "moss")]


def test_names_that_begin_with_the_key_of_a_command_are_typed_like_others(
    serve: Callable[..., Site], flowers: Path, visitor: Visitor
) -> None:
    site = serve(flowers, STONES, suggest=True)
    page = visitor.open(site)
    expect(page.get_by_role("button", name="Unsure Shift+U")).to_be_visible()
    seen = []
    for name in STONES[:5]:
        wait_for_picture(page)
        seen.append(shown(page))
        page.keyboard.type(name)
        expect(page.locator("#name")).to_have_text(seen[-1])  # nothing was answered by a letter
        expect(cells(page)).to_have_count(0)
        page.keyboard.press("Enter")
        expect(page.locator("#name")).not_to_have_text(seen[-1])
    seen += press(page, "Shift+X")
    wait_until_saved(page)
    expected = [("label", s, name) for s, name in zip(seen, STONES[:5], strict=False)]
    assert site.stored() == [*expected, ("bad", seen[-1], None)]
    page.keyboard.press("Shift+G")
    cells(page).first.wait_for()


def test_a_name_typed_for_an_image_labels_no_other(
    serve: Callable[..., Site], flowers: Path, visitor: Visitor
) -> None:
    site = serve(flowers, STONES)
    page = visitor.open(site)
    seen = press(page, "1")
    wait_until_saved(page)
    page.reload()  # so that the server alone knows what an undo brings back
    wait_for_picture(page)
    held: list[Route] = []
    page.route("**/api/undo", lambda route: held.append(route))
    page.get_by_role("button", name="Undo").click()
    page.keyboard.type("opa")
    held[0].continue_()
    expect(page.locator("#name")).to_have_text(seen[0])
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("Nothing was labelled: the image changed")
    expect(page.locator("#filter")).to_have_value("")
    assert [row[0] for row in site.stored()] == ["label", "undo"]


def test_a_page_of_another_project_at_the_same_address_writes_nothing(
    serve: Callable[..., Site], flowers: Path, tmp_path: Path, visitor: Visitor
) -> None:
    first = serve(flowers, FLOWERS)
    page = visitor.open(first)
    press(page, "1")
    wait_until_saved(page)
    first.close()
    press(page, "2")
    other = serve(
        write_images(tmp_path / "flowers2" / "flowers", ["x.png", "y.png"]),
        FLOWERS,
        port=first.port,
    )
    page.context.new_page().goto(f"{other.address}?token={TOKEN}")  # gives the old page its cookie
    expect(banner(page)).to_contain_text("skal now serves another folder at this address")
    expect(banner(page)).to_contain_text("Not saved yet: 1")
    press(page, "3")
    page.wait_for_timeout(500)
    assert other.stored() == []
    other.close()
    back = serve(flowers, (), port=first.port)
    wait_until_saved(page)
    assert [row[2] for row in back.stored()] == ["daisy", "rose", "tulip"]
    forget(visitor, "409")
    visitor.complaints = [c for c in visitor.complaints if "ERR_CONNECTION" not in c]


def test_backspace_takes_back_the_own_answer_beside_a_second_window(
    visitor: Visitor, flower_site: Site
) -> None:
    one, other = visitor.open(flower_site), visitor.open(flower_site)
    expect(other.locator("#note")).to_contain_text("“me” is also labelling in another window")
    images = []
    for page in (one, other, one):
        images += press(page, "1")
        wait_until_saved(page)
    press(other, "Backspace")
    wait_until_saved(other)
    assert flower_site.stored()[-1] == ("undo", images[1], None)
    last = flower_site.stored("undoes")[-1][0]
    assert last == 2


def test_a_tab_that_was_closed_is_no_other_window(visitor: Visitor, flower_site: Site) -> None:
    one, other = visitor.open(flower_site), visitor.open(flower_site)
    expect(other.locator("#note")).to_contain_text("also labelling in another window")
    one.goto("about:blank")
    expect(other.locator("#note")).to_have_text("")


def test_in_the_grid_images_drawn_at_random_come_one_by_one(page: Page, flower_site: Site) -> None:
    due = [{"image": 7, "width": 48, "height": 64, "name": "007.png"}]
    state = {"due": 1, "queue": due}

    def answer(route: Route) -> None:
        found = route.fetch().json()
        if len(flower_site.stored()) == 2:
            found["state"] |= state
        route.fulfill(json=found)

    page.route("**/api/actions", answer)
    open_grid(page)
    cells(page).nth(0).click()
    cells(page).nth(1).click()
    page.keyboard.press("1")
    expect(page.locator("#note")).to_contain_text("1 randomly drawn image to label one by one")
    expect(page.locator("#name")).to_have_text("007.png")
    wait_for_picture(page)
    page.unroute("**/api/actions")
    page.keyboard.press("3")
    cells(page).first.wait_for()  # it goes on
    wait_until_saved(page)
    assert flower_site.stored()[-1] == ("label", "007.png", "tulip")


def test_the_end_says_what_comes_next(
    serve: Callable[..., Site], tmp_path: Path, visitor: Visitor
) -> None:
    folder = write_images(tmp_path / "some flowers", [f"{i}.png" for i in range(5)])
    (folder / "9.png").write_bytes(b"no image")
    site = serve(folder, FLOWERS)
    page = visitor.open(site)
    press(page, "1", "2", "u", "x")
    page.keyboard.press("3")
    end = page.locator("#picture")
    expect(end).to_contain_text("No images left: 3 of 5 labelled, 1 unsure, 1 bad, 1 unreadable.")
    expect(end).to_contain_text(f"skal train '{folder}' --out model")
    expect(end).to_contain_text(f"skal export '{folder}' --format folder")
    expect(page.locator("#unreadable")).to_have_text("1 file cannot be read: 9.png")


def test_the_end_is_told_in_the_grid_too(
    serve: Callable[..., Site], tmp_path: Path, visitor: Visitor
) -> None:
    site = serve(write_images(tmp_path / "few", [f"{i}.png" for i in range(5)]), FLOWERS)
    page = visitor.open(site)
    open_grid(page)
    page.keyboard.press("a")
    page.keyboard.press("1")
    expect(page.locator("#picture")).to_contain_text("No images left: 5 of 5 labelled.")
    expect(page.locator("#grid-button")).to_have_attribute("aria-pressed", "false")


def test_a_server_that_hangs_is_told_soon(page: Page, visitor: Visitor) -> None:
    held: list[Route] = []
    page.route("**/api/actions", lambda route: held.append(route))
    seen = press(page, "1")
    expect(page.locator("#status")).to_have_text(f"Saving: daisy ({seen[0]}) …")
    expect(banner(page)).to_contain_text("skal is not responding yet. Not saved yet: 1")
    held[0].continue_()
    expect(page.locator("#status")).to_have_text(f"Saved: daisy ({seen[0]})")
    expect(banner(page)).to_be_hidden()


def test_an_answer_that_skal_fails_at_can_be_set_aside(
    page: Page, flower_site: Site, visitor: Visitor
) -> None:
    def fail(route: Route) -> None:
        if route.request.post_data_json["label"] == 0:
            route.fulfill(status=500, json={"error": "OverflowError"})
        else:
            route.continue_()

    page.route("**/api/actions", fail)
    seen = press(page, "1", "2")
    aside = page.get_by_role("button", name="Discard this answer")
    expect(aside).to_be_hidden()
    aside.click()  # after some tries
    wait_until_saved(page)
    assert flower_site.stored() == [("label", seen[1], "rose")]
    expect(banner(page)).to_contain_text(f"Not saved: daisy ({seen[0]}). It was discarded")
    page.reload()
    expect(banner(page)).to_contain_text(f"Not saved: daisy ({seen[0]})")
    forget(visitor, "500")


def test_the_name_is_shown_and_can_be_changed(page: Page, flower_site: Site) -> None:
    page.get_by_role("button", name="You: me").click()
    page.get_by_label("Each person gets different images").fill("anna b")
    page.keyboard.press("Enter")
    expect(page.locator("#who")).to_have_text("anna b")
    wait_for_picture(page)
    press(page, "1")
    wait_until_saved(page)
    assert flower_site.stored("annotator") == [("anna b",)]


def test_single_keys_can_be_turned_off(page: Page, flower_site: Site) -> None:
    page.keyboard.press("?")
    page.get_by_label("use single-key shortcuts").uncheck()
    page.keyboard.press("Escape")
    name = shown(page)
    for key in ("1", "u", "x", " ", "g", "?"):
        page.keyboard.press(key)
    expect(page.locator("#name")).to_have_text(name)
    page.reload()
    wait_for_picture(page)
    page.keyboard.press("1")
    page.get_by_role("button", name="rose").click()
    expect(page.locator("#name")).not_to_have_text(name)
    wait_until_saved(page)
    assert flower_site.stored() == [("label", name, "rose")]


def test_a_range_can_shrink_again_and_fingers_make_one(flower_site: Site, visitor: Visitor) -> None:
    page = visitor.open(flower_site)
    open_grid(page)
    for key in ("Space", *["Shift+ArrowRight"] * 5, *["Shift+ArrowLeft"] * 3):
        page.keyboard.press(key)
    expect(page.locator("[aria-selected=true]")).to_have_count(3)
    page.keyboard.press("Escape")
    cells(page).nth(1).click()
    touch = {"pointerType": "touch", "bubbles": True}
    cells(page).nth(4).dispatch_event("pointerdown", touch)
    expect(page.locator("[aria-selected=true]")).to_have_count(4)
    cells(page).nth(4).dispatch_event("pointerup", touch)
    cells(page).nth(4).dispatch_event("click")
    expect(page.locator("[aria-selected=true]")).to_have_count(4)


def write_large_images(place: Path, size: tuple[int, int]) -> Path:
    folder = write_images(place / "cells", ["a.png", "b.png"])
    for path in folder.iterdir():
        Image.effect_noise(size, 60).save(path, "JPEG")
    return folder


def test_an_image_can_be_looked_at_closely(
    serve: Callable[..., Site], tmp_path: Path, visitor: Visitor
) -> None:
    folder = write_large_images(tmp_path, (3000, 2000))
    site = serve(folder, FLOWERS)
    page = visitor.open(site)
    page.keyboard.press("z")
    image = page.get_by_role("img", name="at full size")
    expect(image).to_be_visible()
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") == 3000
    assert image.evaluate("image => image.clientWidth") == 3000
    frame = page.locator("#picture")
    before = frame.evaluate("frame => frame.scrollLeft")
    width = frame.evaluate("frame => frame.clientWidth")
    assert before == pytest.approx((3000 - width) / 2, abs=1)  # the middle first
    frame.evaluate("frame => { frame.onscroll = () => frame.dataset.at = frame.scrollLeft }")
    page.keyboard.press("ArrowRight")
    expect(frame).to_have_attribute("data-at", re.compile("."))
    assert float(frame.get_attribute("data-at") or 0) > before
    page.keyboard.press("Escape")
    expect(image).to_have_count(0)
    page.keyboard.press("z")
    name = shown(page)
    page.keyboard.press("2")  # answers as always, and the next one is whole again
    expect(page.locator("#name")).not_to_have_text(name)
    expect(image).to_have_count(0)
    wait_until_saved(page)
    assert site.stored() == [("label", name, "rose")]


def test_an_answer_from_before_the_last_key_brings_nothing_back(
    page: Page, flower_site: Site
) -> None:
    names = open_grid(page)
    posts: list[Route] = []
    page.route("**/api/actions", lambda route: posts.append(route))
    for cell, n_posts in ((1, 1), (0, 1)):  # the second waits for the first
        cells(page).nth(cell).click()
        page.keyboard.press("2")
        expect(page.locator("#status")).to_contain_text("Saving")
        assert len(posts) == n_posts
    old: list[tuple[Route, Any]] = []
    page.route("**/api/grid", lambda route: old.append((route, old or route.fetch())))
    posts[0].continue_()
    while len(old) < 1 or len(posts) < 2:
        page.wait_for_timeout(20)
    posts[1].continue_()  # when the server has told of its images, and not yet of this answer
    wait_until_saved(page)
    while len(old) < 2:
        page.wait_for_timeout(20)
    old[0][0].fulfill(response=old[0][1])
    page.wait_for_timeout(200)
    page.keyboard.press("g")
    wait_for_picture(page)
    assert shown(page) not in (names[0], names[1])
    page.unroute_all(behavior="ignoreErrors")


def test_a_close_look_is_not_a_smaller_one(visitor: Visitor, flower_site: Site) -> None:
    page = visitor.open(flower_site)
    picture = page.locator("#picture img")
    width = picture.evaluate("image => image.clientWidth")
    page.keyboard.press("z")
    expect(page.locator("#status")).to_have_text("The image is already shown at full size.")
    assert picture.evaluate("image => image.clientWidth") == width


def test_a_close_look_shows_all_pixels_where_the_picture_had_fewer(
    serve: Callable[..., Site], tmp_path: Path, visitor: Visitor
) -> None:
    folder = write_large_images(tmp_path, (1500, 1000))
    page = visitor.open(serve(folder, FLOWERS))
    page.set_viewport_size({"width": 2400, "height": 1600})
    picture = page.locator("#picture img")
    natural = "image => image.decode().then(() => image.naturalWidth)"
    whole = "image => [image.clientWidth, image.clientHeight]"
    size = picture.evaluate(whole)
    assert picture.evaluate(natural) == 1024 and size[0] > 1500
    page.keyboard.press("z")
    expect(picture).to_have_attribute("alt", re.compile("at full size"))
    assert picture.evaluate(natural) == 1500
    assert picture.evaluate(whole) == size
    page.keyboard.press("z")
    assert picture.evaluate(natural) == 1024
    page.route("**/full/**", lambda route: route.fulfill(status=404))
    page.keyboard.press("Space")
    expect(page.locator("#name")).to_have_text("b.png")
    wait_until_saved(page)
    page.keyboard.press("z")
    expect(page.locator("#status")).to_have_text("The image could not be loaded at full size.")
    assert picture.evaluate(natural) == 1024
    assert all("404" in complaint for complaint in visitor.complaints)
    visitor.complaints.clear()


def test_in_the_grid_escape_is_the_grids_after_a_close_look(
    serve: Callable[..., Site], tmp_path: Path, visitor: Visitor
) -> None:
    folder = write_large_images(tmp_path, (3000, 2000))
    page = visitor.open(serve(folder, FLOWERS))
    page.keyboard.press("z")
    open_grid(page)
    page.keyboard.press("a")
    expect(page.locator("[aria-selected=true]")).to_have_count(2)
    page.keyboard.press("Escape")
    expect(page.locator("[aria-selected=true]")).to_have_count(0)


def test_who_opens_the_page_without_its_token_is_told_what_to_do(
    visitor: Visitor, flower_site: Site
) -> None:
    page = visitor.browser.new_context().new_page()
    page.goto(flower_site.address)
    expect(page.get_by_role("heading")).to_have_text("This page needs its whole address")


HOSTILE_CLASSES = (
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(2)>',
    "{{ 7*7 }}",
    "' onclick='alert(3)",
    "__proto__",
)
HOSTILE_FILES = (
    "<img src=x onerror=alert(4)>.png",
    '"onload="alert(5).png',
    "${alert(6)} {{8*8}} &lt;b&gt;.png",
    "javascript:alert(7).png",
    "a%2e%2e%2fb#c?d.png",
    "ünï çødé 花.png",
)


def test_hostile_names_are_shown_as_they_are(
    serve: Callable[..., Site], tmp_path: Path, visitor: Visitor
) -> None:
    folder = write_images(tmp_path / "<script>alert(0)<!--&amp;", HOSTILE_FILES)
    site = serve(folder, HOSTILE_CLASSES)
    page = visitor.open(site)
    page.on("dialog", lambda dialog: visitor.complaints.append(f"a dialog: {dialog.message}"))
    assert page.get_by_role("heading", level=1).inner_text() == folder.name
    assert folder.name in page.title()
    assert page.locator("#classes bdi").all_inner_texts() == list(HOSTILE_CLASSES)
    seen = press(page, "1", "2", "3", "4")
    wait_for_picture(page)
    assert page.locator("#picture img").get_attribute("alt") == f"Image {shown(page)}"
    seen.append(shown(page))
    open_grid(page)
    page.keyboard.press("a")
    page.keyboard.press("5")
    expect(page.locator("#status")).to_contain_text("Saved: __proto__")
    assert page.locator("body script, svg, [onerror], [onload], [onclick]").count() == 0
    assert {(path, name) for _, path, name in site.stored()} >= set(
        zip(seen, HOSTILE_CLASSES, strict=True)
    )
    assert {path for _, path, _ in site.stored()} == set(HOSTILE_FILES)


def test_without_a_connection_answers_are_kept_and_sent_later(
    page: Page, flower_site: Site, visitor: Visitor
) -> None:
    first = press(page, "1")
    wait_until_saved(page)
    page.wait_for_load_state("networkidle")
    page.context.set_offline(True)
    seen = press(page, "2", "3", "Backspace", "1")
    expect(banner(page)).to_contain_text("No connection to skal")
    expect(banner(page)).to_contain_text("Not saved yet: 4")
    expect(page.locator("#status")).to_contain_text("Saving: daisy")  # not "Saved", as the first
    expect(page.locator("#total")).to_have_text("1 of 90 images labelled")
    assert len(flower_site.stored()) == 1

    page.context.set_offline(False)
    wait_until_saved(page)
    expect(banner(page)).to_be_hidden()
    assert flower_site.stored() == [
        ("label", first[0], "daisy"),
        ("label", seen[0], "rose"),
        ("label", seen[1], "tulip"),
        ("undo", seen[1], None),
        ("label", seen[1], "daisy"),
    ]
    forget(visitor, "ERR_INTERNET_DISCONNECTED")


def test_an_answer_whose_acknowledgement_got_lost_is_stored_once(
    page: Page, flower_site: Site, visitor: Visitor
) -> None:
    lost = []

    def lose(route: Route) -> None:
        if len(lost) in (0, 2):
            route.fetch()  # it reaches the server, its answer does not come back
            route.abort()
        else:
            route.continue_()
        lost.append(route.request.post_data_json)

    page.route(re.compile("/api/(actions|undo)"), lose)
    seen = press(page, "1", "Backspace")
    wait_until_saved(page)
    assert flower_site.stored() == [("label", seen[0], "daisy"), ("undo", seen[0], None)]
    assert lost[0] == lost[1]
    assert lost[2] == lost[3]
    forget(visitor, "ERR_FAILED")


def test_answers_that_were_not_sent_outlive_a_reload(
    page: Page, flower_site: Site, visitor: Visitor
) -> None:
    warned = []
    page.on("dialog", lambda dialog: (warned.append(dialog.type), dialog.accept()))
    page.route("**/api/actions", lambda route: route.abort())
    seen = press(page, "1", "2")
    expect(banner(page)).to_contain_text("Not saved yet: 2")
    page.reload()
    expect(banner(page)).to_contain_text("Not saved yet: 2")
    page.unroute("**/api/actions")
    wait_until_saved(page)
    assert warned == ["beforeunload"]
    assert flower_site.stored() == [("label", seen[0], "daisy"), ("label", seen[1], "rose")]
    forget(visitor, "ERR_FAILED")


def test_an_answer_that_is_refused_is_told_and_its_image_comes_again(
    page: Page, flower_site: Site, visitor: Visitor
) -> None:
    page.route(
        "**/api/actions", lambda route: route.fulfill(status=400, json={"error": "no such class"})
    )
    seen = press(page, "1")
    expect(banner(page)).to_contain_text(f"Not saved: daisy ({seen[0]}). no such class.")
    page.unroute("**/api/actions")
    following = shown(page)  # what one looks at stays
    page.wait_for_load_state("networkidle")
    again = press(page, "2", "3")
    assert again == [following, seen[0]]
    wait_until_saved(page)
    expect(banner(page)).to_be_visible()  # until it is read
    page.get_by_role("button", name="Close", exact=True).click()
    expect(banner(page)).to_be_hidden()
    assert flower_site.stored() == [("label", following, "rose"), ("label", seen[0], "tulip")]
    forget(visitor, "400")


def test_a_server_with_another_token_is_told_from_a_lost_one(
    page: Page, flower_site: Site, visitor: Visitor
) -> None:
    page.context.clear_cookies()
    press(page, "1")
    expect(banner(page)).to_contain_text("open the address that it printed")
    page.context.new_page().goto(f"{flower_site.address}?token={TOKEN}")
    wait_until_saved(page)
    assert len(flower_site.stored()) == 1
    forget(visitor, "403")


def test_a_picture_that_is_not_there_yet_cannot_be_labelled(
    page: Page, flower_site: Site, visitor: Visitor
) -> None:
    held: list[Route] = []
    page.route("**/images/*", lambda route: held.append(route))
    page.reload()
    page.locator("#picture img").wait_for()
    page.keyboard.press("1")
    expect(page.locator("#status")).to_have_text("The image has not loaded yet.")
    for route in held:
        route.continue_()
    page.unroute("**/images/*")
    seen = press(page, "2")
    wait_until_saved(page)
    assert flower_site.stored() == [("label", seen[0], "rose")]


def test_a_key_that_is_held_down_is_one_answer(page: Page, flower_site: Site) -> None:
    name = shown(page)
    for _ in range(5):
        page.keyboard.down("1")
    page.keyboard.up("1")
    expect(page.locator("#name")).not_to_have_text(name)
    wait_until_saved(page)
    assert flower_site.stored() == [("label", name, "daisy")]


def test_buttons_do_what_keys_do_and_give_the_keyboard_back(page: Page, flower_site: Site) -> None:
    seen = [shown(page)]
    page.get_by_role("button", name="rose").click()
    expect(page.locator("#name")).not_to_have_text(seen[0])
    seen += press(page, "Space")  # skips; it does not press the button again
    wait_for_picture(page)
    seen.append(shown(page))
    page.get_by_role("button", name="Unsure").click()
    expect(page.locator("#name")).not_to_have_text(seen[-1])
    wait_for_picture(page)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#name")).to_have_text(seen[-1])
    wait_until_saved(page)
    actions = ["label", "skip", "unsure", "undo"]
    assert [(a, path) for a, path, _ in flower_site.stored()] == list(
        zip(actions, [*seen, seen[-1]], strict=True)
    )


def test_the_tabulator_reaches_every_control(page: Page, flower_site: Site) -> None:
    reached = []
    page.keyboard.press("Tab")
    while (name := page.evaluate("document.activeElement.textContent.trim()")) not in reached:
        reached.append(name)
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none"  # one sees where one is
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            break
    for name in ("Grid", "Help", "Undo", "Skip", "Unsure", "Bad image", *FLOWERS):
        assert any(name in text for text in reached)
    name = shown(page)
    page.get_by_role("button", name="tulip").focus()
    page.keyboard.press("Space")
    expect(page.locator("#name")).not_to_have_text(name)
    wait_until_saved(page)
    assert flower_site.stored() == [("label", name, "tulip")]


def test_help_opens_and_closes_by_key_and_keeps_keys_to_itself(
    page: Page, flower_site: Site
) -> None:
    page.keyboard.press("?")
    help_page = page.get_by_role("dialog", name="Help")
    expect(help_page).to_be_visible()
    expect(help_page).to_contain_text("press it again to undo earlier answers")
    page.keyboard.press("1")
    page.keyboard.press("Escape")
    expect(help_page).to_be_hidden()
    assert not flower_site.stored()


def test_the_guess_is_shown_on_demand_alone_and_stored_when_it_was_seen(
    serve: Callable[..., Site], flowers: Path, visitor: Visitor
) -> None:
    site = serve(flowers, FLOWERS, suggest=True)
    page = visitor.open(site)
    page.route(
        "**/api/guess/*", lambda route: route.fulfill(json={"label": 1, "probability": 0.834})
    )
    press(page, "1")
    expect(page.locator("#why")).to_have_text("Picked before there is a model (herding).")
    assert not any("/api/guess/" in url for url in visitor.requests)
    page.keyboard.press("s")
    expect(page.locator("#guess")).to_have_text("The model predicts rose (83%).")
    assert (
        page.locator("#classes .best, #classes [aria-pressed=true], #classes :focus").count() == 0
    )
    press(page, "3")
    expect(page.locator("#guess")).to_have_text("")
    press(page, "3")
    wait_until_saved(page)
    assert site.stored("guess") == [(None,), (1,), (None,)]


def test_probabilities_and_the_two_classes_are_told_when_asked_for_and_gone_with_the_next_image(
    serve: Callable[..., Site], flowers: Path, visitor: Visitor
) -> None:
    site = serve(flowers, FLOWERS, suggest=True, kind="strategy")
    images = np.array(sorted(site.project.paths))
    proba = np.tile(np.array([0.06, 0.5, 0.44], np.float32), (len(images), 1))
    site.project.guesses = Guesses(images, proba, images[:, None].astype(np.float32), 10, "x")
    page = visitor.open(site)
    by, why = "Picked by the strategy (auto)", page.locator("#why")
    rose, unknown = page.locator("#classes button", has_text="rose"), "no similar image has a label"
    expect(why).to_have_text(f"{by}; the model is undecided between two classes; {unknown} yet.")
    expect(rose).to_have_text(re.compile("rose0$"))
    page.keyboard.press("s")
    expect(why).to_contain_text("undecided between rose and tulip")
    expect(rose).to_have_text(re.compile("rose50%0$"))
    press(page, "2")
    expect(rose).to_have_text(re.compile("rose1$"))
    expect(why).not_to_contain_text("tulip")


def two_groups(site: Site) -> list[str]:
    """Let the network know two groups of images; return the names of the left one's."""
    project = site.project
    images = np.array(sorted(project.paths))
    left = images % 2 == 0
    spread = np.random.default_rng(0).normal(size=(len(images), 2)).astype(np.float32)
    spread[:, 0] = 0.3 * spread[:, 0] + np.where(left, -9, 9)
    proba = np.where(left[:, None], [0.9, 0.05, 0.05], [0.1, 0.5, 0.4]).astype(np.float32)
    project.guesses = Guesses(images, proba, spread, 10, "x")
    return [project.paths[n] for n in images[left].tolist()]


def draw_around(page: Page, *corners: tuple[float, float]) -> None:
    """Draw on the map; corners are shares of its width and height."""
    box = page.locator("#points").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in (*places[1:], places[0]):
        page.mouse.move(*place, steps=4)
    page.mouse.up()


def test_what_is_drawn_around_on_the_map_is_labelled_in_the_grid(
    page: Page, flower_site: Site
) -> None:
    left = two_groups(flower_site)
    page.keyboard.press("m")
    expect(page.locator("#map-state")).to_have_text("90 images, by PCA")
    page.keyboard.press("1")
    expect(page.locator("#status")).to_contain_text("Draw around images")
    halves = []
    for x in (0.02, 0.5):  # which side a group is on, no PCA says
        draw_around(page, (x, 0.02), (x + 0.46, 0.02), (x + 0.46, 0.98), (x, 0.98))
        expect(page.locator("#grid [role=option]").first).to_be_visible()
        halves.append(
            page.locator("#grid [role=option]").evaluate_all(
                "nodes => nodes.map((node) => node.getAttribute('aria-label'))"
            )
        )
        page.keyboard.press("m")
        expect(page.locator("#map-state")).to_have_text("90 images, by PCA")
    names = flower_site.project.paths
    rest = set(names.values()) - {names[n] for n in flower_site.project.reserve}
    groups = [sorted(rest & set(left)), sorted(rest - set(left))]
    assert sorted(map(sorted, halves)) == sorted(groups)
    page.keyboard.press("Home")
    page.keyboard.press("m")
    expect(page.locator("#single")).to_be_visible()
    assert not flower_site.stored()


def test_the_map_tells_what_lies_under_the_pointer_and_is_used_by_keys(
    page: Page, flower_site: Site
) -> None:
    left = two_groups(flower_site)
    name = press(page, "2")[0]
    wait_until_saved(page)
    page.keyboard.press("m")
    legend = page.locator("#legend")
    expect(legend).to_have_text("rose 1none 89")
    page.get_by_label("Colour by").select_option("guess")
    said = "daisy" if name in left else "rose"  # of others nobody asked what it says
    expect(legend).to_have_text(f"{said} 1none 89")
    page.get_by_label("Colour by").select_option("unsure")
    expect(legend).to_have_text("sureunsure")
    page.locator("#points").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.wait_for_timeout(400)  # it is counted when no key comes
    expect(page.locator("#status")).to_contain_text("images in the circle")
    inside = int(page.locator("#status").inner_text().split()[0])
    assert 0 < inside < 60
    page.keyboard.press("Enter")
    expect(page.locator("#grid [role=option]").first).to_be_visible()
    names = page.locator("#grid [role=option]").evaluate_all(
        "nodes => nodes.map((node) => node.getAttribute('aria-label'))"
    )
    assert 0 < len(names) <= inside
    assert name not in names  # it has a label
    page.keyboard.press("m")
    box = page.locator("#points").bounding_box()
    card = page.locator("#map-card")
    for step in range(200):  # until the pointer comes upon a point
        x, y = step % 20 / 20, (step // 20 + 0.5) / 10
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        if card.is_visible():
            break
    expect(card.locator("img")).to_be_visible()
    expect(card).to_contain_text(re.compile("no label|rose"))


def test_guesses_are_not_offered_unless_wanted(page: Page, visitor: Visitor) -> None:
    page.keyboard.press("s")
    press(page, "1")
    expect(page.get_by_role("button", name="Predict")).to_be_hidden()
    assert not any("/api/guess/" in url for url in visitor.requests)


def test_the_model_s_accuracy_comes_with_interval_origin_and_curve(
    page: Page, flower_site: Site
) -> None:
    expect(page.locator("#accuracy")).to_have_text("Not known yet")

    n = 40

    def answer(route: Route) -> None:
        state = route.fetch().json()
        points = [(20, 0.6, 0.4, 0.8), (40, 0.8, 0.65, 0.9), (90, 0.912, 0.8, 0.96)]
        names = ("n_labeled", "accuracy", "low", "high")
        state["curve"] = [dict(zip(names, point, strict=True)) for point in points]
        state["accuracy"] = {"value": 0.912, "low": 0.8, "high": 0.96, "n": n, "n_known": 20}
        state |= {"round": 3, "done_in_round": 17, "round_size": 50, "learner": "training"}
        state |= {"n_labeled": 90, "n_test": n}
        text = "not reached: about 130 more labels at this rate (40 to 900)"
        state["enough"] = {"wanted": 0.95, "is_reached": False, "text": text}
        route.fulfill(json=state)

    page.route("**/api/next", answer)
    page.reload()
    expect(page.locator("#round")).to_have_text("17 of 50, round 3")
    expect(page.locator("#accuracy")).to_have_text("91% correct (80% to 96%)")
    source = page.locator("#source")
    expect(source).to_contain_text("40 answers to randomly drawn images")
    expect(source).to_contain_text("It was trained on 20 of your 90 labels")
    expect(page.locator("#learner")).to_contain_text("training")
    curve = page.get_by_role(
        "img", name="first 60% at 20 labels, last 91% at 90 labels, best 91% at 90 labels"
    )
    points = curve.locator("polyline").get_attribute("points").split()
    x, y = zip(*(map(float, point.split(",")) for point in points), strict=True)
    assert (x[1] - x[0]) / (x[2] - x[0]) == pytest.approx(20 / 70)
    assert (y[1] - y[0]) / (y[2] - y[0]) == pytest.approx(0.2 / 0.312)
    assert y[2] < y[0]
    told = "Target 95%: not reached: about 130 more labels at this rate (40 to 900)."
    expect(page.locator("#enough")).to_have_text(told)
    height = float(curve.locator(".wanted").get_attribute("y1"))
    assert (height - y[2]) / (y[1] - y[2]) == pytest.approx(-0.038 / 0.112)
    # of few answers no figure is made, of some no figure alone
    n = 14
    expect(page.locator("#accuracy")).to_have_text("Between 80% and 96% correct")
    n = 2
    expect(page.locator("#accuracy")).to_have_text("Too early to say")
    expect(source).to_contain_text("2 of 10 answers so far")
    expect(curve).to_have_count(0)


PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}


def test_on_a_phone_everything_fits_and_fingers_hit(
    serve: Callable[..., Site], flowers: Path, visitor: Visitor
) -> None:
    site = serve(flowers, [*MANY, "a very long name of a class " * 3], suggest=True)
    page = visitor.open(site, **PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for button in page.get_by_role("button").all():
        assert button.bounding_box()["height"] >= 44
    for control in ("Undo", "Skip", "Unsure", "Bad image", "Predict"):  # without scrolling
        box = page.get_by_role("button", name=control).bounding_box()
        assert 0 < box["y"] < box["y"] + box["height"] <= 740
    assert page.locator("#status").bounding_box()["y"] < 740
    name = shown(page)
    page.get_by_role("button", name="rose").tap()
    expect(page.locator("#name")).not_to_have_text(name)
    page.get_by_role("button", name="Grid").tap()
    chosen = cells(page).nth(2).get_attribute("aria-label")
    cells(page).nth(2).tap()
    page.get_by_role("button", name="iris").tap()
    expect(page.locator("#status")).to_have_text(f"Saved: iris ({chosen})")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert site.stored() == [("label", name, "rose"), ("label", chosen, "iris")]


def test_on_a_phone_held_across_the_image_is_large(visitor: Visitor, flower_site: Site) -> None:
    across = {"viewport": {"width": 844, "height": 390}, "is_mobile": True, "has_touch": True}
    page = visitor.open(flower_site, **across)
    assert page.locator("#picture").bounding_box()["height"] > 200
    page.get_by_role("button", name="Help").tap()
    expect(page.get_by_role("dialog", name="Help")).to_contain_text("Hold an image to select")
    expect(page.get_by_role("dialog", name="Help").get_by_role("table")).to_be_hidden()


SIZES = [
    (320, 256),  # 1280 by 1024 at four times its size
    (320, 568),
    (360, 740),
    (640, 360),  # 1280 by 720 at twice its size
    (700, 400),
    (768, 479),
    (768, 1024),
    (844, 390),
    (1280, 800),
]
THIRTY = [f"class number {n}" for n in range(1, 31)]
LONG = ["a very long name of a class " * 3 + str(n) for n in range(12)]
LAYOUT = """() => {
  const inside = (node) => {
    const {top, bottom, left, right, height} = node.getBoundingClientRect();
    const isInWidth = left >= -1 && right <= innerWidth + 1;
    return height > 0 && isInWidth && top >= -1 && bottom <= innerHeight + 1;
  };
  const root = document.documentElement;
  const actions = [...document.querySelectorAll('#actions button')];
  const shown = actions.filter((button) => button.checkVisibility());
  const buttons = [...document.querySelectorAll('#classes button')];
  const hit = (node) => {
    const {left, top, width, height} = node.getBoundingClientRect();
    const there = document.elementFromPoint(left + width / 2, top + Math.min(height / 2, 20));
    return node.contains(there);
  };
  return {
    scrolls: root.scrollHeight > innerHeight + 1 || root.scrollWidth > innerWidth,
    picture: inside(document.querySelector('#picture img')),
    height: document.querySelector('#picture').clientHeight,
    classes: buttons.filter(hit).length,
    cut: buttons.filter((button) => button.scrollHeight > button.clientHeight + 1).length,
    actions: shown.filter((button) => !inside(button)).length,
  };
}"""


@pytest.mark.parametrize("classes", [FLOWERS, THIRTY, LONG], ids=["three", "thirty", "long"])
def test_image_and_classes_are_on_the_screen_at_every_size(
    serve: Callable[..., Site], flowers: Path, visitor: Visitor, classes: Sequence[str]
) -> None:
    site = serve(flowers, classes)
    page = visitor.open(site)
    for width, height in SIZES:
        page.set_viewport_size({"width": width, "height": height})
        page.locator("#classes button").first.scroll_into_view_if_needed()
        page.evaluate("document.querySelector('aside').scrollTop = 0")
        found = page.evaluate(LAYOUT)
        assert not found["scrolls"], (width, height)
        assert found["picture"] and found["height"] >= 60, (width, height, found)
        assert found["classes"] >= 1, (width, height, found)
        assert (found["cut"], found["actions"]) == (0, 0), (width, height, found)
        last = page.locator("#classes button").last
        last.scroll_into_view_if_needed()
        name = shown(page)
        last.click()
        page.wait_for_function(
            "name => document.querySelector('#name').textContent !== name", arg=name
        )
        wait_for_picture(page)
        assert page.evaluate(LAYOUT)["picture"], (width, height)  # what is labelled next is seen
    wait_until_saved(page)
    assert {row[2] for row in site.stored()} == {site.project.classes[-1]}


def test_of_thirty_classes_several_are_seen_beside_a_large_image(
    serve: Callable[..., Site], flowers: Path, visitor: Visitor
) -> None:
    page = visitor.open(serve(flowers, THIRTY), viewport={"width": 1280, "height": 800})
    assert page.evaluate(LAYOUT)["classes"] >= 6


def test_of_few_classes_a_phone_gives_the_room_to_the_image(
    visitor: Visitor, flower_site: Site
) -> None:
    page = visitor.open(flower_site, viewport={"width": 320, "height": 640}, has_touch=True)
    page.wait_for_function("() => document.querySelector('#picture').clientHeight > 200")
    assert page.evaluate(LAYOUT)["classes"] == 3


BESIDE = """(id) => {
  const node = document.querySelector(id);
  node.scrollIntoView({block: 'nearest'});
  const {left, right, top, bottom, height} = node.getBoundingClientRect();
  const dock = document.querySelector('#dock').getBoundingClientRect();
  const root = document.documentElement;
  const scrolls = root.scrollHeight > innerHeight + 1 || root.scrollWidth > innerWidth;
  const isIn = left >= -1 && right <= innerWidth + 1 && top >= 0 && bottom <= dock.top + 1;
  return {isIn, isLarge: height >= 90, scrolls};
}"""


@pytest.mark.parametrize("size", [(320, 640), (640, 400), (700, 420), (900, 420), (1280, 800)])
def test_map_and_review_with_its_filters_have_room_above_the_buttons(
    visitor: Visitor, flower_site: Site, size: tuple[int, int]
) -> None:
    page = visitor.open(flower_site, viewport=dict(zip(("width", "height"), size, strict=True)))
    page.keyboard.press("m")
    expect(page.locator("#points")).to_be_focused()
    wanted = {"isIn": True, "isLarge": True, "scrolls": False}
    assert page.evaluate(BESIDE, "#map-frame") == wanted
    assert page.evaluate(BESIDE, "#colour-by") == wanted | {"isLarge": False}
    page.keyboard.press("r")
    page.get_by_text("Filter and order").click()
    expect(page.locator("#wanted")).to_be_visible()
    assert page.evaluate(BESIDE, "#disputed-button")["scrolls"] is False
    assert page.evaluate("document.querySelector('#tiles').clientHeight") >= 90


@pytest.mark.parametrize("size", [(360, 500), (700, 400)])
@pytest.mark.parametrize("name", ["Help", "Edit classes and keys", "Export and train"])
def test_dialogs_open_at_their_start(
    visitor: Visitor, flower_site: Site, size: tuple[int, int], name: str
) -> None:
    page = visitor.open(flower_site, viewport=dict(zip(("width", "height"), size, strict=True)))
    page.get_by_role("button", name=name).click()
    dialog = page.locator("dialog[open]")
    if name == "Export and train":
        expect(dialog).to_contain_text("0 images have a label.")
    assert dialog.evaluate("dialog => dialog.scrollTop") == 0
    expect(dialog.get_by_role("button", name="Close")).to_be_in_viewport()
    if name == "Help":
        expect(dialog.get_by_role("button", name="Close")).to_be_focused()


def test_in_the_grid_a_close_look_is_told_to_be_elsewhere(page: Page) -> None:
    open_grid(page)
    expect(page.get_by_role("button", name="Zoom")).to_be_hidden()
    page.keyboard.press("z")
    expect(page.locator("#status")).to_contain_text("leave this view first")


def test_a_grid_that_was_opened_early_fills_up(page: Page) -> None:
    answers = []

    def answer(route: Route) -> None:
        found = route.fetch().json()
        if not answers:  # no batch is computed yet
            found["images"] = found["images"][:3]
        answers.append(found)
        route.fulfill(json=found)

    page.route("**/api/grid", answer)
    assert len(open_grid(page)) in (3, 48)  # it may have been filled by now
    cells(page).nth(1).click()
    expect(cells(page)).to_have_count(48)
    assert cells(page).nth(1).get_attribute("aria-selected") == "true"  # nothing moved
    expect(page.locator("[aria-selected=true]")).to_have_count(1)


def test_forced_colours_keep_what_colours_say(visitor: Visitor, flower_site: Site) -> None:
    page = visitor.open(flower_site, forced_colors="active")
    bar = page.locator("#bar")
    bar.evaluate("bar => { bar.max = 2; bar.value = 1 }")
    picture = Image.open(io.BytesIO(bar.screenshot())).convert("RGB")
    middle = picture.height // 2
    left, right = (picture.getpixel((picture.width * n // 4, middle)) for n in (1, 3))
    assert left != right
    button = page.locator("#grid-button")
    plain = button.evaluate("node => getComputedStyle(node).backgroundColor")
    open_grid(page)
    assert button.evaluate("node => getComputedStyle(node).backgroundColor") != plain
    cells(page).nth(1).click()
    borders = [
        cells(page).nth(n).evaluate("node => getComputedStyle(node).borderTopColor") for n in (0, 1)
    ]
    assert borders[0] != borders[1]


CONTRAST = """() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const paint = (colour) => {
    canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor;
      if (!/, 0\\)$/.test(colour)) return paint(colour);
    }
    return [255, 255, 255];
  };
  const light = (rgb) => {
    const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = rgb.map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  return [...document.querySelectorAll('p, button, kbd, label, h1, h2, span, td, th, bdi')]
    .filter((node) => node.checkVisibility() && node.textContent.trim())
    .map((node) => {
      const [a, b] = [paint(getComputedStyle(node).color), behind(node)].map(light);
      return [node.textContent.trim(), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
    });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(
    visitor: Visitor, flower_site: Site, scheme: str
) -> None:
    page = visitor.open(flower_site, color_scheme=scheme)
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, re.findall(r"\d+", back)[:3])) / 3
    assert (brightness > 128) is (scheme == "light")
    page.route("**/api/actions", lambda route: route.fulfill(status=400, json={"error": "oh"}))
    page.keyboard.press("g")
    cells(page).first.click()
    page.keyboard.press("1")
    expect(banner(page)).to_be_visible()
    page.keyboard.press("?")
    poor = [(text, ratio) for text, ratio in page.evaluate(CONTRAST) if ratio < 4.5]
    assert not poor  # 4.5 is what WCAG AA asks of text
    forget(visitor, "400")


def reviewed(page: Page) -> list[str]:
    """What the tiles on the screen say, in order."""
    return page.locator("#tiles [role=option]").evaluate_all(
        """tiles => tiles.sort((a, b) => a.dataset.index - b.dataset.index)
            .map((tile) => tile.getAttribute("aria-label"))"""
    )


def open_review(page: Page) -> None:
    page.keyboard.press("r")
    expect(page.locator("#tiles [role=option][aria-label]").first).to_be_visible()


def test_review_shows_all_answers_and_one_key_changes_one(page: Page, flower_site: Site) -> None:
    press(page, "1", "2", "u")
    wait_until_saved(page)
    before = flower_site.stored()
    open_review(page)
    said = reviewed(page)
    assert [text.split(": ")[1] for text in said[:4]] == ["unsure", "rose", "daisy", "no answer"]
    assert flower_site.stored() == before  # looking writes nothing
    page.keyboard.press("ArrowRight")
    page.keyboard.press("3")
    wait_until_saved(page)
    changed = said[1].split(": ")[0]
    assert flower_site.stored() == [*before, ("label", changed, "tulip")]
    expect(page.locator(f'#tiles [aria-label="{changed}: tulip"]')).to_have_count(1)
    page.keyboard.press("Backspace")
    expect(page.locator(f'#tiles [aria-label="{changed}: rose"]')).to_have_count(1)
    assert flower_site.stored("action")[-1] == ("undo",)
    assert flower_site.project.labels[flower_site.project.numbers[changed]] == 1


def test_shift_click_changes_many_at_once_and_one_undo_takes_all_back(
    page: Page, flower_site: Site
) -> None:
    open_review(page)
    tiles = page.locator("#tiles")
    tiles.locator("[data-index='1']").click()
    tiles.locator("[data-index='6']").click(modifiers=["Shift"])
    expect(page.locator("#found")).to_have_text("6 of 90 images selected")
    page.keyboard.press("2")
    wait_until_saved(page)
    assert [row[::2] for row in flower_site.stored()] == [("label", "rose")] * 6
    expect(page.locator("#found")).to_have_text("90 images")  # none is selected any more
    page.keyboard.press("Backspace")
    expect(page.locator("#status")).to_have_text("Undone: rose, 6 images")
    assert len(flower_site.stored()) == 12 and not flower_site.project.labels


def test_review_is_filtered_sorted_and_searched(page: Page) -> None:
    press(page, "1", "2", "1")
    wait_until_saved(page)
    open_review(page)
    page.locator("#filters summary").click()
    page.locator("#wanted [name=class]").select_option("daisy")
    expect(page.locator("#found")).to_have_text("2 images")
    page.get_by_role("button", name="All images").click()
    expect(page.locator("#found")).to_have_text("90 images")
    page.locator("#wanted [name=name]").fill("07")
    expect(page.locator("#found")).to_have_text("11 images")
    page.locator("#wanted [name=sort]").select_option("name")
    expect(page.locator("#tiles [data-index='0']")).to_have_attribute(
        "aria-label", "007.png: no answer"
    )


def test_notes_of_other_tools_stand_under_the_image_and_in_the_review(
    page: Page, flower_site: Site, tmp_path: Path
) -> None:
    expect(page.locator("#noted")).to_be_hidden()
    name = shown(page)
    (tmp_path / "issues.csv").write_text(f",is_dark_issue,dark_score\n{name},True,0.1\n")
    import_into(flower_site.project.root, tmp_path / "issues.csv")
    page.reload()
    expect(page.locator("#noted")).to_have_text("cleanvision: dark (0.10)")
    open_review(page)
    page.locator("#filters summary").click()
    page.locator("#wanted [name=notes]").select_option("noted")
    expect(page.locator("#found")).to_have_text("1 image · 1 with notes")
    assert reviewed(page) == [f"{name}: no answer, cleanvision: dark (0.10)"]


def test_the_marked_image_is_changed_only_while_it_is_seen(page: Page, flower_site: Site) -> None:
    page.set_viewport_size({"width": 640, "height": 500})
    open_review(page)
    marked = page.locator("#tiles [data-index='0']")
    assert marked.evaluate("tile => getComputedStyle(tile).outlineStyle") == "solid"
    page.locator("#tiles").evaluate("tiles => { tiles.scrollTop = 900 }")
    expect(marked).to_have_count(0)
    page.keyboard.press("2")
    expect(page.locator("#status")).to_contain_text("Select images first")
    page.locator("#tiles").evaluate("tiles => { tiles.scrollTop = 0 }")
    expect(marked).to_have_count(1)
    page.keyboard.press("1")
    wait_until_saved(page)
    assert flower_site.stored() == [("label", "000.png", "daisy")]


def test_review_continues_where_one_image_was_opened(page: Page, flower_site: Site) -> None:
    page.set_viewport_size({"width": 640, "height": 500})
    open_review(page)
    page.locator("#tiles [tabindex='0']").focus()
    for _ in range(50):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#tiles [data-index='50']")).to_have_attribute(
        "aria-label", re.compile("050")
    )
    page.keyboard.press("Enter")
    expect(page.locator("#name")).to_have_text("050.png")
    press(page, "3")
    page.keyboard.press("r")
    expect(page.locator("#tiles [tabindex='0']")).to_be_focused()
    page.keyboard.press("2")  # the next one; 050 is the first by now
    wait_until_saved(page)
    assert [row[1:] for row in flower_site.stored()] == [("050.png", "tulip"), ("051.png", "rose")]


def test_only_tiles_on_the_screen_exist(page: Page) -> None:
    page.set_viewport_size({"width": 640, "height": 500})
    open_review(page)
    assert page.locator("#tiles [role=option]").count() < 60
    page.keyboard.press("Tab")
    page.locator("#tiles [tabindex='0']").focus()
    page.keyboard.press("End")
    expect(page.locator("#tiles [data-index='89'][aria-label]")).to_be_visible()
    expect(page.locator("#tiles [data-index='0']")).to_have_count(0)


def test_a_click_on_a_last_answer_goes_back_to_it(page: Page, flower_site: Site) -> None:
    first, _ = press(page, "1", "2")
    wait_until_saved(page)
    waiting = shown(page)
    page.get_by_role("button", name=f"{first}: daisy").click()
    expect(page.locator("#name")).to_have_text(first)
    page.keyboard.press("Space")  # leaves it as it is
    expect(page.locator("#name")).to_have_text(waiting)
    assert len(flower_site.stored()) == 2
    page.get_by_role("button", name=f"{first}: daisy").click()
    page.keyboard.press("3")
    wait_until_saved(page)
    assert flower_site.stored()[-1] == ("label", first, "tulip")
    expect(page.get_by_role("button", name=f"{first}: tulip")).to_be_visible()


def test_a_tile_opens_by_enter_and_review_fits_a_phone(page: Page) -> None:
    page.set_viewport_size({"width": 320, "height": 640})
    open_review(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    name = reviewed(page)[0].split(": ")[0]
    page.locator("#tiles [tabindex='0']").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#name")).to_have_text(name)
    expect(page.locator("#review")).to_be_hidden()


def test_a_link_of_one_s_own_keeps_the_name_whatever_the_address_says(
    visitor: Visitor, flower_site: Site
) -> None:
    token = Tokens(TOKEN).of("anna")
    page = visitor.open_address(f"{flower_site.address}?token={token}&as=anna")
    expect(page.locator("#own")).to_have_text("You: anna")
    expect(page.locator("#who")).to_be_hidden()
    press(page, "1")
    wait_until_saved(page)
    page.goto(f"{flower_site.address}?as=ben")
    wait_for_picture(page)
    press(page, "2")
    wait_until_saved(page)
    assert flower_site.stored("annotator") == [("anna",), ("anna",)]


def test_a_dispute_is_settled_by_one_key(visitor: Visitor, flower_site: Site) -> None:
    for who, keys in (("anna", "11"), ("ben", "12")):
        for image, key in enumerate(keys):
            answer = {"action": "label", "image": image, "label": int(key) - 1}
            flower_site.service.act(who, [answer])
    page = visitor.open(flower_site, "cleo")
    expect(page.locator("#answers")).to_have_text(
        "anna 2 · ben 2 · 1 disputed: settle them in the review"
    )
    open_review(page)
    page.get_by_role("button", name="Disputed labels").click()
    tile = page.get_by_role("option", name="001.png: daisy / rose, anna: daisy, ben: rose")
    expect(tile).to_be_visible()
    expect(page.locator("#found")).to_have_text("1 image · 1 disputed")
    expect(page.locator("#tiles [role=option]")).to_have_count(1)
    page.keyboard.press("1")
    wait_until_saved(page)
    expect(page.get_by_role("option", name="001.png: daisy")).to_be_visible()
    page.get_by_role("button", name="Disputed labels").click()
    expect(page.locator("#found")).to_have_text("0 images")
    assert flower_site.stored("annotator", "source", "images.path")[-1] == (
        "cleo",
        "settled",
        "001.png",
    )
    expect(page.locator("#answers")).to_have_text("anna 2 · ben 2 · cleo 1")


def test_labels_are_exported_by_a_button_that_says_before_what_it_does(
    page: Page, flower_site: Site, visitor: Visitor
) -> None:
    seen = press(page, "1", "2", "3")
    wait_until_saved(page)
    page.get_by_role("button", name="Export and train").click()
    dialog = page.get_by_role("dialog", name="Export and train")
    expect(dialog).to_contain_text("3 images have a label.")
    table = flower_site.folder.with_name("flowers-labels.csv")
    expect(dialog.get_by_text(str(table))).to_be_visible()
    told = dialog.get_by_role("status")
    assert not table.exists()

    dialog.get_by_role("radio", name="csv").check()
    dialog.get_by_role("button", name="Start").click()
    expect(told).to_have_text(f"Done. {table}: 3 labelled images")
    assert all(name in table.read_text() for name in seen)

    # what is there stays: the next goes elsewhere, and where another program was faster, nowhere
    before = table.read_text()
    second = table.with_name("flowers-labels-2.csv")
    expect(dialog.get_by_text(str(second))).to_be_visible()
    second.write_text("mine")
    dialog.get_by_role("button", name="Start").click()
    expect(told).to_contain_text("Failed")
    third = str(table.with_name("flowers-labels-3.csv"))
    expect(dialog.get_by_text(third, exact=True)).to_be_visible()
    forget(visitor, "400")
    assert (table.read_text(), second.read_text()) == (before, "mine")

    dialog.get_by_role("radio", name="folder").check()
    dialog.get_by_role("button", name="Start").click()
    out = flower_site.folder.with_name("flowers-labeled")
    expect(told).to_have_text(f"Done. {out}: 3 labelled images")
    assert {path.parent.name for path in out.rglob("*.png")} == set(FLOWERS)
    page.keyboard.press("Escape")
    press(page, "1")
    wait_until_saved(page)
    assert len(flower_site.stored()) == 4


VIEWS: dict[str, Sequence[str]] = {
    "label": (),
    "guess": ("s",),
    "grid": ("g",),
    "review": ("r",),
    "doubts": ("r", "#doubt-button"),
    "filters": ("r", "#filters summary"),
    "map": ("m",),
    "help": ("?",),
    "classes": ("#edit-button",),
    "name": ("[data-command=who]",),
    "finish": ("#finish-button",),
}


HEIGHTS = {320: 800, 1280: 800, 3840: 2160}


@pytest.mark.parametrize(("width", "scheme"), [(320, "light"), (1280, "dark"), (3840, "light")])
def test_no_view_has_a_fault_that_axe_finds(
    serve: Callable[..., Site], flowers: Path, visitor: Visitor, width: int, scheme: Any
) -> None:
    site = serve(flowers, FLOWERS, suggest=True)
    two_groups(site)
    page = visitor.open(
        site, viewport={"width": width, "height": HEIGHTS[width]}, color_scheme=scheme
    )
    press(page, "1", "2", "u")
    wait_until_saved(page)
    told = []
    for name, steps in VIEWS.items():
        page.reload()
        wait_for_picture(page)
        for step in steps:
            if len(step) == 1:
                page.keyboard.press(step)
            else:
                page.locator(step).click()
        page.wait_for_timeout(300)
        told += [f"{name}: {fault}" for fault in faults(page)]
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        if wide > 0:
            told.append(f"{name}: {wide} px wider than the screen")
    assert not told, "\n".join(told)
