"""The report in a real browser, and its figures for notebooks."""

import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest

from ase_cg import map_trajectory
from ase_cg.analysis import (
    analyze,
    plot_bonds,
    plot_chapman_kolmogorov,
    plot_contacts,
    plot_distributions,
    plot_order_parameters,
    plot_pareto,
    plot_series,
    plot_surfaces,
    plot_timescales,
)
from ase_cg.analysis.table import _with_error

CHROMIUM = shutil.which("chromium")
PROBE = """
<script>
window.addEventListener("load", () => {
  const wide = [...document.body.querySelectorAll("*")].filter(e => {
    const box = e.getBoundingClientRect();
    return box.width > 0 && (box.right > document.documentElement.clientWidth + 0.5 || box.left < -0.5);
  }).map(e => e.tagName + " " + (e.textContent || "").slice(0, 40));
  const images = [...document.images];
  const found = {
    width: window.innerWidth,
    scroll: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    wide: wide,
    images: images.length,
    broken: images.filter(i => !(i.complete && i.naturalWidth > 0)).length,
    resources: performance.getEntriesByType("resource").map(r => r.name).filter(n => !n.startsWith("data:")),
  };
  window.parent.postMessage(JSON.stringify(found), "*");
});
</script>
"""
FRAME = """<!DOCTYPE html><meta charset="utf-8"><link rel="icon" href="data:,">
<script>
window.addEventListener("message", event => {
  const out = document.createElement("pre");
  out.id = "probe";
  out.textContent = btoa(unescape(encodeURIComponent(event.data)));
  document.body.append(out);
});
</script>
<body><iframe src="%s" style="width: %dpx; height: 900px; border: 0"></iframe></body>
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def comparison(shared, folder):
    """Two of the published trajectories as models of all three."""
    data = shared / "chignolin_all_atom"
    options = {"topology": data / "traj_0.pdb", "resolution": "calpha", "temperature": 300, "quiet": True}
    paths = [data / f"traj_{i}.dcd" for i in range(3)]
    reference = map_trajectory(paths, folder / "reference.h5", **options)
    models = {f"model {i} <b>": map_trajectory(paths[i], folder / f"{i}.h5", **options) for i in (0, 1)}
    native = shared / "fast_folders" / "experimental_structures" / "chignolin_cln025.pdb"
    return analyze(models, reference, folder / "out", native=native, bins=30, quiet=True)


@pytest.fixture(scope="module")
def page(comparison, folder):
    return (folder / "out" / "report.html").read_text(encoding="utf-8")


def opened(page, width, folder):
    """Return what a headless Chromium finds on a page of a width, and what it writes to its console.

    The page lies in a frame: Chromium's windows are never narrower than 500 pixels.
    """
    inner, outer = folder / f"page{width}.html", folder / f"frame{width}.html"
    inner.write_text(page.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    outer.write_text(FRAME % (inner.name, width), encoding="utf-8")
    done = subprocess.run(
        [
            CHROMIUM,
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
            *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"),
            f"--user-data-dir={folder / f'profile{width}'}",
            "--window-size=1400,1000",
            "--virtual-time-budget=5000",
            "--dump-dom",
            outer.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    probe = re.search(r'<pre id="probe">([^<]+)</pre>', done.stdout)
    assert probe, done.stderr
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(base64.b64decode(probe[1])), console


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("width", [1280, 390])
def test_the_report_in_a_browser(page, folder, width):
    found, console = opened(page, width, folder)
    assert found["width"] == width
    assert console == []
    assert found["wide"] == []
    assert found["scroll"] <= 0
    assert found["images"] >= 10
    assert found["broken"] == 0
    assert found["resources"] == []


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_the_browser_finds_what_is_wrong(folder):
    """The check above is able to fail."""
    page = (
        '<!DOCTYPE html><html><body><div style="width: 900px">x</div><img src="none.png">'
        "<script>no_such_function()</script></body></html>"
    )
    found, console = opened(page, 391, folder)
    assert found["wide"]
    assert found["scroll"] > 0
    assert found["broken"] == 1
    assert any("no_such_function" in line for line in console)


class Reader(HTMLParser):
    """Collects text, alternative descriptions and outside references."""

    def __init__(self):
        super().__init__()
        self.text, self.alternatives, self.references = [], [], []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag == "img":
            self.alternatives.append(values.get("alt", ""))
        self.references += [values[key] for key in ("src", "href") if values.get(key)]

    def handle_data(self, data):
        self.text.append(data)


def test_the_report_is_whole_without_network_and_without_pictures(page, comparison):
    reader = Reader()
    reader.feed(page)
    text = " ".join(reader.text)
    assert all(reference.startswith("data:") for reference in reader.references)
    assert not re.search(r"url\(|@import|<script", page)
    assert len(page) < 1_000_000
    assert all(len(words) > 60 and re.search(r"\d", words) for words in reader.alternatives)
    value = comparison.rows["model 0 <b>"]["pmf_error_kT"]["value"]
    assert f"{value:.2f}" in text
    for words in ("floor", "folding free energy", "model 1 <b>", "traj_0", "not converged", "Provenance"):
        assert words in text, words
    for source in comparison.sources.values():
        assert source["sha256"] in text
    for note in comparison.notes:
        assert note in text


def test_numbers_and_figures_lie_beside_it(comparison, folder):
    out = folder / "out"
    data = json.loads((out / "metrics.json").read_text())
    assert data["rows"] == comparison.rows
    assert data["kinetics"]["reference"]["native_macrostate"] == comparison.space.native
    assert data["averages"]["reference"]["fraction_within_2.5_A"] == pytest.approx(0.667, abs=0.01)
    assert data["radius_of_gyration_relaxation"]["reference"]["frames"] == pytest.approx(5.8, abs=0.5)
    assert data["features"]["floor"]["bonds"]["TYR2–TYR3"]["value"] > 0
    for name in (
        "tica",
        "bonds",
        "angles",
        "dihedrals",
        "order_parameters",
        "timescales",
        "rmsd_over_time",
        "contacts",
        "pareto",
    ):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (out / f"{name}.svg").read_text()


def test_what_the_figures_show_is_there_as_numbers(comparison, folder):
    data = json.loads((folder / "out" / "figures.json").read_text())
    surface = plot_surfaces(comparison)[1].images[0].get_array().T
    written = np.array(data["surfaces"]["tica"]["free_energy_kT"]["model 0 <b>"], dtype=float)
    seen = np.isfinite(written)
    assert written.shape == (30, 30) == (len(data["surfaces"]["tica"]["x_edges"]) - 1,) * 2
    assert written[seen] == pytest.approx(np.asarray(surface)[seen], rel=1e-4)
    assert np.nanmin(written) == 0
    for line, ensemble in zip(plot_bonds(comparison)[0].lines, comparison.ensembles, strict=True):
        curve = data["distributions"]["bonds"]["TYR2–TYR3"]
        assert curve["density"][ensemble] == pytest.approx(line.get_ydata(), rel=1e-4)
        assert curve["x"] == pytest.approx(line.get_xdata(), rel=1e-4)
    drawn = plot_series(comparison, "rmsd")[0].lines[1]
    assert data["over_time"]["rmsd"]["reference"][1]["values"] == pytest.approx(drawn.get_ydata(), rel=1e-4)
    assert data["over_time"]["rmsd"]["reference"][1]["time_frames"] == pytest.approx(drawn.get_xdata())
    assert np.array(data["contacts"]["reference"]) == pytest.approx(comparison.reference.contacts, abs=1e-4)
    implied = comparison.kinetics["reference"].implied
    assert np.array(data["kinetics"]["reference"]["observed"]) == pytest.approx(implied.estimated, abs=1e-4)


def test_figures_are_axes_for_notebooks(comparison):
    from matplotlib.figure import Figure

    surfaces = plot_surfaces(comparison)
    assert [axis.get_title() for axis in surfaces] == ["reference", *comparison.models]
    shown = surfaces[1].images[0].get_array()
    grid = comparison.planes["tica"]
    expected = grid.surface(comparison.model.surfaces["tica"].probabilities()).T
    finite = np.isfinite(expected)
    assert np.array_equal(np.ma.getmaskarray(shown) | ~np.isfinite(shown), ~finite)
    assert np.asarray(shown)[finite] == pytest.approx(expected[finite])
    assert len(plot_bonds(comparison)[0].lines) == 3
    timescales = plot_timescales(comparison)
    assert timescales[0].lines[0].get_ydata() == pytest.approx(
        comparison.kinetics["reference"].implied.timescales[:, 0]
    )
    own = Figure().subplots()
    assert plot_pareto(comparison, [own]) == [own]
    assert own.get_xlabel() == "PMF error / kT"
    assert plot_chapman_kolmogorov(comparison)[0].lines
    assert np.array_equal(plot_contacts(comparison)[0].images[0].get_array(), comparison.reference.contacts)
    assert len(plot_series(comparison, "rmsd")[0].lines) == 3
    assert plot_order_parameters(comparison, ["native_contacts"])[0].get_xlabel() == "fraction of native contacts"
    dihedrals = plot_distributions(comparison, "dihedrals")
    area = [np.trapezoid(line.get_ydata(), line.get_xdata()) for line in dihedrals[0].lines]
    assert area == pytest.approx([1, 1, 1], abs=0.05)  # densities per degree


def test_a_number_whose_error_is_not_known_says_so():
    assert _with_error(2.1, np.nan, "{:.2f}") == "2.10 ± unknown"
    assert _with_error(2.1, 0.25, "{:.2f}") == "2.10 ± 0.25"
    assert _with_error(np.inf, np.nan, "{:.2f}") == "—"
