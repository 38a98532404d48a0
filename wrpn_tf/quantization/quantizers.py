"""Quantizers with tfmot's `Quantizer` interface, for both Keras, and the way to integers.

They do not import tfmot; `wrpn_tf.quantization.quantize_scheme` registers them as its subclasses.
Each has `to_int` and `scale`, in NumPy: `real == scale * integer` in float32, exactly what the
network computes with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from keras import ops

from wrpn_tf.grid import (
    Grid,
    activation_grid,
    affine_grid,
    check_num_bits,
    is_positive,
    weight_grid,
)
from wrpn_tf.quantization.fake_quantize import (
    coarsen,
    coarsen_affine,
    fake_quantize,
    fake_quantize_affine,
    round_to_integers,
    smallest_level,
    straight_through,
)
from wrpn_tf.quantization.quantizer_variables import add_variable
from wrpn_tf.quantization.weight_scale import (
    check_weight_scale,
    compute_weight_scale,
    divide_by_step,
    follows_weights,
)

_SMALLEST_RANGE = 1e-3


class Quantizer:
    """What tfmot asks of a quantizer.

    Attributes:
        num_bits: Bits of the quantized values.
    """

    num_bits: int

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        """Creates the quantizer's variables as weights of `layer`; returns them by name."""
        raise NotImplementedError

    def __call__(self, inputs: Any, training: Any, weights: Mapping[str, Any], **kwargs: Any):
        """Returns `inputs` rounded to the quantizer's levels.

        Args:
            inputs: The tensor.
            training: Whether the step trains.
            weights: What `build` returned.
            **kwargs: Ignored; part of tfmot's interface.
        """
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        raise NotImplementedError

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Quantizer:
        """Returns the quantizer that `get_config` describes."""
        return cls(**config)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.get_config() == other.get_config()

    def __hash__(self) -> int:
        return hash((type(self), repr(self.get_config())))

    def __repr__(self) -> str:
        arguments = ", ".join(f"{k}={v!r}" for k, v in self.get_config().items())
        return f"{type(self).__name__}({arguments})"


class WRPNWeightQuantizer(Quantizer):
    """k-bit weights: integers n on the WRPN grid, times a step.

    w_k = step * round(clip(w / step, -L, L)), L = 2^(k-1) - 1, step = largest / L; 2-bit weights
    are ternary. One bit: sign(w) mean(abs(w)), sign(0) = +1. Straight-through gradient: 1 where
    abs(w) <= largest (one bit: where abs(w) <= 1), else 0; the step gets none. Where `largest`
    follows the weights (`"mean"`, `"max"`), the gradient is 1 everywhere: among ternary weights
    22 % of a normal distribution lie beyond the largest level and would be stuck there.

    Args:
        num_bits: 1..8.
        weight_scale: The rule for `largest`: see `weight_scale.compute_weight_scale`.
        channel_axes: Axes of the weights that index output channels.

    Raises:
        TypeError, ValueError: If an argument is out of range.

    Source: WRPN, arXiv 1709.01134, section 5.
    """

    def __init__(
        self,
        num_bits: int,
        weight_scale: str | float,
        channel_axes: Sequence[int] = (-1,),
    ):
        self.num_bits = check_num_bits(num_bits, "num_bits_weight")
        self.weight_scale = check_weight_scale(weight_scale)
        self.channel_axes = tuple(int(axis) for axis in channel_axes)

    @property
    def grid(self) -> Grid:
        """The integers that the weights take."""
        return weight_grid(self.num_bits)

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        """Creates nothing: the step follows from the weights."""
        return {}

    def __call__(self, inputs: Any, training: Any, weights: Mapping[str, Any], **kwargs: Any):
        """Returns the quantized weights; see the class."""
        latent = ops.cast(inputs, "float32")
        scaled, step = self._scaled_and_step(latent)
        if self.num_bits == 1:
            inside = ops.cast(ops.abs(latent) <= 1, "float32")
            scaled = ops.stop_gradient(scaled) + (scaled - ops.stop_gradient(scaled)) * inside
        quantized = round_to_integers(scaled, self.grid) * step
        if self.num_bits > 1 and follows_weights(self.weight_scale):
            quantized = straight_through(latent, quantized, ops.ones_like(latent))
        return ops.cast(quantized, inputs.dtype)

    def scale(self, weights: Any) -> npt.NDArray[np.float32]:
        """Returns the step between levels, broadcastable against `weights`."""
        _, step = self._scaled_and_step(_float32(weights))
        return np.asarray(ops.convert_to_numpy(step))

    def to_int(self, weights: Any) -> npt.NDArray[np.int32]:
        """Returns the integers n of latent weights: quantized == scale(weights) * float32(n)."""
        scaled, _ = self._scaled_and_step(_float32(weights))
        return self.grid.to_int(ops.convert_to_numpy(scaled), 1.0)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "num_bits": self.num_bits,
            "weight_scale": self.weight_scale,
            "channel_axes": list(self.channel_axes),
        }

    def _scaled_and_step(self, latent: Any) -> tuple[Any, Any]:
        axes = [axis % len(latent.shape) for axis in self.channel_axes]
        largest = compute_weight_scale(latent, self.num_bits, self.weight_scale, axes)
        return divide_by_step(latent, largest, self.num_bits)


