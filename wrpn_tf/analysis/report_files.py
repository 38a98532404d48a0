"""`report`: a page and figures of what a model stores, computes and costs on the accelerator."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from wrpn_tf.accelerator import SystolicArray
from wrpn_tf.analysis import report_style
from wrpn_tf.analysis.report_content import ReportSettings, gather
from wrpn_tf.analysis.report_figures import draw_figures
from wrpn_tf.analysis.report_page import page
from wrpn_tf.analysis.report_sections import body
from wrpn_tf.whole_file import write_whole

_PAGE = "report.html"


def report(
    model: Any,
    out_dir: str | os.PathLike[str],
    *,
    baseline: Any = None,
    batch_sizes: Sequence[int] = (1, 8, 32, 128),
    cost_model: str = "sum",
    array: SystolicArray | None = None,
    dram_bytes_per_cycle: float = 8.0,
) -> pathlib.Path:
    """Writes a page with tables and figures of a model, and the figures as PNG and SVG files.

    The page, `report.html`, needs no other file and no network, and follows the browser's light or
    dark colours. It shows bits and multiply-accumulates of each layer, memory by batch size, cost
    by bits and width, cycles and utilisation of each kernel on the array, and the array's roofline.
    The figures are `layers`, `memory`, `cost`, `array` and `roofline`; those of many layers come in
    parts, as `layers-1`. Files of the same names are replaced, each whole or not at all.

    Args:
        model: A Functional or Sequential model of either Keras, float or quantized.
        out_dir: The folder; it is made if it does not exist.
        baseline: For a quantized model, the float network that it was made from (before widening):
            costs are then relative to that one, and other widths are shown. None shows other bits
            at the model's own width.
        batch_sizes: Of the memory.
        cost_model: "sum" or "product", as in `wrpn_tf.plan`.
        array: The accelerator; by default 8 x 8 engines, output stationary.
        dram_bytes_per_cycle: Assumed bandwidth of the roofline, in bytes per cycle of the array.
            The default, 64 bits, is no figure of the paper, which tells neither clock nor memory.

    Returns:
        The page's path.

    Raises:
        TypeError: If an argument is of a wrong type.
        ValueError: If the graph of `model` cannot be read or an input has no fixed size; if
            `baseline` is given and `model` is float, or `baseline` is quantized or has layers whose
            multiply-accumulates are unknown; if another argument is none of the above.
        ImportError: If matplotlib is missing; it comes with `pip install 'wrpn_tf[plots]'`.
        OSError: If `out_dir` is a file, or cannot be written to.
    """
    chosen = SystolicArray() if array is None else array
    settings = ReportSettings(batch_sizes, cost_model, chosen, dram_bytes_per_cycle)
    folder = _check_folder(out_dir)
    report_style.check_matplotlib()
    content = gather(model, baseline, settings)
    files: dict[str, bytes] = {}
    inline = {}
    with report_style.figure_style():
        for name, description, figure in draw_figures(content):
            report_style.lay_out(figure)
            files[f"{name}.png"] = report_style.to_png(figure)
            files[f"{name}.svg"] = report_style.to_svg(figure)
            inline[name] = report_style.to_inline_svg(figure, name, description)
    files[_PAGE] = page(content.summary.name, body(content, inline)).encode()
    folder.mkdir(parents=True, exist_ok=True)
    for name, blob in files.items():
        write_whole(blob, folder / name)
    return folder / _PAGE


def _check_folder(out_dir: str | os.PathLike[str]) -> pathlib.Path:
    """Returns a folder that can be written to, or made; makes nothing yet."""
    if not isinstance(out_dir, (str, os.PathLike)):
        raise TypeError(f"`out_dir` must be a path, got {type(out_dir).__name__}.")
    folder = pathlib.Path(out_dir)
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise NotADirectoryError(f"`out_dir` must be a folder, got the file {str(nearest)!r}.")
    if not os.access(nearest, os.W_OK):
        raise PermissionError(f"`out_dir` must be writable, got {str(nearest)!r}.")
    return folder
