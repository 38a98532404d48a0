"""SCALE-Sim's GEMM topology files: `Layer, M, N, K,`, one product a line.

Source: SCALE-Sim, github.com/scalesim-project/scale-sim-v2, topologies/GEMM_mnk.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from wrpn_tf.accelerator.trace import Gemm

_HEADER = ("Layer", "M", "N", "K")
_LENGTHS = (_HEADER[1:], (*_HEADER[1:], ""))  # some of its files end their lines without a comma


def to_gemm_csv(gemms: Iterable[tuple[str, Gemm]]) -> str:
    """Returns products as the text of a GEMM topology file.

    SCALE-Sim knows no passes: a product of several has a line for each, named `name_1`, `name_2`...

    Args:
        gemms: (layer's name, product), in order. Commas and line breaks in names become "_".
    """
    lines = [", ".join(_HEADER) + ","]
    for name, gemm in gemms:
        plain = "_".join(name.replace(",", " ").split()) or "layer"
        for index in range(1, gemm.passes + 1):
            label = plain if gemm.passes == 1 else f"{plain}_{index}"
            lines.append(f"{label}, {gemm.M}, {gemm.N}, {gemm.K},")
    return "\n".join(lines) + "\n"


def from_gemm_csv(text: str) -> tuple[tuple[str, Gemm], ...]:
    """Returns the products of a GEMM topology file, (layer's name, product) each, of one pass.

    The first column may also be headed "Layer Name", as in some of SCALE-Sim's own files.

    Raises:
        ValueError: If the header or a line is not as SCALE-Sim's; the line's number is given.
    """
    rows = [
        (number, [field.strip() for field in row])
        for number, row in enumerate(csv.reader(io.StringIO(text)), start=1)
        if any(field.strip() for field in row)
    ]
    header = rows[0][1] if rows else [""]
    if not header[0].startswith(_HEADER[0]) or tuple(header[1:]) not in _LENGTHS:
        raise ValueError(f"`text` must begin with the line 'Layer, M, N, K,', got {text[:40]!r}.")
    return tuple(_product(number, fields) for number, fields in rows[1:])


def _product(number: int, fields: list[str]) -> tuple[str, Gemm]:
    name, *lengths = fields if fields[-1] else fields[:-1]
    if len(lengths) != 3 or not all(length.isdecimal() and int(length) for length in lengths):
        raise ValueError(
            f"`text` must have a name and three numbers >= 1 in line {number}, got {fields}."
        )
    M, N, K = map(int, lengths)
    return name, Gemm(M=M, N=N, K=K)
