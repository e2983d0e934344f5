"""A text from elsewhere means the right image, or none."""

from __future__ import annotations

import random
from collections.abc import Callable
from urllib.parse import quote

import pytest

from skal.datasets.addresses import Addresses, Located, UnclearAddressError, one_root

ROOT = "/home/ada/photos/flowers"
N_IMPORTS = 10_000


@pytest.mark.parametrize(
    ("paths", "address", "meant"),
    [
        (["0.png", "day2/0.png"], "day2/0.png", "day2/0.png"),
        (["0.png", "day2/0.png"], "/data/local-files/?d=day2/0.png", "day2/0.png"),
        (["0.png", "day2/0.png"], "/data/local-files/?d=flowers/day2/0.png", "day2/0.png"),
        (["0.png", "day2/0.png"], "/data/local-files/?d=photos/flowers/0.png", "0.png"),
        (["0.png"], "/data/local-files/?d=weeds/0.png", None),
        (["0.png"], f"{ROOT}/0.png", "0.png"),
        (["0.png"], "./0.png", "0.png"),
        (["0.png"], "../weeds/0.png", None),
        (["cam1/0.png"], "s3://bucket/flowers/cam2/0.png", None),
        (["cam1/0.png", "cam2/0.png"], "s3://bucket/flowers/cam2/0.png", "cam2/0.png"),
        (["cam1/0.png", "cam2/0.png"], "0.png", None),
        (["cam1/0.png", "cam2/1.png"], "1.png", "cam2/1.png"),
        (["cam1/0.png", "cam2/1.png"], "cam1/1.png", None),
        (["a/0012.png"], "0012", "a/0012.png"),
        (["a/0012.png", "a/0012.jpg"], "0012", None),
        (["a/0012.png", "a/0012.jpg"], "a/0012.jpg", "a/0012.jpg"),
        (["new rose.png"], "https://host/images/new%20rose.png?x=1", "new rose.png"),
        (["50%20off.png"], "50%20off.png", "50%20off.png"),
        (["new rose.png"], "images\\new rose.png", "new rose.png"),
        (["rose (1).png"], "/data/upload/3/0a1b2c3d-rose_1.png", "rose (1).png"),
        (
            ["0a1b2c3d-rose.png", "rose.png"],
            "/data/upload/3/0a1b2c3d-rose.png",
            "0a1b2c3d-rose.png",
        ),
        (["0a1b2c3d-rose.png", "rose.png"], "0a1b2c3d-rose.png", "0a1b2c3d-rose.png"),
        (["rose.png"], "0a1b2c3d-rose.png", None),
        (["Ros\u00e9.png"], "Rose\u0301.png", "Ros\u00e9.png"),
        (["0.png"], "", None),
        (["a/ 0.png", "a/0.png"], " 0.png", "a/ 0.png"),
        (["a/ 0.png", "b/ 0.png", "0.png"], " 0.png", None),
        (["a/0.png"], " 0.png ", "a/0.png"),
        (["x/a.png", "y/b.png"], "AmlDatastore://y/a.png", None),
        (["1.png", "b/2.png"], " b/1.png", None),
        (["1.png", "b c/2.png"], "b%20c/1.png", None),
        (["a.png", "c.png"], " https://h/a.png?to=/c.png", "a.png"),
        (["cat s/1.png", "dog s/1.png"], "s3://b/cat%20s/1.png", "cat s/1.png"),
        (["cat s/1.png", "dog s/1.png"], "cat%20s/1.png", "cat s/1.png"),
        (["a/1.png", "b/1.png"], " a/1.png", "a/1.png"),
        (["a.png", "a#1.png"], "/data/imgs/a#1.png", "a#1.png"),
        (["a.png"], "/data/imgs/a#1.png", None),
        (["a.png", "a#1.png"], "s3://b/a#1.png", "a#1.png"),
        (["a.png"], "s3://b/a#1.png", None),
        (["stack.tif"], "https://h/stack.tif#2", None),
        (["stack.tif#1", "stack.tif#2"], "https://h/stack.tif#2", "stack.tif#2"),
        (["stack.tif#1", "stack.tif#2"], "/data/imgs/stack.tif#2", "stack.tif#2"),
        (["a.png"], "https://h/a.png#top", "a.png"),
        (["img 1.png", "img_1.png"], "/data/upload/3/12345678-img_1.png", None),
        # signs of addresses that are a part of a name
        (["x?y.png", "x.png"], "s3://b/x?y.png", "x?y.png"),
        (["x.png"], "s3://b/x?y.png", None),
        (["x.png"], "gs://b/x.png?generation=7", "x.png"),
        (["x.png"], "https://h/x?y.png", None),
        (["x.png"], "https://h/x#1.png", None),
        (["x#1.png", "x.png"], "https://h/x#1.png", "x#1.png"),
        (["c#d/0.png", "0.png"], "AmlDatastore://store/c#d/0.png", "c#d/0.png"),
        (["a#1.png", "a.png"], f"file://{ROOT}/a#1.png", "a#1.png"),
        (["x#1.png", "x.png"], "/data/local-files/?d=flowers/x#1.png", "x#1.png"),
        (["x.png"], "/data/local-files/?d=flowers/x#1.png", None),
        (["a+b.png"], "/data/local-files/?d=flowers/a+b.png", "a+b.png"),
        (["a+b.png", "a b.png"], "/data/local-files/?d=flowers/a+b.png", None),
        (["a b.png"], "/data/local-files/?d=flowers/a+b.png", "a b.png"),
        # decoded once, and never where it says otherwise as it stands
        (["e%20f/x.png", "e f/y.png"], "https://h/flowers/e%2520f/x.png", "e%20f/x.png"),
        (["e%20f/x.png", "e f/y.png"], f"{ROOT}/e%20f/x.png", "e%20f/x.png"),
        (["e%20f/x.png", "e f/x.png"], "s3://b/e%20f/x.png", None),
        (["sub/a%20b.png", "a b.png"], "a%20b.png", None),
        # a suffix says that nothing is left out behind it
        (["x.jpg.png"], "x.jpg", None),
        (["x.v2.png"], "x.v2", "x.v2.png"),
        # what contradicts a folder is not one of several that are meant
        (["a/0.png", "b/a/0.png"], "/mnt/images/a/0.png", "a/0.png"),
        (["0.png", "b/0.png"], "s3://bucket/0.png", "0.png"),
        (["1.png", "sub/1.png"], "1", "1.png"),
        (["a/1.png", "b/a/1.png"], "a/1", "a/1.png"),
        (["a.b.png", "flowers/a.b.png"], "flowers//a.b.png", "flowers/a.b.png"),
        # what lies above is clear by the root's own name alone
        (["0.png"], "../flowers/0.png", "0.png"),
        (["0.png"], "..\\flowers\\0.png", "0.png"),
        (["0.png"], "../0.png", None),
        (["b/0.png", "a/0.png"], "a/../b/0.png", "b/0.png"),
    ],
)
def test_what_an_address_means(paths: list[str], address: str, meant: str | None) -> None:
    addresses = Addresses(paths, ROOT)
    if meant is None:
        with pytest.raises(UnclearAddressError):
            addresses.find(address)
    else:
        assert addresses.find(address) == meant