class WRPNActivationQuantizer(Quantizer):
    """k-bit activations on [0, range], or about [-range, range] where signed.

    a_k = range / L * round(clip(a / range, 0, 1) * L), L = 2^k - 1; signed: L = 2^(k-1) - 1, and
    the lower clip is -(L + 1) / L. The range is a variable: fixed, learned, and set by
    `wrpn_tf.calibrate`. Straight-through gradient: 1 inside the range, ends included, 0 outside; a
    learned range gets the gradient of the clipped values (PACT, arXiv 1805.06085).

    Args:
        num_bits: 1..8; signed: 2..8.
        initial_range: The range before training, > 0. The paper's is 1.
        learned: Whether the range trains.
        signed: Whether values may be negative.
        max_range: What the range never exceeds, as 6 for ReLU6; or None.

    Raises:
        TypeError, ValueError: If an argument is out of range.

    Source: WRPN, arXiv 1709.01134, section 5.
    """

    def __init__(
        self,
        num_bits: int,
        initial_range: float = 1.0,
        learned: bool = False,
        signed: bool = False,
        max_range: float | None = None,
    ):
        self.num_bits = check_num_bits(num_bits, "num_bits_activation")
        if signed and num_bits == 1:
            raise ValueError("`num_bits_activation` must be in 2..8 for signed values, got 1.")
        self.initial_range = _check_positive(initial_range, "activation_range")
        self.learned = bool(learned)
        self.signed = bool(signed)
        self.max_range = None if max_range is None else _check_positive(max_range, "max_range")

    @property
    def grid(self) -> Grid:
        """The integers that the activations take."""
        return activation_grid(self.num_bits, self.signed)

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        """Creates the variable `range`, a float32 scalar."""
        start = min(self.initial_range, self.max_range or self.initial_range)
        return {"range": add_variable(layer, f"{name}_range", start, trainable=self.learned)}

    def __call__(self, inputs: Any, training: Any, weights: Mapping[str, Any], **kwargs: Any):
        """Returns the quantized activations; see the class."""
        limit = _limited(ops.convert_to_tensor(weights["range"]), self.max_range)
        rounded = fake_quantize(ops.cast(inputs, "float32"), self.grid, limit)
        return ops.cast(rounded, inputs.dtype)

    def scale(self, weights: Mapping[str, Any]) -> np.float32:
        """Returns the distance between levels: range / L."""
        limit = np.float32(
            ops.convert_to_numpy(_limited(_float32(weights["range"]), self.max_range))
        )
        span = limit - smallest_level(self.grid, limit)
        return np.float32(span / np.float32(self.grid.high - self.grid.low))

    def to_int(self, values: Any, weights: Mapping[str, Any]) -> npt.NDArray[np.int32]:
        """Returns the integers q of float activations: quantized == scale(weights) * float32(q)."""
        return self.grid.to_int(values, self.scale(weights))

    def coarsen(self, values: Any, num_bits: int, weights: Mapping[str, Any]) -> Any:
        """Returns quantized values rounded to the nested grid of fewer bits: `Grid.coarsen`."""
        limit = _limited(ops.convert_to_tensor(weights["range"]), self.max_range)
        rounded = coarsen(ops.cast(values, "float32"), self.grid, limit, num_bits)
        return ops.cast(rounded, values.dtype)

    def set_range(self, weights: Mapping[str, Any], smallest: float, largest: float) -> None:
        """Sets the range so that it covers [smallest, largest]."""
        below = smallest * self.grid.high / self.grid.low if self.signed else 0.0
        reach = max(below, largest)
        weights["range"].assign(_check_positive(reach, "range"))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "num_bits": self.num_bits,
            "initial_range": self.initial_range,
            "learned": self.learned,
            "signed": self.signed,
            "max_range": self.max_range,
        }


