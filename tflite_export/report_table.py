"""The text of a verification report: a verdict, and a table of at most 100 columns."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from tflite_export.verification_findings import KERAS, Comparison
from wrpn_tf.text_table import fit_text

if TYPE_CHECKING:
    from tflite_export.report import VerificationReport

_WIDTH = 100
_COUNT = 6
_LEVELS = 7
_LISTED = 10  # details of each kind


def table_lines(report: VerificationReport) -> Iterator[str]:
    """Yields the lines of a report's text."""
    yield from _wrap(_verdict(report))
    yield ""
    rule = "-" * (_name_width(report) + _LEVELS + _COUNT * len(report.sources))
    yield "Levels that are not the accelerator's, by source"
    yield rule
    above, kernels = _headers(report)
    yield above
    yield _line(report, "Layer", "levels", kernels)
    yield rule
    for layer in report.layers:
        total = next((c.total for c in layer.sources.values()), 0)
        cells = [_cell(layer.sources.get(source)) for source in report.sources]
        yield _line(report, layer.name, _short(total), cells)
    yield rule
    yield from _label_lines(report)
    yield from _details(report)


def _verdict(report: VerificationReport) -> str:
    integer = [source for source in report.sources if source != KERAS]
    if report.exact:
        verdict = (
            f"EXACT: {len(integer)} integer sources give the accelerator's levels at all "
            f"{len(report.layers)} layers, on {report.num_images:,} images; the proof without "
            "data holds; the file is the model's."
        )
    else:
        verdict = f"NOT EXACT: {'; '.join(_reasons(report))}."
    differing, total = _keras_counts(report)
    share = f"{differing:,} of {total:,} levels" if differing else "none"
    return f"{verdict} Keras (float32) differs in {share}."


def _reasons(report: VerificationReport) -> Iterator[str]:
    if not (report.num_images and report.layers):
        yield "nothing was run"
    if report.file_differences:
        count = len(report.file_differences)
        yield f"the file is not the model's in {count:,} places, first {report.file_differences[0]}"
    failed = [proof.name for proof in report.proofs if not proof.holds]
    if failed:
        yield f"the proof fails at {len(failed)} operations, first {failed[0]!r}"
    if report.missing:
        yield f"{len(report.missing)} tensors are missing, first {report.missing[0]}"
    if report.first_difference is not None:
        layer, source = report.first_difference
        found = next(row for row in report.layers if row.name == layer)
        yield f"the first differing layer is {layer!r}, {source}: {_counted(found.sources[source])}"


def _keras_counts(report: VerificationReport) -> tuple[int, int]:
    found = [row.sources[KERAS] for row in report.layers if KERAS in row.sources]
    return sum(c.differing for c in found), sum(c.total for c in found)


def _headers(report: VerificationReport) -> tuple[str, list[str]]:
    """The libraries, each above its kernels, and the kernels."""
    above = " " * (_name_width(report) + _LEVELS)
    kernels = []
    parts = [source.partition(" ") for source in report.sources]
    for library, group in itertools.groupby(parts, key=lambda part: part[0]):
        columns = [kernel for _, _, kernel in group]
        if columns == [""]:
            above += " " * _COUNT
            kernels.append(library)
        else:
            above += f" {library:^{_COUNT * len(columns) - 1}}"
            kernels.extend(columns)
    return above.rstrip(), kernels


def _label_lines(report: VerificationReport) -> Iterator[str]:
    """The rows below the layers: labels, and the probabilities made of logits."""
    if report.top1:
        differing = {source: a.total - a.same for source, a in report.top1.items()}
        total = max(a.total for a in report.top1.values())
        cells = [_short(differing[s]) if s in differing else "-" for s in report.sources]
        yield _line(report, "top-1 labels", _short(total), cells)
    if report.probabilities:
        total = max(c.total for c in report.probabilities.values())
        cells = [_cell(report.probabilities.get(source)) for source in report.sources]
        yield _line(report, "probabilities (aside)", _short(total), cells)


def _details(report: VerificationReport) -> Iterator[str]:
    """What does not fit a cell: largest differences, the proof, the file, who did not run."""
    yield from _listed(
        f"{layer.name}, {source}: {_counted(comparison)}"
        for layer in report.layers
        for source, comparison in layer.sources.items()
        if comparison.differing
    )
    yield from _proof_lines(report)
    if report.file_differences:
        yield "File: differs from what the model gives:"
        yield from _listed(f"  {difference}" for difference in report.file_differences)
    else:
        yield "File: every weight, bias, scale and zero point is the model's."
    yield from _listed(f"Missing: {missing}" for missing in report.missing)
    for runtime, reason in report.not_run.items():
        yield from _wrap(f"Not run: {runtime}: {reason}")


def _proof_lines(report: VerificationReport) -> Iterator[str]:
    proved = sum(proof.num_proved for proof in report.proofs)
    total = sum(proof.num_channels for proof in report.proofs)
    line = f"Proof: {proved:,} of {total:,} channels of {len(report.proofs)} operations"
    margins = [proof for proof in report.proofs if proof.margin is not None]
    if margins:
        least = min(margins, key=lambda proof: proof.margin or 0.0)
        line += f"; smallest margin {least.margin:.3g} accumulator units, at {least.name}"
    yield from _wrap(line + ".")
    yield from _listed(f"  {p.name}: {p.failure}" for p in report.proofs if not p.holds)


def _listed(lines: Iterable[str]) -> Iterator[str]:
    """The first lines, and how many more there are."""
    every = list(lines)
    for line in every[:_LISTED]:
        yield from _wrap(line)
    if len(every) > _LISTED:
        yield f"... and {len(every) - _LISTED:,} more"


def _counted(comparison: Comparison) -> str:
    return (
        f"{comparison.differing:,} of {comparison.total:,} levels, largest difference "
        f"{comparison.largest}"
    )


def _cell(comparison: Comparison | None) -> str:
    return "-" if comparison is None else _short(comparison.differing)


def _short(count: int) -> str:
    """A count in at most five characters: 12345, then 1.2M."""
    if count < 100_000:
        return str(count)
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            number = count / size
            return f"{number:.1f}{unit}" if number < 100 else f"{number:.0f}{unit}"
    raise AssertionError(count)


def _line(report: VerificationReport, name: str, levels: str, cells: Sequence[str]) -> str:
    width = _name_width(report)
    text = f"{fit_text(name, width):<{width}}{levels:>{_LEVELS}}"
    return (text + "".join(f"{cell:>{_COUNT}}" for cell in cells)).rstrip()


def _name_width(report: VerificationReport) -> int:
    widest = max([len("probabilities (aside)"), *(len(layer.name) for layer in report.layers)])
    return min(widest, _WIDTH - _LEVELS - _COUNT * len(report.sources))


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent="  ", drop_whitespace=True)
