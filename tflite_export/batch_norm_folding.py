"""A kernel, its bias and the batch norm behind them as one scale and one bias per channel.

Folding is in float64; `adopt` is its inverse: it writes a scale and a bias back into the model, so
that Keras, the accelerator and the file compute the same function.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt

Reals = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, eq=False)
class FoldedKernel:
    """Integer weights with the affine map of their sums: real = scale * s_x * sum(n q) + bias.

    Attributes:
        integers: int8 in TFLite's layout (see `integer_model.Kernel`), signs turned where batch
            norm's gamma is negative, so that no scale is.
        num_bits: Bits of the integers.
        channel_axis: The output channels' axis of `integers`.
        scale: [channels], > 0; real value of one unit of the integers.
        bias: [channels], real.
        origin: Where the scale and the bias stand in the model.
        shift: Levels of the output that are added besides, to keep results from 0 on.
        spread: See `integer_model.Kernel`.
    """

    integers: npt.NDArray[np.int8]
    num_bits: int
    channel_axis: int
    scale: Reals
    bias: Reals
    origin: Origin
    shift: int = 0
    spread: int = 1


@dataclasses.dataclass(frozen=True, eq=False)
class Origin:
    """The layers that a folded kernel's scale and bias come from.

    Attributes:
        step: [channels], real value of one unit of the weights' grid (1 without weights).
        kernel: The kernel layer's latent weights and their quantizer, or None.
        bias: The kernel layer's bias variable, or None.
        batch_norm: The BatchNormalization layer, or None.
        slope: A PReLU's variable of slopes, of one value or one per channel, or None.
    """

    step: Reals
    kernel: tuple[Any, Any] | None = None
    bias: Any = None
    batch_norm: Any = None
    slope: Any = None

    @property
    def owner(self) -> Any:
        """The layer or variable whose values the scale is made of; None if there is none."""
        if self.batch_norm is not None:
            return self.batch_norm
        return self.slope if self.kernel is None else self.kernel[0]

    @property
    def scale_freedom(self) -> str:
        """What can be scaled: `"channel"`, `"layer"` (all channels alike) or `"none"`.

        Without a batch norm the weights themselves can be, where their step grows with them.
        """
        if self.batch_norm is not None or self.slope is not None:
            return "channel"
        if self.kernel is None:
            return "none"
        quantizer = self.kernel[1]
        rule = quantizer.weight_scale
        if not isinstance(rule, str):
            return "none"
        if rule.endswith("_per_channel"):
            return "channel"
        return "layer" if rule in ("mean", "max") or quantizer.num_bits == 1 else "none"

    @property
    def has_free_bias(self) -> bool:
        """Whether each channel's bias can be set."""
        return self.batch_norm is not None or self.bias is not None


def fold(integers: npt.NDArray[np.int8], num_bits: int, axis: int, origin: Origin) -> FoldedKernel:
    """Folds bias and batch norm: gamma (x + bias - mean) / sqrt(variance + epsilon) + beta.

    Args:
        integers: int8 weights in TFLite's layout.
        num_bits: Bits of the integers.
        axis: The output channels' axis of `integers`.
        origin: Where scale and bias come from.
    """
    gain, offset = _gain_and_offset(origin)
    scale = gain * origin.step
    signs = np.sign(scale).astype(np.int8)  # 0 where gamma is: the channel is its bias alone.
    shape = [1] * integers.ndim
    shape[axis] = -1
    return FoldedKernel(
        integers=integers * signs.reshape(shape),
        num_bits=num_bits,
        channel_axis=axis,
        scale=np.where(signs == 0, origin.step, np.abs(scale)),
        bias=offset,
        origin=origin,
    )


