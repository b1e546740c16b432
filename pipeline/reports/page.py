"""The pages of reports: one style, and the pieces that pages are made of. A page is one file that needs no other.

Light and dark as its reader has it, on a phone, on a wide screen and on paper. A policy in its head forbids the
browser to fetch anything at all.
"""

import base64
from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--muted:#5b636b;--rule:#d7dbe0;--paper:#fff;--tint:#f2f6fa;
--accent:#0072b2;--blue:#0072b2;--sky:#56b4e9;--orange:#d55e00;--green:#009e73}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ec;--muted:#a3abb3;--rule:#3a4149;--paper:#14171a;--tint:#1f262d;
--accent:#6cb8e8;--blue:#3d9fdc;--sky:#8ccdf2;--orange:#f08444;--green:#2cc295}}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:72rem;margin:0 auto;
padding:1rem 1rem 4rem}
h1{font-size:1.6rem;line-height:1.2;margin:1rem 0 .3rem}
h2{font-size:1.3rem;line-height:1.25;margin:3rem 0 .6rem;padding-top:.6rem;border-top:2px solid var(--accent)}
h3{font-size:1.05rem;line-height:1.3;margin:1.8rem 0 .5rem}
h1,h2,h3,p,code,summary,figcaption{overflow-wrap:anywhere}
p{max-width:46rem;margin:.5rem 0}
a{color:var(--accent)}
.muted,figcaption{color:var(--muted);font-size:.87rem}
nav ul{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.3rem 1.3rem}
nav a{display:inline-block;padding:.2rem 0}
.wide{overflow-x:auto;margin:.6rem 0}
.wide:focus-visible,a:focus-visible,summary:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
table{border-collapse:collapse;font-size:.94rem;font-variant-numeric:tabular-nums}
td{white-space:nowrap}
td.words{white-space:normal;min-width:12rem}
td,th{padding:.25rem .7rem .25rem 0;border-bottom:1px solid var(--rule);text-align:left;vertical-align:top}
thead th{color:var(--muted);font-weight:600;font-size:.87rem;border-bottom-width:2px}
table.facts th{font-weight:400;color:var(--muted);width:11rem;max-width:40vw}
table.facts td{white-space:normal;overflow-wrap:anywhere;padding-right:0}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,22.5rem),1fr));gap:1rem 2rem;
align-items:start;margin:.8rem 0}
figure{margin:0}
.charts figure{max-width:31rem;width:100%}
svg,img{display:block;max-width:100%;height:auto}
svg{width:100%;font-family:system-ui,"DejaVu Sans",sans-serif}
.wide>svg{min-width:44rem;max-width:52rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(5.6rem,1fr));gap:.9rem .7rem;max-width:62rem;
margin:.6rem 0}
.tiles img{width:100%;max-width:8rem;image-rendering:pixelated;border-radius:3px}
pre{background:var(--tint);border:1px solid var(--rule);border-radius:4px;padding:.6rem .8rem;font-size:.87rem;
line-height:1.4;margin:.6rem 0;white-space:pre-wrap;overflow-wrap:anywhere}
code{font-family:ui-monospace,monospace;font-size:.95em}
summary{cursor:pointer;color:var(--accent);padding:.2rem 0}
@media print{
:root{color-scheme:light;--ink:#000;--muted:#444;--rule:#bbb;--paper:#fff;--tint:#f6f6f6;--accent:#0072b2;
--blue:#0072b2;--sky:#56b4e9;--orange:#d55e00;--green:#009e73}
body{font-size:10pt;max-width:none;padding:0}
nav{display:none}
h2{margin-top:1.6rem}
h2,h3{break-after:avoid}
figure,img,tr,pre{break-inside:avoid}
.charts{grid-template-columns:1fr 1fr}
.wide{overflow:visible}.wide>svg{min-width:0}
table{font-size:8pt;max-width:100%}thead th{font-size:7pt}
td,th{padding-right:.4rem}td{overflow-wrap:anywhere}
td{white-space:normal}td.words{min-width:0}
details pre{columns:2;font-size:7.5pt}
details::details-content{content-visibility:visible;block-size:auto}
}
@page{margin:15mm}
"""
_SHORT = 26
"""Letters of a cell that is not broken into lines."""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def document(title: str, body: str, generator: str = "") -> str:
    """The whole page; `generator` names what made it, for who wants to replace it."""
    made_by = f'<meta name="generator" content="{escape(generator)}">' if generator else ""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{made_by}\n<title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def table(label: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, which scrolls by itself where it is wider than the screen; `label` is for who cannot see it."""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    return wide(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>", label)


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """What is known, a line each; what is not known is left out."""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in pairs if value
    )
    return f'<table class="facts"><tbody>{rows}</tbody></table>' if rows else ""


def heading(level: int, words: str, anchor: str = "") -> str:
    """A heading, to which a link can lead."""
    place = f' id="{escape(anchor)}"' if anchor else ""
    return f"<h{level}{place}>{escape(words)}</h{level}>"


def contents(sections: Iterable[tuple[str, str]]) -> str:
    """Links to the sections of a page: the anchor and the words of each."""
    links = "".join(f'<li><a href="#{escape(anchor)}">{escape(words)}</a></li>' for anchor, words in sections)
    return f'<nav aria-label="Contents"><ul>{links}</ul></nav>'


def text(words: str, *, muted: bool = False) -> str:
    """A paragraph."""
    opening = '<p class="muted">' if muted else "<p>"
    return f"{opening}{escape(words)}</p>"


def charts(drawn: Iterable[str]) -> str:
    """Charts side by side where there is room."""
    figures = "".join(f"<figure>{one}</figure>" for one in drawn)
    return f'<div class="charts">{figures}</div>' if figures else ""


def wide(inside: str, label: str) -> str:
    """What scrolls by itself where it is wider than the screen; `label` is for who cannot see it."""
    return f'<div class="wide" tabindex="0" role="region" aria-label="{escape(label)}">{inside}</div>'


def tiles(pictures: Iterable[tuple[bytes, str, str]]) -> str:
    """Small PNG images, each with what it is and its caption."""
    made = "".join(
        f'<figure><img alt="{escape(alt)}" src="{data_uri("image/png", png)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for png, alt, caption in pictures
    )
    return f'<div class="tiles">{made}</div>'


def code(words: str) -> str:
    """Lines to copy."""
    return f"<pre><code>{escape(words)}</code></pre>"


def folded(summary: str, inside: str) -> str:
    """Something that is long, and shown when it is asked for."""
    return f"<details><summary>{escape(summary)}</summary>{inside}</details>"


def _cell(words: str) -> str:
    """A cell; a figure with its unit stays on one line."""
    kind = ' class="words"' if len(words) > _SHORT else ""
    return f"<td{kind}>{escape(words)}</td>"


def data_uri(kind: str, content: bytes) -> str:
    """A file inside the page."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