def test_what_is_written_alike_is_unclear_by_any_address() -> None:
    addresses = Addresses(["a/?.png", "b/1.png"], alike={"a/?.png": ["a/X.png", "a/Y.png"]})
    for text in ("a/?.png", "?.png", "?", "s3://bucket/a/%3F.png"):
        with pytest.raises(UnclearAddressError, match=r"may be any of 'a/X\.png', 'a/Y\.png'"):
            addresses.find(text)
    assert addresses.find("1.png") == "b/1.png"


def test_an_unclear_address_names_its_candidates() -> None:
    with pytest.raises(UnclearAddressError, match=r"'0\.png' may be any of 'a/0\.png', 'b/0\.png'"):
        Addresses(["b/0.png", "a/0.png"]).find("0.png")


def test_texts_of_one_folder_put_it_at_one_place() -> None:
    addresses = Addresses(["0.png", "1.png"], ROOT)

    def located(*texts: str) -> list[Located]:
        return [addresses.locate(text) for text in texts]

    assert one_root(located("s3://bucket/roses/0.png", "s3://bucket/roses/1.png", "1.png"))
    for texts in (
        ("s3://bucket/roses/0.png", "s3://bucket/weeds/1.png"),
        ("s3://bucket/weeds/0.png", "s3://bucket/flowers/1.png"),
    ):
        assert not one_root(located(*texts)) and not one_root(located(*texts[::-1]))


