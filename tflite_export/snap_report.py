"""What snapping moved, layer by layer."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from tflite_export.snapping_values import LevelCheck
from wrpn_tf.text_table import fit_text

Reals = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, eq=False)
class LayerMoves:
    """The moves of one layer, one value per channel.

    Attributes:
        name: The layer's.
        scale_moves: Folded scale after / before - 1.
        bias_moves: Folded bias after - before, in output levels.
        margins: Distance of the nearest reachable accumulator to a threshold, in units of the
            file's accumulator; infinite where no threshold is within reach.
        relative_margins: The same in relation to the accumulator.
        exact: Whether all kernels agree at every reachable accumulator.
    """

    name: str
    scale_moves: Reals
    bias_moves: Reals
    margins: Reals
    relative_margins: Reals
    exact: npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True, eq=False)
class SnapReport:
    """What `snap` moved.

    Attributes:
        layers: The kernel layers', in the order of the graph.
        others: Sum, product or function -> whether all kernels agree on it, and by which margin.
        biased: The layers that were given a bias.
        tensors: Rounded tensor -> its scale after / before - 1.
        accuracies: Top-1 before and after, or None.
    """

    layers: tuple[LayerMoves, ...]
    others: Mapping[str, LevelCheck]
    biased: tuple[str, ...]
    tensors: Mapping[str, float]
    accuracies: tuple[float, ...] | None

    @property
    def exact(self) -> bool:
        """Whether every kernel agrees on every channel of every layer, and on all others."""
        return not (self.inexact_layers or self.inexact_others)

    @property
    def inexact_layers(self) -> tuple[str, ...]:
        """The layers in which kernels differ."""
        return tuple(layer.name for layer in self.layers if not layer.exact.all())

    @property
    def inexact_others(self) -> tuple[str, ...]:
        """The sums, products and functions in which kernels differ, from each other or training."""
        return tuple(name for name, found in self.others.items() if not found.exact)

    def __str__(self) -> str:
        names = [*(layer.name for layer in self.layers), *self.others]
        width = min(40, max([5, *map(len, names)]))
        head = f"{'layer':{width}} {'channels':>9} {'not exact':>10} "
        head += f"{'scale moves':>12} {'bias moves':>11} {'margin':>10}"
        lines = [head, *(_layer_line(layer, width) for layer in self.layers)]
        lines += [_other_line(name, found, width) for name, found in self.others.items()]
        moved = max((abs(move) for move in self.tensors.values()), default=0.0)
        lines.append(f"Scales of tensors moved by at most {100 * moved:.2f} %.")
        if self.biased:
            lines += textwrap.wrap(f"Given a bias: {', '.join(self.biased)}.", 100)
        if self.accuracies is not None:
            before, after = (100 * accuracy for accuracy in self.accuracies)
            lines.append(f"Top-1 accuracy: {before:.2f} % before, {after:.2f} % after.")
        lines.append(
            "Moves: the largest, in % and in levels. Margins: the smallest, relative; of "
            "others in levels."
        )
        return "\n".join(lines)


def _layer_line(layer: LayerMoves, width: int) -> str:
    count, inexact = len(layer.exact), int((~layer.exact).sum())
    return (
        f"{fit_text(layer.name, width):{width}} {count:9} {inexact:10} "
        f"{100 * np.abs(layer.scale_moves).max():11.3f}% {np.abs(layer.bias_moves).max():11.4f} "
        f"{layer.relative_margins.min():10.1e}"
    )


def _other_line(name: str, found: LevelCheck, width: int) -> str:
    fitted, inexact = fit_text(name, width), int(not found.exact)
    return f"{fitted:{width}} {found.kind:>9} {inexact:10} {found.margin:35.1e}"
