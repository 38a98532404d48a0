"""The committed figures are what the code computes, and nearly all are the papers'."""

from __future__ import annotations

import importlib
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
RESULTS = (ROOT / "examples" / "results" / "papers.md").read_text()


@pytest.fixture(scope="module")
def script():
    """The example as a module; it finds its neighbours as a script does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "examples"))
        yield importlib.import_module("reproduce_papers")


def _rows(verdict: str) -> list[str]:
    return [line for line in RESULTS.splitlines() if line.endswith(f"| {verdict} |")]


@pytest.mark.slow
def test_the_committed_results_are_what_is_computed(script):
    assert "\n".join(script.report()) + "\n" == RESULTS


def test_what_does_not_reproduce_is_one_network_of_the_figure():
    # AlexNet 25 + 2, ResNet-34 6, BN-Inception 4, Figure 1 of three networks 3 * 4.
    assert len(_rows("yes")) == 25 + 2 + 6 + 4 + 3 * 4
    cut = [row.split(" | ")[1] for row in _rows("cut")]
    assert cut == [".74", ".50", "15.1"]  # printed digits cut off, not rounded
    assert all(row.startswith("| Inception-ResNet-v2 ") for row in _rows("no"))
    assert len(_rows("no")) == 4


@pytest.mark.parametrize(
    ("published", "computed", "verdict"),
    [
        (".74", 0.7477, "cut"),
        (".74", 0.7449, "yes"),
        (".74", 0.7399, "yes"),
        (".74", 0.7501, "no"),
        (".74", 0.7349, "no"),
        (".38", 0.375, "yes"),
        ("14", 14.19, "yes"),
    ],
)
def test_cells_are_compared_at_the_printed_digits(published, computed, verdict, script):
    assert script._row("cost", published, computed).endswith(f"| {verdict} |")


def test_missing_matplotlib_is_named(script, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    panels = {"training": [("net", 70.0, 70.3)], "inference": [("net", 70.0, 70.3)]}
    with pytest.raises(ImportError, match=r"needs matplotlib, .* pip install -e '\.\[plots\]'"):
        script.paper_figure.draw_shares(str(tmp_path / "figure.png"), panels)
    assert not list(tmp_path.iterdir())


def test_the_figure_is_drawn(script, tmp_path):
    pytest.importorskip("matplotlib")
    panels = {"training": [("net", 70.0, 70.3)], "inference": [("net", 70.0, 70.3)]}
    script.paper_figure.draw_shares(str(tmp_path / "figure.svg"), panels)
    assert "</svg>" in (tmp_path / "figure.svg").read_text()
