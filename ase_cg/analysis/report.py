"""The report: one HTML file that needs no network and can be read without its pictures."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.metadata import version
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from ase_cg.analysis.descriptions import TITLES, describe_figure
from ase_cg.analysis.record import definitions
from ase_cg.analysis.table import TABLES, shown_name

if TYPE_CHECKING:
    from ase_cg.analysis.compare import Comparison

SHRUNK = 2 / 3  # of the picture that is saved beside the report
PALETTE = 128  # colours; a fourth of the bytes of full colour

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<link rel="icon" href="data:,">
<style>
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 72rem; font: 1rem/1.5 system-ui, sans-serif; color: #1a1a1a;
  background: #fff; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2rem; border-top: 1px solid #ccc; padding-top: 1rem; }
table { border-collapse: collapse; width: 100%; margin: 0.5rem 0 1rem; font-size: 0.9rem; }
th, td { text-align: left; padding: 0.3rem 0.6rem; border-bottom: 1px solid #ddd; vertical-align: top; }
caption { text-align: left; font-weight: 600; padding: 0.3rem 0; }
tbody th { min-width: 6rem; }
thead th { border-bottom: 2px solid #555; }
.notes { background: #fff6dd; border-left: 4px solid #c98a00; padding: 0.5rem 1rem 0.5rem 2rem; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; display: block; }
figcaption, dd { color: #444; font-size: 0.9rem; }
dt { font-weight: 600; } dd { margin: 0 0 0.5rem 1rem; }
@media (max-width: 45rem) {
  table, tbody, tr, td, tbody th, caption { display: block; width: 100%; }
  thead { display: none; }
  tr { border-bottom: 2px solid #888; padding: 0.3rem 0; }
  td, tbody th { border: 0; padding: 0.15rem 0; }
  td::before { content: attr(data-label) ": "; color: #555; }
}
</style>
</head>
<body>
<main>
<h1>$title</h1>
$body
</main>
</body>
</html>
""")


def light_picture(path: Path) -> tuple[bytes, int, int]:
    """Return a PNG file smaller and in few colours, as PNG, with its width and height in pixels."""
    from PIL import Image

    with Image.open(path) as full:
        size = (round(SHRUNK * full.width), round(SHRUNK * full.height))
        picture = full.convert("RGB").resize(size, Image.Resampling.LANCZOS).quantize(PALETTE)
    small = io.BytesIO()
    picture.save(small, format="png", optimize=True)
    return small.getvalue(), picture.width, picture.height


def html_report(comparison: "Comparison", pictures: Mapping[str, tuple[bytes, int, int]]) -> str:
    """Return the report.

    Parameters
    ----------
    comparison : Comparison
    pictures : mapping
        What :func:`light_picture` gave of each figure, by its name.
    """
    distance = f"Distance from the reference (surface: {comparison.main or 'none'})"
    tables = [(heading or distance, *make(comparison)) for heading, make in TABLES.items()]
    shown = [_table(*table) for table in tables if len(table[1]) > 1]
    parts = [_summary(comparison), shown[0], _notes(comparison), "<h2>More tables</h2>", *shown[1:]]
    parts.append("<h2>Figures</h2>")
    parts += [_figure(comparison, name, picture) for name, picture in pictures.items()]
    parts += [_definitions(comparison), _provenance(comparison)]
    names = ", ".join(shown_name(name) for name in comparison.models)
    return PAGE.substitute(title=escape(f"{names} against the reference"), body="\n".join(parts))


def _summary(comparison: "Comparison") -> str:
    floor = comparison.rows["floor"]["pmf_error_kT"]["value"]
    sentences = []
    for name in comparison.models:
        row = comparison.rows[name]
        error, bonds = row["pmf_error_kT"]["value"], row["bond_wasserstein_A"]["value"]
        clauses = []
        if error is not None:
            like_floor = row["pmf_error_kT"]["plug_in_at_floor"]
            compared = (
                ""
                if floor is None or like_floor is None
                else f" (at equal numbers of independent frames {like_floor:.2f} kT as sampled, between halves of the "
                f"reference {floor:.2f} kT)"
            )
            clauses.append(f"a PMF error of {error:.2f} kT on the surface {comparison.main}{compared}")
        if bonds is not None:
            clauses.append(f"bonds wrong by {bonds:.5f} Å on average")
        judged = comparison.ensembles[name].convergence
        doubt = "" if judged is None or judged.converged else " Its sampling is not converged."
        sentences.append(f"“{shown_name(name)}”: {' and '.join(clauses)}.{doubt}")
    if comparison.pareto:
        front = ", ".join(shown_name(name) for name in comparison.pareto)
        sentences.append(f"Pareto front of PMF error and bond accuracy: {front}.")
    return "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)


def _notes(comparison: "Comparison") -> str:
    if not comparison.notes:
        return "<p>Nothing was left out, and nothing is in doubt.</p>"
    items = "".join(f"<li>{escape(note)}</li>" for note in comparison.notes)
    return f'<h2>Left out or in doubt</h2><ul class="notes">{items}</ul>'


def _table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    body = "".join(
        "<tr>"
        f'<th scope="row">{escape(row[0])}</th>'
        + "".join(
            f'<td data-label="{escape(column)}">{escape(cell)}</td>'
            for column, cell in zip(columns[1:], row[1:], strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _figure(comparison: "Comparison", name: str, picture: tuple[bytes, int, int]) -> str:
    data, width, height = picture
    words = escape(describe_figure(comparison, name))
    source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return (
        f'<figure><img src="{source}" width="{width}" height="{height}" alt="{words}">'
        f"<figcaption><strong>{escape(TITLES[name])}.</strong> {words}</figcaption></figure>"
    )


def _definitions(comparison: "Comparison") -> str:
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in definitions(comparison).items())
    return f"<h2>Definitions</h2><dl>{items}</dl>"


def _provenance(comparison: "Comparison") -> str:
    items = [f"<dt>program</dt><dd>ase-cg {escape(_version())}</dd>"]
    for name, source in comparison.sources.items():
        words = ", ".join(f"{key}: {_shown(value)}" for key, value in source.items())
        items.append(f"<dt>{escape(shown_name(name))}</dt><dd>{escape(words) or 'unknown'}</dd>")
    return f"<h2>Provenance</h2><dl>{''.join(items)}</dl>"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError

    try:
        return version("ase-cg")
    except PackageNotFoundError:
        return "(not installed)"
