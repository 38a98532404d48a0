"""The networks of `keras.applications` at 1.3x and with their first 30 % at 2x."""

from __future__ import annotations

import gc
import math

import numpy as np
import pytest

from tests.application_flavors import pairs
from wrpn_tf.model_graph import model_graph
from wrpn_tf.widening import plan_widths, widen_model

# Network -> side of the smallest images that it can take, or nearly.
IMAGE_SIZES = {
    "ConvNeXtTiny": 32,
    "DenseNet121": 32,
    "EfficientNetB0": 32,
    "InceptionResNetV2": 75,
    "InceptionV3": 75,
    "MobileNetV2": 32,
    "MobileNetV3Small": 32,
    "NASNetMobile": 32,
    "ResNet50": 32,
    "ResNet50V2": 32,
    "VGG16": 32,
    "Xception": 71,
}
# Layers that make 10 classes, or 512 features, whatever the width.
OUTPUTS = 1


@pytest.mark.slow
@pytest.mark.parametrize(("flavor", "name"), pairs(IMAGE_SIZES), indirect=["flavor"])
def test_application_at_1_3x_and_in_its_first_30_percent(flavor, name):
    model = _application(flavor, name)
    widths = _widths(model)
    plan = plan_widths(model)
    assert list(plan) == list(widths)
    assert sum(plan[path] != 2 * widths[path] for path in plan) == OUTPUTS
    # Not built: where 1.3x and the first 30 % at 2x fit together, so does twice everything.

    plan = plan_widths(model, width_multiplier=1.3)
    # A width of 8 stays: 10.4 is nearer to 8 than to 16.
    kept = [path for path in plan if plan[path] == widths[path] and widths[path] != 8]
    assert len(kept) == OUTPUTS
    for path in plan.keys() - kept:
        # Half of 8, and half of 8 once more where a sum with a concatenation splits the layer.
        assert abs(plan[path] - 1.3 * widths[path]) <= 8
        assert plan[path] % 8 == 0 or 1.3 * widths[path] < 8
    if name == "ConvNeXtTiny":
        with pytest.raises(ValueError, match="equally often"):
            widen_model(model, width_multiplier=1.3, preserve_function=True)
        _check_widened(model, plan, width_multiplier=1.3)
    else:
        wide = _check_widened(model, plan, width_multiplier=1.3, preserve_function=True)
        _check_equal_outputs(model, wide)

    plan = plan_widths(model, layer_fraction=0.3)
    first = math.ceil(0.3 * len(plan))
    assert all(plan[path] == 2 * widths[path] for path in list(plan)[:first])
    assert plan[list(plan)[-1]] == widths[list(plan)[-1]]
    wide = _check_widened(model, plan, layer_fraction=0.3)
    assert wide.count_params() < 2 * model.count_params()
    flavor.keras.backend.clear_session()
    gc.collect()


def _application(flavor, name):
    """The network with random weights and statistics, and logits for outputs where it has them."""
    size = IMAGE_SIZES[name]
    settings = {"weights": None, "input_shape": (size, size, 3), "classes": 10}
    if name == "VGG16":  # Its dense layers would have 500 million weights at 2x.
        settings.update(include_top=False, pooling="avg")
    elif name != "NASNetMobile":
        settings["classifier_activation"] = None
    model = getattr(flavor.keras.applications, name)(**settings)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if type(layer).__name__ in ("BatchNormalization", "LayerScale"):
            layer.set_weights([_random_statistic(rng, weight) for weight in layer.weights])
    return model


def _random_statistic(rng, weight):
    if "beta" in weight.name or "mean" in weight.name:
        return rng.normal(0, 0.2, weight.shape)
    return rng.uniform(0.7, 1.3, weight.shape)


def _widths(model):
    """Path -> width in the configuration, of convolutions and dense layers, depthwise left out."""
    widths = {}
    for path, layer in model_graph(model).layers().items():
        config = layer.get_config() if hasattr(layer, "get_config") else {}
        depthwise = config.get("groups", 1) > 1 or "Depthwise" in type(layer).__name__
        if not depthwise and ("filters" in config or "units" in config):
            widths[path] = config.get("filters") or config["units"]
    return widths


def _check_widened(model, plan, **arguments):
    wide = widen_model(model, **arguments)
    assert list(_widths(wide).values()) == list(plan.values())
    assert wide.input_shape == model.input_shape
    assert wide.output_shape == model.output_shape
    return wide


def _check_equal_outputs(model, wide):
    images = np.random.default_rng(1).uniform(0, 255, (2, *model.input_shape[1:])).astype("float32")
    expected = np.asarray(model(images, training=False))
    assert expected.std() > 0.05 * np.abs(expected).max()
    # Measured: up to 5e-6 of the largest output, over some 250 layers that each round their sums.
    tolerance = 5e-5 * np.abs(expected).max()
    np.testing.assert_allclose(np.asarray(wide(images, training=False)), expected, 0, tolerance)
