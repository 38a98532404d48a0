"""The report: its numbers are the profile's, its page stands alone, and its files are whole."""

from __future__ import annotations

import html.parser
import re
import sys
import xml.etree.ElementTree

import keras
import pytest

import wrpn_tf
from wrpn_tf.accelerator import SystolicArray
from wrpn_tf.analysis import (
    ModelProfile,
    array_costs,
    memory_footprint,
    plan,
    report,
    report_files,
)
from wrpn_tf.analysis.report_content import ReportSettings, gather
from wrpn_tf.analysis.report_figures import draw_figures

_FIGURES = ("layers", "memory", "cost", "array", "roofline")
_VOID = {"meta", "br", "link", "img", "input"}


def small_model(flavor):
    """A layer called twice, and a name that HTML and figures must escape."""
    layers = flavor.keras.layers
    inputs = flavor.keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="stem")(inputs)
    shared = layers.Conv2D(8, 1, activation="relu", name="shared")
    x = layers.DepthwiseConv2D(3, activation="relu", name="each")(shared(shared(x)))
    # tf_keras takes no such names.
    name = "last" if flavor.name == "tf_keras" else "$la<st>&"
    x = layers.Dense(5, name=name)(layers.Flatten()(x))
    return flavor.keras.Model(inputs, x, name="small")