class ObservedQuantizer(Quantizer):
    """k-bit values on a range observed in training, 0 always a level.

    For inputs, logits and values of unknown scale.

    The range grows at once to what a training batch holds (an end that is infinite or NaN is left
    out) and shrinks towards it by `decay` per step; until the first training step or calibration,
    values pass unrounded. q = round(x / scale) in -z..2^k - 1 - z with the zero point z, as
    `wrpn_tf.grid.affine_grid`. Straight-through gradient, 1 inside the range.

    Args:
        num_bits: 2..8.
        decay: Share of the way that the range shrinks per training step, in [0, 1). 0 keeps the
            extremes.

    Raises:
        TypeError, ValueError: If an argument is out of range.
    """

    def __init__(self, num_bits: int, decay: float = 0.0):
        self.num_bits = check_num_bits(num_bits, "num_bits_activation")
        if num_bits == 1:
            raise ValueError("`num_bits_activation` must be in 2..8 for an observed range, got 1.")
        if not 0 <= decay < 1:
            raise ValueError(f"`decay` must be in [0, 1), got {decay}.")
        self.decay = float(decay)

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        """Creates `smallest` and `largest`, float32 scalars; both 0 until a value was seen."""
        return {
            end: add_variable(layer, f"{name}_{end}", 0.0, trainable=False)
            for end in ("smallest", "largest")
        }

    def __call__(self, inputs: Any, training: Any, weights: Mapping[str, Any], **kwargs: Any):
        """Returns the quantized values; see the class."""
        values = ops.cast(inputs, "float32")
        smallest = ops.convert_to_tensor(weights["smallest"])
        largest = ops.convert_to_tensor(weights["largest"])
        if training:
            seen = ops.stop_gradient(values)
            low, high = ops.minimum(ops.min(seen), 0.0), ops.maximum(ops.max(seen), 0.0)
            # A step that overflowed, as those that a loss scale skips, says nothing of the values.
            low = ops.where(ops.isfinite(low), low, smallest)
            high = ops.where(ops.isfinite(high), high, largest)
            smallest = ops.minimum(low, smallest + self.decay * (low - smallest))
            largest = ops.maximum(high, largest + self.decay * (high - largest))
            weights["smallest"].assign(smallest)
            weights["largest"].assign(largest)
        rounded = ops.cond(
            largest > smallest,
            lambda: fake_quantize_affine(values, self.num_bits, smallest, largest),
            lambda: values,
        )
        return ops.cast(rounded, inputs.dtype)

    def grid(self, weights: Mapping[str, Any]) -> Grid:
        """Returns the integers that the values take; the zero point is `-grid.low`."""
        return self._grid_and_scale(weights)[0]

    def scale(self, weights: Mapping[str, Any]) -> np.float32:
        """Returns the distance between levels."""
        return self._grid_and_scale(weights)[1]

    def to_int(self, values: Any, weights: Mapping[str, Any]) -> npt.NDArray[np.int32]:
        """Returns the integers q of float values: quantized == scale(weights) * float32(q)."""
        grid, scale = self._grid_and_scale(weights)
        return grid.to_int(values, scale)

    def coarsen(self, values: Any, num_bits: int, weights: Mapping[str, Any]) -> Any:
        """Returns quantized values rounded to the nested grid of fewer bits: `Grid.coarsen`.

        Values of a range that was not observed yet pass.
        """
        smallest, largest = (ops.convert_to_tensor(weights[end]) for end in ("smallest", "largest"))
        rounded = coarsen_affine(
            ops.cast(values, "float32"), self.num_bits, smallest, largest, num_bits
        )
        return ops.cast(rounded, values.dtype)

    def set_range(self, weights: Mapping[str, Any], smallest: float, largest: float) -> None:
        """Sets the range to cover [smallest, largest] and 0."""
        affine_grid(self.num_bits, smallest, largest)  # refuses an empty range
        weights["smallest"].assign(min(smallest, 0.0))
        weights["largest"].assign(max(largest, 0.0))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"num_bits": self.num_bits, "decay": self.decay}

    def _grid_and_scale(self, weights: Mapping[str, Any]) -> tuple[Grid, np.float32]:
        ends = (float(ops.convert_to_numpy(weights[end])) for end in ("smallest", "largest"))
        return affine_grid(self.num_bits, *ends)


_CLASSES = {
    c.__name__: c for c in (WRPNWeightQuantizer, WRPNActivationQuantizer, ObservedQuantizer)
}


def serialize(quantizer: Quantizer | None) -> dict[str, Any] | None:
    """Returns a JSON-ready description of one of this module's quantizers."""
    if quantizer is None:
        return None
    return {"class_name": type(quantizer).__name__, "config": quantizer.get_config()}


def deserialize(description: dict[str, Any] | None) -> Any:
    """Returns the quantizer that `serialize` described.

    Raises:
        ValueError: If it names no quantizer of this module.
    """
    if description is None:
        return None
    if description["class_name"] not in _CLASSES:
        raise ValueError(
            f"`class_name` must be one of {', '.join(_CLASSES)}, got {description['class_name']!r}."
        )
    return _CLASSES[description["class_name"]].from_config(description["config"])


def _float32(values: Any) -> Any:
    return ops.convert_to_tensor(values, "float32")


def _limited(value: Any, max_range: float | None) -> Any:
    """Keeps a learned range positive, and below `max_range`; its gradient passes, to come back."""
    limited = ops.maximum(value, _SMALLEST_RANGE)
    limited = limited if max_range is None else ops.minimum(limited, max_range)
    return ops.stop_gradient(limited) + (value - ops.stop_gradient(value))


def _check_positive(value: float, argument: str) -> float:
    if not is_positive(value):
        raise ValueError(f"`{argument}` must be a positive number, got {value!r}.")
    return float(value)