def test_texts_of_one_file_leave_folders_out_or_do_not() -> None:
    addresses = Addresses(["0.png", "a/0.png", "a/1.png", "b/2.png", "3.png"], ROOT)

    def told(*texts: str) -> str:
        found = [addresses.locate(text) for text in texts]
        assert addresses.contradiction(found[::-1]) == addresses.contradiction(found)
        return addresses.contradiction(found)

    assert told("1.png", "2.png", "3.png") == told("a/0.png", "0.png", "b/2") == ""
    assert told("1", "3") == told("data/a/0.png", "data/0.png") == ""
    assert (
        told("1.png", "b/2.png")
        == "leaves folders of 'a/1.png' out, and not those of 'b/2.png', in"
    )
    assert told("1.png", "data/3.png").startswith("leaves folders of 'a/1.png' out, and not")
    for text in ("0.png", "0"):
        assert told("1.png", text).endswith("out, and '0.png' may be in several, in")
    assert told("data/3.png", "other/0.png").startswith("names images of several folders")


def test_the_roots_own_name_in_front_is_in_front_of_all() -> None:
    paths = ["0.png", "a/2.png", "flowers/0.png", "flowers/1.png"]
    addresses = Addresses(paths, "/data/flowers")

    def told(*texts: str) -> str:
        found = [addresses.locate(text) for text in texts]
        assert addresses.contradiction(found[::-1]) == addresses.contradiction(found)
        return addresses.contradiction(found)

    assert told("flowers/a/2.png", "flowers/0.png") == (
        "begins the path of 'a/2.png' with the folder itself, and then 'flowers/0.png' may be "
        "'0.png' or 'flowers/0.png', in"
    )
    assert told("flowers/a/2.png", "flowers/1.png") == told("a/2.png", "flowers/0.png") == ""
    assert told("flowers/a/2.png", "flowers/flowers/0.png") == ""


def made_up(rng: random.Random) -> tuple[list[str], list[str], str]:
    """Make a disk with equal names in several folders, and the part of it that is the root."""
    names = ["0.png", "1.png", "new rose.png", "0a1b2c3d-0.png", "caf\u00e9 50%.jpg"]
    folders = ["", "a/", "b/", "day 2/", "a/b/", "b/a/", "a/day 2/"]
    roots = ["x/flowers", "x/weeds", "y/roses"]
    disk = {f"{root}/{rng.choice(folders)}{rng.choice(names)}" for root in roots for _ in range(8)}
    root = rng.choice(roots)
    return sorted(disk), [path[len(root) + 1 :] for path in disk if path.startswith(root)], root


def way_of_writing(rng: random.Random) -> Callable[[str], str]:
    """Choose how a tool writes where a file of the disk is, from one of the folders above it on."""
    n_cut = rng.randrange(2)

    def below(path: str) -> str:
        return "/".join(path.split("/")[n_cut:])

    ways: list[Callable[[str], str]] = [
        lambda path: f"/disk/{path}",
        lambda path: f"s3://bucket/{below(path)}",
        lambda path: f"https://host/{quote(below(path))}?v=2",
        lambda path: f"/data/local-files/?d={quote(below(path))}",
        lambda path: f"C:/photos/{below(path)}".replace("/", "\\"),
        below,
        lambda path: f"gs://bucket/{quote(below(path))}",
    ]
    return rng.choice(ways)


def test_a_stray_space_makes_no_other_folder() -> None:
    addresses = Addresses(["a.png", "b.png"], ROOT)
    assert one_root([addresses.locate("data/a.png"), addresses.locate(" data/b.png")])


def test_no_made_up_import_means_a_wrong_image() -> None:
    n_taken = 0
    for seed in range(N_IMPORTS):
        rng = random.Random(seed)
        disk, paths, root = made_up(rng)
        write = way_of_writing(rng)
        rows = [*rng.sample(disk, rng.randint(1, 4)), f"{root}/{rng.choice(paths)}"]
        if rng.random() < 0.5:
            rows = [row for row in rows if row.startswith(root)]
        rng.shuffle(rows)
        addresses = Addresses(paths, f"/disk/{root}")
        try:
            found = [addresses.locate(write(row)) for row in rows]
        except UnclearAddressError:
            continue  # nothing of it is taken in
        if not one_root(found):
            continue
        n_taken += 1
        assert [f"{root}/{one.path}" for one in found] == rows, (seed, rows, paths)
    assert n_taken > N_IMPORTS / 4
