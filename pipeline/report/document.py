"""The HTML that all pages have in common: one file, nothing loaded from anywhere, a policy that forbids it."""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from importlib import resources
from string import Template
from typing import Any, NamedTuple


class Page(NamedTuple):
    """A page or a part of one. unread: image -> why there is no picture of it, as a reason code; without those of
    which the result itself says so.
    """

    html: str
    unread: dict[str, str]


def document(title: str, body: str, data: Any, script: str, style: str = "") -> str:
    """A whole page. title: text. body: HTML in which everything from outside is escaped. data: what the script reads,
    as JSON, from the element `data`. script, style: of this page alone, after those of all pages.
    """
    style, script = f"{_asset('page.css')}\n{style}", f"{_asset('viewer.js')}\n{script}"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_policy(style, script)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
{body}
<script type="application/json" id="data">{as_json(data)}</script>
<script>{script}</script>
</body>
</html>
"""


def zoom_dialog(of: str, side: str) -> str:
    """Where one picture is zoomed into. of: what a picture is of, in a word. side: HTML that stands beside it."""
    return Template(_asset("zoom.html")).substitute(of=of, side=side)


def as_json(data: Any) -> str:
    """JSON that can stand inside a script element: nothing in it opens or closes one."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _policy(style: str, script: str) -> str:
    """A Content-Security-Policy that allows this style and this script, pictures in the page, and nothing else."""
    return (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"


def _asset(name: str) -> str:
    return (resources.files("pipeline.report") / "assets" / name).read_text(encoding="utf-8")
