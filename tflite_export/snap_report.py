"""What snapping moved, layer by layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

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
        tensors: Rounded tensor -> its scale after / before - 1.
        accuracies: Top-1 before and after, or None.
    """

    layers: tuple[LayerMoves, ...]
    tensors: Mapping[str, float]
    accuracies: tuple[float, ...] | None

    @property
    def exact(self) -> bool:
        """Whether every kernel agrees on every channel of every layer."""
        return all(layer.exact.all() for layer in self.layers)

    def __str__(self) -> str:
        name = min(40, max([5, *(len(layer.name) for layer in self.layers)]))
        head = f"{'layer':{name}} {'channels':>9} {'not exact':>10} "
        head += f"{'scale moves':>12} {'bias moves':>11} {'margin':>10}"
        lines = [head, *(_line(layer, name) for layer in self.layers)]
        moved = max((abs(move) for move in self.tensors.values()), default=0.0)
        lines.append(f"Scales of tensors moved by at most {100 * moved:.2f} %.")
        if self.accuracies is not None:
            before, after = (100 * accuracy for accuracy in self.accuracies)
            lines.append(f"Top-1 accuracy: {before:.2f} % before, {after:.2f} % after.")
        lines.append(
            "Scale and bias moves: the largest, in % and in output levels. Margin: the smallest, "
            "relative."
        )
        return "\n".join(lines)


def _line(layer: LayerMoves, width: int) -> str:
    name = layer.name if len(layer.name) <= width else "…" + layer.name[1 - width :]
    return (
        f"{name:{width}} {len(layer.exact):9} {int((~layer.exact).sum()):10} "
        f"{100 * np.abs(layer.scale_moves).max():11.3f}% {np.abs(layer.bias_moves).max():11.4f} "
        f"{layer.relative_margins.min():10.1e}"
    )
