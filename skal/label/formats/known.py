"""Common files that cannot be imported, identified so that errors can name them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

_TO_CSV = "save the table as 'CSV UTF-8'"
_HEADS: Mapping[bytes, str] = {
    rb"PK\x03\x04": f"an Excel workbook or an archive; {_TO_CSV}, or unpack it",
    rb"\xd0\xcf\x11\xe0": f"an old Excel workbook; {_TO_CSV}",
    rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd": "compressed; unpack it",
    rb"SQLite format 3\0": "a database; export its table as CSV",
    rb"\x80[\x02-\x05]": "a pickle, which may run any code and is never opened; write a CSV",
    rb"\x93NUMPY": "a NumPy array; write a CSV of paths and labels",
    rb"\x89HDF": "HDF5; write a CSV of paths and labels",
    rb"\s*(<\?xml[^>]*>\s*)?<annotations\b": "CVAT's XML; export 'ImageNet' or 'Datumaro' there",
    rb"\s*(<\?xml[^>]*>\s*)?<annotation\b": "Pascal VOC's XML with boxes in one image",
    rb"\s*<": "XML or HTML",
    rb"\d+( -?\d*\.\d+){4,}\s*(\n|$)": "a YOLO file with boxes in one image",
}
_KEYS: Mapping[tuple[str, ...], str] = {
    ("imagePath", "shapes"): "LabelMe's JSON with shapes in one image",
    ("columns", "data"): "pandas' JSON as split; write it with to_json(orient='records')",
    ("version", "tags", "shapes"): "CVAT's JSON; export 'ImageNet' or 'Datumaro' there",
    ("data_row", "projects"): "Labelbox's JSON; write a CSV of paths and labels",
    ("file_name", "objects"): "Hugging Face's table of boxes, not classes",
    ("imagegcsuri", "boundingboxannotations"): "Vertex AI's JSON lines with boxes, not classes",
    (
        "imagegcsuri",
        "classificationannotations",
    ): "Vertex AI's lines, several classes per image",
    ("filename", "region_shape_attributes"): "VGG Image Annotator's CSV; export its JSON",
}


def named_by_head(content: bytes) -> str:
    """Return what a file is by its first bytes, "" if unknown."""
    head = content[:512]
    found = next((name for pattern, name in _HEADS.items() if re.match(pattern, head)), "")
    is_marked = head.startswith((b"\xff\xfe", b"\xfe\xff")) and head[2:4] != b"\0\0"
    if not found and not is_marked and b"\0" in head.partition(b"\n")[0][:64]:
        return "neither UTF-8 text nor UTF-16 with a byte order mark; in a spreadsheet " + _TO_CSV
    return found


def named_by_keys(names: Collection[str]) -> str:
    """Return what a file is by its names of columns or keys, "" if unknown."""
    small = {name.lower() for name in names}
    fits = (name for keys, name in _KEYS.items() if small.issuperset(map(str.lower, keys)))
    return next(fits, "")


def is_by_columns(document: Mapping[str, Any]) -> bool:
    """Return whether JSON is a table as pandas writes it by default, by column and row."""
    cells = [*document.values()]
    is_table = len(cells) > 1 and all(isinstance(one, dict) and one for one in cells)
    return is_table and all(one.keys() == cells[0].keys() for one in cells)
