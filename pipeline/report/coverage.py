"""The section of the audit page that tells what of the input was read, and what failed, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from pipeline.dataset.failures import Failure
from pipeline.sources import scan_table
from pipeline.words import plural

MAX_FAILURES = 20


def section(scan: Mapping[str, Any], failed: Sequence[Failure]) -> str:
    """HTML; empty where nothing is known and nothing failed."""
    if not scan and not failed:
        return ""
    table = "\n".join(scan_table.lines(scan)) if scan else ""
    rows = "".join(
        f"<tr><th scope=row><code>{escape(one.reason)}</code></th><td>{escape(one.example)}</td>"
        f"<td class=n>{plural(one.rows, one.kind.removesuffix('s'))}</td></tr>"
        for one in failed[:MAX_FAILURES]
    )
    heads = "<tr><th scope=col>Reason</th><th scope=col>One of them</th><th scope=col class=n>Count</th></tr>"
    listed = f'<div class="scroll"><table><thead>{heads}</thead><tbody>{rows}</tbody></table></div>' if rows else ""
    more = (
        f"<p class=note>and {plural(len(failed) - MAX_FAILURES, 'more kind')}</p>" if len(failed) > MAX_FAILURES else ""
    )
    return (
        '<section id="input" aria-labelledby="t-input"><h2 id="t-input">Input</h2><div class="panel">'
        f"<pre>{escape(table)}</pre>{listed}{more}</div></section>"
    )
