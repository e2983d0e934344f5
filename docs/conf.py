"""The site: ``sphinx-build -W -c docs . build/site``.

Its source is the repository's root, so that links between documents, results and examples are the
same there and on the site.
"""

import inspect
import re
from pathlib import Path
from typing import Any

from skal import __version__ as release
from skal.comparisons.config import GRID_SETTINGS
from skal.runs.config import SETTINGS

__all__ = ["release"]

project = "skal"
copyright = "2026, the skal developers"
root_doc = "docs/index"
include_patterns = ["docs/**", "benchmarks/*.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"]
exclude_patterns = ["docs/site", "docs/conf.py"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

myst_heading_anchors = 3
smartquotes = False  # two hyphens are an option, no dash
default_role = "code"  # what numpydoc calls names of parameters
add_module_names = False
autodoc_typehints = "none"  # the docstrings say what is taken
autodoc_member_order = "bysource"
napoleon_use_rtype = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = "skal"
html_static_path = ["site/static"]
html_css_files = ["skal.css"]
html_extra_path = ["site/root"]
html_copy_source = False
html_use_index = False
html_domain_indices = False
html_show_sphinx = False

EVERY = {**GRID_SETTINGS, **SETTINGS}
"""All settings, which have a page of their own."""
LINK = "**settings", "    Any of the other :doc:`settings </docs/settings>`."


ACCESSIBLE = {
    'role="heading">': 'role="heading" aria-level="2">',
    '<aside class="sidebar-drawer">': '<aside class="sidebar-drawer" aria-label="Pages">',
    "<pre>": '<pre tabindex="0">',  # what scrolls is reached by the keyboard
    'docutils container">': 'docutils container" tabindex="0">',
    '<th class="head"><p></p></th>': "<td></td>",
    '<div id="search-results"></div>': '<h1>Search</h1><div id="search-results"></div>',
}
"""What the theme writes, and what people who do not see the page, or use no mouse, need."""


def make_accessible(app: Any, _error: Exception | None) -> None:
    """Put `ACCESSIBLE` into all pages."""
    for path in Path(app.outdir).rglob("*.html"):
        text = path.read_text()
        for written, wanted in ACCESSIBLE.items():
            text = text.replace(written, wanted)
        path.write_text(text)


def list_references(
    _app: Any, _what: str, _name: str, _obj: Any, _options: Any, lines: list[str]
) -> None:
    """Make a list of a docstring's sources: footnotes of MyST's blocks are not found."""
    for number, line in enumerate(lines):
        line = re.sub(r"\[(\d+)\]_", r"[\1]", line)
        lines[number] = re.sub(r"^\.\. \[(\d+)\]", r"\1.", line)


def shorten_docstring(
    _app: Any, _what: str, _name: str, obj: Any, _options: Any, lines: list[str]
) -> None:
    """Replace the settings among the parameters by a link to their page."""
    if not _takes_settings(obj):
        return
    kept: list[str] = []
    skipped = False
    for line in lines:
        if not line.startswith((" ", ".")) and line:
            skipped = line.partition(" : ")[0] in _further(obj)
            if skipped and LINK[0] not in kept:
                kept += LINK
        if not skipped:
            kept.append(line)
    lines[:] = kept


def shorten_signature(
    _app: Any, _what: str, _name: str, obj: Any, _options: Any, _signature: Any, returned: Any
) -> tuple[str, Any] | None:
    """Replace the settings in a signature likewise."""
    if not _takes_settings(obj):
        return None
    signature = inspect.signature(obj)
    kept = [p for name, p in signature.parameters.items() if name not in _further(obj)]
    settings = inspect.Parameter("settings", inspect.Parameter.VAR_KEYWORD)
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in [*kept, settings]]
    empty = inspect.Signature.empty
    return str(signature.replace(parameters=bare, return_annotation=empty)), returned


def _takes_settings(obj: Any) -> bool:
    return getattr(obj, "__name__", "") in ("run", "compare", "ActiveLearner")


def _further(obj: Any) -> set[str]:
    """Return the settings that a function takes by `**settings` alone."""
    function = obj.__init__ if inspect.isclass(obj) else inspect.unwrap(obj)
    return EVERY.keys() - function.__code__.co_varnames[: function.__code__.co_argcount]


def setup(app: Any) -> None:
    """Connect the above."""
    app.connect("autodoc-process-docstring", list_references, priority=90)
    app.connect("autodoc-process-docstring", shorten_docstring, priority=100)
    app.connect("autodoc-process-signature", shorten_signature)
    app.connect("build-finished", make_accessible)
