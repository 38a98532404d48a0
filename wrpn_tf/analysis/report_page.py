"""The page of a report: one HTML file that needs no other, and no network."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from wrpn_tf.analysis.report_style import COLORS

_STYLE = """
body { margin: 0 auto; padding: 1.5rem; max-width: 64rem; color: var(--ink);
  background: var(--paper); font: 0.95rem/1.5 system-ui, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 0.3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 0.5rem; }
p, li { max-width: 46rem; overflow-wrap: anywhere; }
dl { display: flex; flex-wrap: wrap; gap: 0.8rem; margin: 1rem 0; }
dl div { border: 1px solid var(--grid); border-radius: 0.4rem; padding: 0.5rem 0.9rem; }
dt { font-size: 0.8rem; }
dd { margin: 0; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; margin: 0.8rem 0; }
table { border-collapse: collapse; font-size: 0.82rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: 0.3rem; white-space: nowrap; }
th, td { padding: 0.18rem 0.6rem; border-bottom: 1px solid var(--grid); text-align: right;
  white-space: nowrap; vertical-align: top; }
thead th { border-bottom-color: var(--ink); vertical-align: bottom; }
th:first-child, td:first-child, .text { text-align: left; }
tbody th { font-weight: normal; }
tr.total > * { font-weight: bold; border-top: 1px solid var(--ink); }
figure { margin: 0.8rem 0; overflow-x: auto; }
figure svg { display: block; width: 100%; min-width: 42rem; height: auto; }
code { font-size: 0.9em; }
@media print {
  @page { margin: 14mm; }
  body { max-width: none; padding: 0; font-size: 9pt; }
  table { font-size: 7pt; }
  th, td { padding: 0.1rem 0.3rem; white-space: normal; }
  figure svg { min-width: 0; max-height: 245mm; }
  figure, tr, dl, h2 { break-inside: avoid; }
  h2, caption { break-after: avoid; }
  .wide, figure { overflow: visible; }
}
"""


def page(title: str, body: str) -> str:
    """Returns a page.

    Args:
        title: Plain text.
        body: HTML.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_colors()}{_STYLE}</style>\n</head>\n"
        f"<body>\n<h1>{html.escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def section(title: str, *parts: str) -> str:
    """Returns a section: its title, plain text, and HTML."""
    return "\n".join(["<section>", f"<h2>{html.escape(title)}</h2>", *parts, "</section>"])


def paragraph(text: str) -> str:
    """Returns a paragraph of plain text, in which `code` is code."""
    pieces = html.escape(text, quote=False).split("`")
    marked = [f"<code>{x}</code>" if index % 2 else x for index, x in enumerate(pieces)]
    return f"<p>{''.join(marked)}</p>"


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Returns names and values side by side."""
    items = (
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
        for name, value in pairs
    )
    return f"<dl>{''.join(items)}</dl>"


def bullets(items: Iterable[str]) -> str:
    """Returns a list of plain texts; nothing without items."""
    lines = "".join(f"<li>{html.escape(item)}</li>" for item in items)
    return f"<ul>{lines}</ul>" if lines else ""


def table(
    caption: str,
    headers: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    text_columns: Sequence[int] = (),
    total: Sequence[str] | None = None,
) -> str:
    """Returns a table of plain texts.

    Args:
        caption: Above the table.
        headers: Of the columns.
        rows: A text for each column; the first names the row.
        text_columns: Columns of words; the first always is, the others hold numbers.
        total: A last row that stands out.
    """
    lines = [f"<tr>{_cells(row, text_columns)}</tr>" for row in rows]
    if total is not None:
        lines.append(f'<tr class="total">{_cells(total, text_columns)}</tr>')
    head = "".join(
        f'<th scope="col"{_class(index, text_columns)}>{html.escape(header)}</th>'
        for index, header in enumerate(headers)
    )
    return (
        f'<div class="wide"><table><caption>{html.escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(lines) + "\n</tbody></table></div>"
    )


def figure(svg: str) -> str:
    """Returns a figure that holds an SVG element."""
    return f"<figure>{svg}</figure>"


def _cells(row: Sequence[str], text_columns: Sequence[int]) -> str:
    first, *others = row
    cells = [f'<th scope="row">{html.escape(first)}</th>']
    for index, text in enumerate(others, start=1):
        cells.append(f"<td{_class(index, text_columns)}>{html.escape(text)}</td>")
    return "".join(cells)


def _class(index: int, text_columns: Sequence[int]) -> str:
    return ' class="text"' if index in text_columns else ""


def _colors() -> str:
    """Variables with the colours for light and for dark; paper is light."""
    light = "".join(f"--{name}: {pair[0]}; " for name, pair in COLORS.items())
    dark = "".join(f"--{name}: {pair[1]}; " for name, pair in COLORS.items())
    return (
        f"\n:root {{ color-scheme: light dark; --paper: #ffffff; {light}}}\n"
        "@media screen and (prefers-color-scheme: dark) "
        f"{{ :root {{ --paper: #15181c; {dark}}} }}"
    )
