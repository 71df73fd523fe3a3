"""Small corrections of the pages that MkDocs makes."""  # noqa: INP001 - a hook of MkDocs, not a package

import re
from typing import Any

# Docstrings name other objects as Sphinx does, :class:`~package.Name`; Markdown knows only the backquotes.
ROLE = re.compile(r":(?:class|meth|func|mod|data|attr|exc):<code>~?([^<]*)</code>")


def on_page_content(html: str, **_: Any) -> str:
    """Leave the name of a Sphinx role and drop the role."""
    return ROLE.sub(r"<code>\1</code>", html)
