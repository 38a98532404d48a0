"""`widen_and_quantize`: WRPN in one call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wrpn_tf.quantization.layer_settings import Bits, Override, QuantizationRules
from wrpn_tf.quantization.quantize_model import quantize
from wrpn_tf.regions import RegionPrecision
from wrpn_tf.regions.region_precision import check_region_precision
from wrpn_tf.widening.widen import check_preservation, widen
from wrpn_tf.widening.width_plan import WidthRules


def widen_and_quantize(
    model: Any,
    *,
    width_multiplier: float = 2.0,
    layer_fraction: float = 1.0,
    width_overrides: Mapping[str, float] | None = None,
    divisor: int = 8,
    preserve_function: bool = False,
    noise: float = 0.0,
    seed: int | None = None,
    num_bits_weight: int = 2,
    num_bits_activation: int = 8,
    weight_scale: str | float = "mean",
    activation_range: str | float = "learned",
    first_layer: Bits = 8,
    last_layer: Bits = 8,
    overrides: Mapping[str, Override] | None = None,
    region_precision: RegionPrecision | None = None,
) -> Any:
    """Returns a wider copy of a float model that computes in k bits, and trains.

    `wrpn_tf.widen_model`, then `wrpn_tf.quantize_model`; their documentation has the details.

    Widened layers start from new random weights, as in the paper, which trains from scratch;
    `preserve_function=True` starts from copies of the model's. Where nothing is widened
    (`width_multiplier=1`), the weights are the model's.

    Args:
        model: A Functional or Sequential model, of Keras 3 or tf_keras. It is not changed.
        width_multiplier: New filters / old filters. 1 leaves the widths.
        layer_fraction: The part of the layers to widen, from the input on, in (0, 1]; 0.3 in "WRPN
            & Apprentice".
        width_overrides: Regular expression on layer names -> multiplier.
        divisor: What widths from a fractional multiplier are rounded to.
        preserve_function: Whether the wider float model computes what `model` does.
        noise: With `preserve_function`: what parts the copies.
        seed: Seed of the noise.
        num_bits_weight: Bits of weights, 1..8; 2 is ternary.
        num_bits_activation: Bits of activations, 1..8.
        weight_scale: Rule for the real value of the largest weight level.
        activation_range: A fixed range, `"learned"` or `"observed"`.
        first_layer: Bits of the first layers' weights, or `"float"`.
        last_layer: Bits of the last layers' weights, or `"float"`.
        overrides: Regular expression on layer names -> bits, scale, range, or `"float"`.
        region_precision: Fewer bits for the unimportant parts of each image.

    Returns:
        A Functional model of the model's own flavour.

    Raises:
        TypeError, ValueError: As `wrpn_tf.widen_model` and `wrpn_tf.quantize_model`.

    Source: Mishra et al., WRPN, arXiv 1709.01134, sections 3 and 5.
    """
    width_rules = WidthRules(width_multiplier, layer_fraction, width_overrides or {}, divisor)
    check_preservation(preserve_function, noise, seed)
    rules = QuantizationRules(
        num_bits_weight=num_bits_weight,
        num_bits_activation=num_bits_activation,
        weight_scale=weight_scale,
        activation_range=activation_range,
        first_layer=first_layer,
        last_layer=last_layer,
        overrides=overrides,
    )
    check_region_precision(region_precision)
    if width_multiplier == 1 and not width_overrides:
        return quantize(model, rules, region_precision)
    wide, layers = widen(model, width_rules, preserve_function, noise, seed)
    # Nested models are flat now; the user's rules name their layers as before.
    paths = {layer.name: path for path, layer in layers.items()}
    return quantize(wide, rules, region_precision, paths)
