"""The pages of reports: one style, and the pieces that pages are made of. A page is one file that needs no other.

Light and dark as its reader has it, on a phone, on a wide screen and on paper. A policy in its head forbids the
browser to fetch anything at all.
"""

import base64
from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--muted:#5b636b;--rule:#d7dbe0;--paper:#fff;
--accent:#0072b2}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ec;--muted:#a3abb3;--rule:#3a4149;--paper:#14171a;
--accent:#6cb8e8}}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:72rem;margin:0 auto;
padding:1rem 1rem 4rem}
h1{font-size:1.6rem;line-height:1.2;margin:1rem 0 .3rem}
h2{font-size:1.3rem;line-height:1.25;margin:3rem 0 .6rem;padding-top:.6rem;border-top:2px solid var(--accent)}
h1,h2,code{overflow-wrap:anywhere}
p{max-width:46rem;margin:.5rem 0}
.wide{overflow-x:auto;margin:.6rem 0}
.wide:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
td,th{padding:.25rem .8rem .25rem 0;border-bottom:1px solid var(--rule);text-align:left;vertical-align:top}
thead th{color:var(--muted);font-weight:600;font-size:.87rem;border-bottom-width:2px}
img{display:block;max-width:100%;height:auto}
code{font-family:ui-monospace,monospace;font-size:.95em}
@media print{
:root{color-scheme:light;--ink:#000;--muted:#444;--rule:#bbb;--paper:#fff;--accent:#0072b2}
body{font-size:10pt;max-width:none;padding:0}
h2{break-after:avoid}
img,tr{break-inside:avoid}
.wide{overflow:visible}
}
@page{margin:15mm}
"""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def document(title: str, body: str) -> str:
    """The whole page."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def table(label: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, which scrolls by itself where it is wider than the screen; `label` is for who cannot see it."""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(label)}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def text(words: str) -> str:
    """A paragraph."""
    return f"<p>{escape(words)}</p>"


def data_uri(kind: str, content: bytes) -> str:
    """A file inside the page."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