def adopt(kernel: FoldedKernel, scale: Reals, bias: Reals) -> None:
    """Writes a scale and a bias into the layers that a folded kernel comes from.

    Channels whose scale and bias stay keep their variables' values to the bit.

    Args:
        kernel: As folded before.
        scale: [channels], > 0; differs from `kernel.scale` only as `scale_freedom` allows.
        bias: [channels]; differs from `kernel.bias` only if the origin's bias is free.
    """
    origin = kernel.origin
    moved = (scale != kernel.scale) | (bias != kernel.bias)
    if origin.batch_norm is not None:
        gain, _ = _gain_and_offset(origin)
        _set_gain(origin.batch_norm, np.sign(gain) * scale / origin.step, moved)
        _set_offset(origin, bias, moved)
        return
    if origin.slope is not None:
        gain, _ = _gain_and_offset(origin)
        _set_slope(origin.slope, np.sign(gain) * scale / origin.step, moved)
    if origin.kernel is not None and (scale != kernel.scale).any():
        _scale_weights(*origin.kernel, scale / kernel.scale)
    if origin.bias is not None:
        _assign(origin.bias, bias, moved)


def _scale_weights(variable: Any, quantizer: Any, factor: Reals) -> None:
    """Multiplies the latent weights of each channel: their step follows, their integers stay."""
    axes = [axis % len(variable.shape) for axis in quantizer.channel_axes]
    shape = [size if axis in axes else 1 for axis, size in enumerate(variable.shape)]
    variable.assign((_values(variable) * factor.reshape(shape)).astype(np.float32))


def _gain_and_offset(origin: Origin) -> tuple[Reals, Reals]:
    """What multiplies a sum before it is scaled, and what is added, per channel."""
    channels = origin.step.shape
    bias = np.zeros(channels) if origin.bias is None else _values(origin.bias)
    norm = origin.batch_norm
    if norm is None:
        slopes = 1.0 if origin.slope is None else _values(origin.slope).reshape(-1)
        return np.broadcast_to(slopes, channels), bias
    gamma = np.ones(channels) if norm.gamma is None else _values(norm.gamma)
    beta = np.zeros(channels) if norm.beta is None else _values(norm.beta)
    gain = gamma / _deviation(norm)
    return gain, gain * (bias - _values(norm.moving_mean)) + beta


def _set_gain(norm: Any, gain: Reals, where: npt.NDArray[np.bool_]) -> None:
    """Sets gamma / deviation: through gamma, or where there is none through the variance."""
    if norm.gamma is not None:
        _assign(norm.gamma, gain * _deviation(norm), where)
    else:
        _assign(norm.moving_variance, gain**-2.0 - norm.epsilon, where)


def _set_slope(variable: Any, slopes: Reals, where: npt.NDArray[np.bool_]) -> None:
    """Sets a PReLU's slopes; beyond 1 it would not be the larger of x and its slope times x.

    Channels that share one slope have one function, and so one aim.
    """
    shape = tuple(variable.shape)
    count = math.prod(shape)
    bounded = np.minimum(slopes, 1.0)
    _assign(variable, bounded[:count].reshape(shape), where[:count].reshape(shape))


def _set_offset(origin: Origin, bias: Reals, where: npt.NDArray[np.bool_]) -> None:
    """Sets the folded bias: through beta, or where there is none through the mean."""
    norm = origin.batch_norm
    gain, offset = _gain_and_offset(origin)
    if norm.beta is not None:
        _assign(norm.beta, _values(norm.beta) + bias - offset, where)
    else:
        moved = (bias - offset) / np.where(gain == 0, 1.0, gain)
        _assign(norm.moving_mean, _values(norm.moving_mean) - moved, where)


def _assign(variable: Any, values: Reals, where: npt.NDArray[np.bool_]) -> None:
    """Sets some of a variable's values."""
    variable.assign(np.where(where, values, _values(variable)).astype(np.float32))


def _deviation(norm: Any) -> Reals:
    return np.asarray(np.sqrt(_values(norm.moving_variance) + norm.epsilon))


def _values(variable: Any) -> Reals:
    return np.asarray(variable.numpy(), np.float64)