class Page(html.parser.HTMLParser):
    """Tables by their captions, all text, and what the page refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.text: list[str] = []
        self.references: list[str] = []
        self.ids: list[str] = []
        self._open: list[str] = []
        self._caption = ""
        self.feed(text)
        assert self._open == [], "tags that are not closed"

    def handle_starttag(self, tag, attrs):
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "caption":
            self._caption = ""
        if tag == "tr":
            self.tables.setdefault(self._caption, []).append([])
        if tag in ("td", "th"):
            self.tables[self._caption][-1].append("")
        names = {"href", "xlink:href", "src", "srcset", "data", "action", "poster"}
        self.references += [value for name, value in attrs if name in names]
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self._open.pop()

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self._open[-1:] == ["caption"]:
            self._caption += data
        if self._open[-1:] in (["td"], ["th"]):
            self.tables[self._caption][-1][-1] += data

    def table(self, caption: str) -> dict[str, dict[str, list[str]]]:
        """Returns row name -> column -> cells of all rows of that name."""
        ((_, (header, *rows)),) = [x for x in self.tables.items() if x[0].startswith(caption)]
        found: dict[str, dict[str, list[str]]] = {}
        for row in rows:
            for name, cell in zip(header, row, strict=True):
                found.setdefault(row[0], {}).setdefault(name, []).append(cell)
        return found


def read_page(folder) -> Page:
    return Page((folder / "report.html").read_text())


def test_the_page_of_a_quantized_model(flavor, tmp_path):
    baseline = small_model(flavor)
    model = wrpn_tf.quantize_model(baseline, num_bits_weight=3, num_bits_activation=4)
    path = report(model, tmp_path / "new" / "out", baseline=baseline, batch_sizes=(1, 3))
    folder = tmp_path / "new" / "out"
    assert path == folder / "report.html"
    expected = {f"{name}.{kind}" for name in _FIGURES for kind in ("png", "svg")}
    assert {file.name for file in folder.iterdir()} == {*expected, "report.html"}
    page, profile = read_page(folder), ModelProfile(model)
    assert_layers_match(page, profile)
    assert_memory_matches(page, profile)
    cost = wrpn_tf.analysis.relative_cost(profile, ModelProfile(baseline))
    assert f"This model: {cost:.4f}." in page.text
    table = page.table("Cost (sum model)")
    for cell in plan(baseline, print_fn=None).cells:
        name = f"{cell.num_bits_weight}b/{cell.num_bits_activation}b".replace("32b/32b", "float")
        width = f"{cell.width_multiplier:g}x"
        assert table[name][f"{width} cost"] == [f"{cell.cost:.4f}"]
        assert table[name][f"{width} bytes"] == [f"{cell.num_bytes:,}"]
    assert_array_matches(page, profile)
    assert_stands_alone(folder, page)


def layer_rows(page):
    (caption,) = (x for x in page.tables if "those that multiply or hold weights" in x)
    return page.table(caption)


def assert_layers_match(page, profile):
    rows = layer_rows(page)
    for path in {layer.path for layer in profile.layers if layer.weights or layer.macs}:
        calls = [layer for layer in profile.layers if layer.path == path]
        assert rows[path]["Class"] == [x.class_name for x in calls]
        assert rows[path]["Parameters"] == [f"{x.num_parameters:,}" for x in calls]
        assert rows[path]["Bytes"] == [f"{x.num_bytes:,}" for x in calls]
        assert rows[path]["MACs"] == [f"{x.num_macs:,}" for x in calls]
        for column, name in (("W", "num_bits_weight"), ("A", "num_bits_activation")):
            assert rows[path][column] == [str(getattr(x.macs[0], name)) for x in calls]
    assert rows["total"]["MACs"] == [f"{profile.num_macs:,}"]
    assert rows["total"]["Bytes"] == [f"{profile.num_bytes:,}"]


def assert_memory_matches(page, profile):
    rows = page.table("Bytes by batch size")
    for phase in ("training", "inference"):
        assert rows[phase]["Batch"] == ["1", "3"]
        found = [memory_footprint(profile, batch_size=size, phase=phase) for size in (1, 3)]
        assert rows[phase]["Weights"] == [f"{x.weight_bytes:,}" for x in found]
        assert rows[phase]["Activations"] == [f"{x.activation_bytes:,}" for x in found]
        assert rows[phase]["Gradients"] == [f"{x.gradient_bytes:,}" for x in found]
        assert rows[phase]["Total"] == [f"{x.num_bytes:,}" for x in found]


def assert_array_matches(page, profile):
    costs = array_costs(profile)
    rows = page.table("Kernels on the array")
    for path in {cost.path for cost in costs}:
        cycles = [f"{cost.trace.cycles:,}" for cost in costs if cost.path == path]
        assert rows[path]["Cycles"] == cycles
    assert rows["total"]["Cycles"] == [f"{sum(cost.trace.cycles for cost in costs):,}"]
    assert set(page.table("Kernels on the roofline")) == set(rows) - {"total"}


def assert_stands_alone(folder, page):
    text = (folder / "report.html").read_text()
    assert "//" not in text, "an address"
    assert not re.search(r"@import|url\((?!#)|<script|<link|<img|<iframe", text)
    assert len(page.ids) == len(set(page.ids))
    assert all(x.startswith("#") and x[1:] in page.ids for x in page.references)
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(page.ids)
    assert text.count("<svg") == len(_FIGURES)
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    # Every colour of a figure is the page's, so that it changes with the page.
    drawn = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert set(re.findall(r"(?:fill|stroke): (#\w+)", drawn)) <= {"#ffffff"}
    assert set(re.findall(r"var\(--([\w-]+)\)", text)) <= set(re.findall(r"--([\w-]+): #", text))
    for name in _FIGURES:
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        xml.etree.ElementTree.parse(folder / f"{name}.svg")


def unknown_model():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="$a<b>&")(inputs)
    x = keras.layers.Reshape((-1, 12))(x)
    x = keras.layers.LSTM(5, name="memory_cell")(x)
    return keras.Model(inputs, keras.layers.Dense(3)(x), name="<odd>")


def test_unknown_layers_are_named_and_never_zero(tmp_path):
    report(unknown_model(), tmp_path)
    page = read_page(tmp_path)
    rows = layer_rows(page)
    assert rows["memory_cell"]["MACs"] == ["unknown"]
    assert rows["total"]["MACs"] == [f"{6 * 6 * 3 * 3 * 3 * 4 + 5 * 3:,} + unknown"]
    assert rows["$a<b>&"]["MACs"] == [f"{6 * 6 * 3 * 3 * 3 * 4:,}"]
    on_array = page.table("Kernels on the array")
    assert on_array["memory_cell"]["Cycles"] == [""]
    assert on_array["memory_cell"]["Not on the array"] == [
        "LSTM has weights used in an unknown way"
    ]
    text = "".join(page.text)
    assert "The memory is unknown:" in text
    assert "as if every layer had 2-bit weights and 8-bit activations" in text
    assert not (tmp_path / "memory.svg").exists()


def tiny_model(**options):
    inputs = keras.Input((4, 4, 1), **options)
    x = keras.layers.Conv2D(2, 3, padding="same")(inputs)
    return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalMaxPooling2D()(x)))


@pytest.mark.usefixtures("no_figures")
def test_a_quantized_model_alone_is_shown_at_other_bits(tmp_path):
    model = wrpn_tf.quantize_model(tiny_model(), num_bits_weight=2, num_bits_activation=8)
    report(model, tmp_path, cost_model="product")
    rows = read_page(tmp_path).table("Cost (product model)")
    assert rows["4b/8b"]["1x cost"] == [f"{4 * 8 / 1024:.4f}"]
    assert rows["float"]["1x cost"] == ["1.0000"]


def test_many_layers_come_in_parts():
    inputs = x = keras.Input((2,))
    for index in range(41):
        x = keras.layers.Dense(2, name=f"layer_{index}")(x)
    settings = ReportSettings((1,), "sum", SystolicArray(), 8.0)
    figures = draw_figures(gather(keras.Model(inputs, x), None, settings))
    rows = {
        name: [label.get_text() for label in figure.axes[0].get_yticklabels()]
        for name, _, figure in figures
        if name.startswith("layers")
    }
    assert list(rows) == ["layers-1", "layers-2"]
    assert rows["layers-1"] + rows["layers-2"] == [f"layer_{index}" for index in range(41)]


@pytest.fixture
def no_figures(monkeypatch):
    """The page alone, which takes a tenth of the time."""
    monkeypatch.setattr(report_files, "draw_figures", lambda content: iter(()))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_sizes": (1, 0)}, ValueError, "`batch_size` must be >= 1, got 0"),
        ({"batch_sizes": ()}, ValueError, "`batch_sizes` must be a sequence"),
        ({"cost_model": "both"}, ValueError, "`cost_model` must be"),
        ({"array": 8}, TypeError, "`array` must be a SystolicArray"),
        ({"dram_bytes_per_cycle": 0}, ValueError, "`dram_bytes_per_cycle` must be finite and > 0"),
        ({"dram_bytes_per_cycle": "8"}, TypeError, "`dram_bytes_per_cycle` must be a number"),
        ({"out_dir": 3}, TypeError, "`out_dir` must be a path"),
        ({"model": "resnet"}, TypeError, "`model`"),
    ],
)
def test_bad_arguments_are_refused(options, error, message, tmp_path):
    arguments = {"model": None, "out_dir": tmp_path / "out", **options}
    with pytest.raises(error, match=re.escape(message)):
        report(**arguments)
    assert not (tmp_path / "out").exists()


def test_models_that_cannot_be_reported_are_refused(tmp_path):
    unsized = keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(2, 3)])
    with pytest.raises(ValueError, match="`model` must have inputs of known sizes"):
        report(unsized, tmp_path)
    with pytest.raises(ValueError, match="`baseline` must be None for a float model"):
        report(tiny_model(), tmp_path, baseline=tiny_model())
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(NotADirectoryError, match="`out_dir` must be a folder, got the file"):
            report(tiny_model(), path)
    assert (tmp_path / "file").read_text() == "mine"


def test_missing_matplotlib_is_said(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'wrpn_tf[plots]'")):
        report(tiny_model(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_figures")
def test_an_interrupted_write_leaves_the_old_file(monkeypatch, tmp_path):
    (tmp_path / "report.html").write_bytes(b"old")

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        report(tiny_model(), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_bytes() == b"old"
