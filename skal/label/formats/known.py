"""Files that many people have and that hold no class an image, or not as text: named as such."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

_TO_CSV = "save the table as 'CSV UTF-8'"
_HEADS: Mapping[bytes, str] = {
    rb"PK\x03\x04": f"a workbook of Excel or an archive; {_TO_CSV}, or unpack it",
    rb"\xd0\xcf\x11\xe0": f"a workbook of an old Excel; {_TO_CSV}",
    rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd": "packed; unpack it",
    rb"SQLite format 3\0": "a database; write its table as CSV",
    rb"\x80[\x02-\x05]": "a pickle, which is never opened, for it may run anything; write a CSV",
    rb"\x93NUMPY": "an array of NumPy; write a CSV of paths and labels",
    rb"\x89HDF": "HDF5; write a CSV of paths and labels",
    rb"\s*(<\?xml[^>]*>\s*)?<annotations\b": "CVAT's XML; export 'ImageNet' or 'Datumaro' there",
    rb"\s*(<\?xml[^>]*>\s*)?<annotation\b": "Pascal VOC's XML, which has boxes in one image",
    rb"\s*<": "XML or HTML",
    rb"\d+( -?\d*\.\d+){4,}\s*(\n|$)": "of YOLO's lines of boxes in one image",
}
_KEYS: Mapping[tuple[str, ...], str] = {
    ("imagePath", "shapes"): "LabelMe's JSON, which has shapes in one image",
    ("columns", "data"): "pandas' JSON as split; write it by to_json(orient='records')",
    ("version", "tags", "shapes"): "CVAT's JSON; export 'ImageNet' or 'Datumaro' there",
    ("data_row", "projects"): "Labelbox's JSON; write a CSV of paths and labels",
    ("file_name", "objects"): "Hugging Face's table of boxes, not of classes",
    ("imagegcsuri", "boundingboxannotations"): "Vertex AI's lines of boxes, not of classes",
    ("imagegcsuri", "classificationannotations"): "Vertex AI's lines of several classes an image",
    ("filename", "region_shape_attributes"): "VGG Image Annotator's CSV; export its JSON",
}


def named_by_head(content: bytes) -> str:
    """Return what a file is by its first bytes, "" where nothing is known."""
    head = content[:512]
    found = next((told for pattern, told in _HEADS.items() if re.match(pattern, head)), "")
    is_marked = head.startswith((b"\xff\xfe", b"\xfe\xff")) and head[2:4] != b"\0\0"
    if not found and not is_marked and b"\0" in head.partition(b"\n")[0][:64]:
        return "no text in UTF-8, nor in UTF-16 with its mark; in a spreadsheet " + _TO_CSV
    return found


def named_by_keys(names: Collection[str]) -> str:
    """Return what a file is by names that it has, "" where nothing is known."""
    small = {name.lower() for name in names}
    fits = (told for keys, told in _KEYS.items() if small.issuperset(map(str.lower, keys)))
    return next(fits, "")


def is_by_columns(document: Mapping[str, Any]) -> bool:
    """Tell whether JSON is as pandas writes a table by default: of each column its cells by row."""
    cells = [*document.values()]
    is_table = len(cells) > 1 and all(isinstance(one, dict) and one for one in cells)
    return is_table and all(one.keys() == cells[0].keys() for one in cells)
