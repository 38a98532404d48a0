"""A short notation for every quantizer in a model, and small nets to quantize."""

from __future__ import annotations

import numpy as np
import pytest

from wrpn_tf.quantization import (
    ObservedQuantizer,
    WRPNActivationQuantizer,
    WRPNWeightQuantizer,
    inner_layer,
    is_quantized,
)


def _notation(quantizer) -> str:
    """`w2`; `u8` and `s8` on a learned range, `u8=1.0` on a fixed one; `o8` observed, `i8` kept."""
    bits = quantizer.num_bits
    if isinstance(quantizer, WRPNWeightQuantizer):
        rule = "" if quantizer.weight_scale == "mean" else f"={quantizer.weight_scale}"
        return f"w{bits}{rule}"
    if isinstance(quantizer, ObservedQuantizer):
        return f"o{bits}" if quantizer.decay else f"i{bits}"
    assert isinstance(quantizer, WRPNActivationQuantizer), f"a hidden {quantizer!r}"
    sign = "s" if quantizer.signed else "u"
    limit = f"<={quantizer.max_range}" if quantizer.max_range and quantizer.learned else ""
    fixed = "" if quantizer.learned else f"={quantizer.initial_range}"
    return f"{sign}{bits}{fixed}{limit}"


def _quantizers(layer) -> list:
    """Every quantizer that a layer runs, found in what it runs and not in what it was told."""
    if type(layer).__name__ == "QuantizeWrapperV2":  # tfmot's
        assert not layer._quantize_activations
        return [q for _, q, _ in layer._weight_vars] + list(layer._output_quantizers)
    if type(layer).__name__ == "QuantizeWrapper":
        pairs = layer.quantize_config.get_weights_and_quantizers(layer.layer)
        return [q for _, q in pairs] + list(layer._output_quantizers)
    return [layer.quantizer]


def _all_layers(model):
    for layer in model.layers:
        yield layer
        if hasattr(layer, "layers"):
            yield from _all_layers(layer)


@pytest.fixture
def listed():
    """Returns a function: model -> {layer name: its quantizers' notation}, nothing left out."""

    def describe(model) -> dict[str, str]:
        found = {}
        for layer in _all_layers(model):
            if is_quantized(layer):
                name = layer.name.removeprefix("quant_")
                found[name] = " ".join(_notation(q) for q in _quantizers(layer))
            for value in vars(inner_layer(layer)).values():
                assert "Quantize" not in type(value).__name__ or is_quantized(layer), layer.name
        return found

    return describe


@pytest.fixture
def conv_net(flavor):
    """A small net with batch norm, ReLU, a residual sum, a pool and a head."""

    def make(filters: int = 4, size: int = 8, seed: int = 3, **head):
        L = flavor.layers
        x = inputs = flavor.keras.Input((size, size, 3), name="image")
        x = L.Conv2D(filters, 3, padding="same", use_bias=False, name="stem")(x)
        x = short = L.ReLU(name="relu0")(L.BatchNormalization(name="bn0")(x))
        x = L.Conv2D(filters, 3, padding="same", name="conv1")(x)
        x = L.ReLU(name="relu1")(L.BatchNormalization(name="bn1")(x))
        x = L.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
        x = L.BatchNormalization(name="bn2")(x)
        x = L.ReLU(name="relu2")(L.Add(name="add")([short, x]))
        x = L.GlobalAveragePooling2D(name="pool")(x)
        model = flavor.keras.Model(inputs, L.Dense(3, name="head", **head)(x), name="conv_net")
        generator = np.random.default_rng(seed)
        for layer in model.layers:
            if "bn" in layer.name:  # as if trained, a negative gamma among them
                size = layer.get_weights()[0].shape
                layer.set_weights(
                    [
                        generator.uniform(-0.5, 1.5, size),
                        generator.normal(size=size),
                        generator.normal(size=size),
                        generator.uniform(0.5, 2, size),
                    ]
                )
        return model

    return make


@pytest.fixture
def images():
    """Five examples of 8x8x3."""
    return np.random.default_rng(5).uniform(-1, 1, (5, 8, 8, 3)).astype(np.float32)
