"""Reading the regions of a network: its region layers, and a model of their maps alone."""

from __future__ import annotations

from typing import Any

from wrpn_tf.keras_flavor import flavor_of
from wrpn_tf.model_graph import model_graph
from wrpn_tf.regions import METRICS, RegionPlan


def region_plan(model: Any) -> RegionPlan:
    """Returns what reads which part of the images in a model with regions.

    Raises:
        TypeError: If `model` is no Keras model.
        ValueError: If it has no regions.
    """
    return region_layers(model)[1].plan


def region_layers(model: Any) -> tuple[Any, Any]:
    """Returns the layers of a model that make importance of images and ranks of importance.

    Raises:
        TypeError: If `model` is no Keras model.
        ValueError: If it has no regions.
    """
    layers = {type(layer).__name__: layer for layer in model_graph(model).layers().values()}
    if "RegionMap" not in layers:
        raise ValueError(
            f"`model` must have regions, got {model.name!r} without: `wrpn_tf.apply_regions` "
            "gives it some."
        )
    return layers["Importance"], layers["RegionMap"]


def region_rule(model: Any) -> str:
    """Returns in words what makes parts of an image important: "entropy, kept 0.5".

    Raises:
        TypeError: If `model` is no Keras model.
        ValueError: If it has no regions.
    """
    importance, maps = region_layers(model)
    metric, rule = importance.metric, maps.rule
    names = {metric_class: name for name, metric_class in METRICS.items()}
    own_name = getattr(metric, "__name__", type(metric).__name__)
    values = ", ".join(f"{value:g}" for value in reversed(rule.values))
    return f"{names.get(type(metric), own_name)}, {rule.kind} {values}"


def region_maps(model: Any) -> Any:
    """Returns a model that makes the maps of a model with regions, and nothing else.

    It shares layers with `model`; inputs are the same. Its outputs, in a dictionary:
        importance: float32 [batch, rows, columns].
        ranks: A list, one for each resolution of the plan: float32 [batch, height, width, 1].
        mean_bits: Activation bits per multiply-accumulate of each image, [batch].

    Raises:
        TypeError: If `model` is no Keras model.
        ValueError: If it has no regions.
    """
    importance, maps = (layer.output for layer in region_layers(model))
    *ranks, mean_bits = maps
    outputs = {"importance": importance, "ranks": ranks, "mean_bits": mean_bits}
    return flavor_of(model).keras.Model(model.input, outputs, name="region_maps")
