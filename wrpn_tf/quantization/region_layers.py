"""The layers of region precision, written once for both Keras: mixins without a base layer.

`Importance` turns images into importance, `RegionMap` that into ranks at each resolution, and
`RegionWrapper` rounds a quantized layer's output by them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from wrpn_tf import keras_flavor
from wrpn_tf.quantization.quantized_layers import output_quantizer
from wrpn_tf.quantization.quantizer_variables import add_variable
from wrpn_tf.quantization.region_rounding import round_by_rank
from wrpn_tf.regions import ranks as ranks_lib
from wrpn_tf.regions.image_values import scale_images
from wrpn_tf.regions.metrics import METRICS, deserialize_metric, serialize_metric
from wrpn_tf.regions.region_plan import RegionPlan, tile_size
from wrpn_tf.regions.region_precision import Rule


class ImportanceMixin:
    """Computes the importance of each tile of images; no gradient flows through it.

    Args:
        metric: One of `wrpn_tf.regions`' metrics, or a callable; a Keras model is frozen.
        value_range: The values of black and white, or `"auto"`.
        **kwargs: A Keras layer's.
    """

    def __init__(self, metric: Callable[[Any], Any], value_range: Any = "auto", **kwargs: Any):
        kwargs.setdefault("trainable", False)
        super().__init__(**kwargs)
        if hasattr(metric, "trainable"):
            metric.trainable = False
        self.metric = metric
        self.value_range = value_range if isinstance(value_range, str) else tuple(value_range)

    def call(self, inputs: Any) -> Any:
        """Returns the importance, float32 [batch, rows, columns]."""
        images = scale_images(inputs, self.value_range)
        importance = ops.cast(self.metric(images), "float32")
        return checked_map(ops.stop_gradient(importance))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "metric": _serialized(self.metric, keras_flavor.flavor_of(self, "layer")),
            "value_range": self.value_range,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Returns the layer that `get_config` describes."""
        config = dict(config)
        flavor = keras_flavor.get_flavor(cls.keras_name)
        return cls(_deserialized(config.pop("metric"), flavor), **config)


class RegionMapMixin:
    """Ranks the positions of images by importance, at each resolution of a network.

    Returns a list: ranks, float32 [batch, height, width, 1], for each resolution of the plan, and
    at its end the mean activation bits of each image, [batch].

    Args:
        rule: How importance becomes ranks, as (kind, values).
        plan: What reads the ranks, or its configuration.
        **kwargs: A Keras layer's.
    """

    def __init__(self, rule: tuple[str, Any], plan: Any, **kwargs: Any):
        kwargs.setdefault("trainable", False)
        super().__init__(**kwargs)
        kind, values = rule
        self.rule = Rule(kind, tuple(values))
        self.plan = RegionPlan.from_config(plan) if isinstance(plan, Mapping) else plan
        self.thresholds = None

    def build(self, input_shape: Any = None) -> None:
        """Creates the thresholds, where data set them."""
        if self.rule.kind == "target_bits":
            count = len(self.plan.reads[0].bits) - 1
            self.thresholds = add_variable(
                self, "thresholds", -np.inf, trainable=False, shape=(count,)
            )
        super().build(input_shape)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns the ranks and the mean bits; see the class."""
        results = self.ranks(inputs, self._thresholds(inputs))
        if training and self.thresholds is not None:
            (target,) = self.rule.values
            current = ops.convert_to_tensor(self.thresholds)
            self.thresholds.assign(
                ranks_lib.moved_thresholds(current, inputs, results[-1], self.plan, target)
            )
        return results

    def ranks(self, importance: Any, thresholds: Any) -> list[Any]:
        """Returns the ranks at each resolution, and the mean bits, for given thresholds."""
        ranks = ranks_lib.ranks_from_importance(importance, thresholds)
        size = self.plan.image_size
        tile = tile_size(size, tuple(importance.shape[1:3]))
        maps = [ranks_lib.at_resolution(ranks, tile, size, x) for x in self.plan.resolutions]
        return [*maps, ranks_lib.mean_activation_bits(maps, self.plan)]

    def compute_output_shape(self, input_shape: Any) -> list[tuple[int | None, ...]]:
        """Returns the shapes of the ranks and of the mean bits."""
        batch = input_shape[0]
        return [*((batch, *x.size, 1) for x in self.plan.resolutions), (batch,)]

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "rule": [self.rule.kind, list(self.rule.values)],
            "plan": self.plan.get_config(),
        }

    def _thresholds(self, importance: Any) -> Any:
        if self.rule.kind == "kept":
            return ranks_lib.kept_thresholds(importance, self.rule.values)
        if self.rule.kind == "threshold":
            return ops.convert_to_tensor(self.rule.values, "float32")
        return ops.convert_to_tensor(self.thresholds)


class RegionWrapperMixin:
    """Calls a quantized layer and rounds its output once more, by rank.

    Returns two tensors: the output as the layer rounds it, and the one that convolutions read.

    Args:
        layer: The quantized layer.
        bits: Bits of the values at positions of rank 0, 1, ..., rising.
        **kwargs: A Keras layer's.
    """

    def __init__(self, layer: Any, bits: Any, **kwargs: Any):
        kwargs.setdefault("name", f"region_{layer.name}")
        super().__init__(layer, **kwargs)
        self.bits = tuple(bits)

    def call(
        self, inputs: Any, ranks: Any = None, training: bool | None = None, **kwargs: Any
    ) -> Any:
        """Returns the layer's output, and the same rounded by rank."""
        fine = self.layer(inputs, training=training, **kwargs)
        rounding = output_quantizer(self.layer)
        if rounding is None:
            return [fine, fine]
        return [fine, round_by_rank(fine, ranks, self.bits, *rounding)]

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "bits": list(self.bits)}


def checked_map(importance: Any) -> Any:
    """Returns importance as [batch, rows, columns].

    Raises:
        ValueError: If it has another rank.
        InvalidArgumentError: When it runs (with TensorFlow), if it is NaN or infinite.
    """
    shape = tuple(importance.shape)
    if len(shape) == 4 and shape[-1] == 1:
        importance = importance[..., 0]
    elif len(shape) != 3:
        raise ValueError(
            f"`metric` must return importance of shape [batch, rows, columns], got {shape}."
        )
    if None in tuple(importance.shape)[1:]:
        raise ValueError(
            f"`metric` must return a map whose rows and columns are known, got {shape}."
        )
    if keras.backend.backend() != "tensorflow":
        return importance
    import tensorflow as tf

    return tf.debugging.check_numerics(importance, "`metric` must return finite importance")


def _serialized(metric: Any, flavor: keras_flavor.KerasFlavor) -> dict[str, Any]:
    """A description for JSON of one of our metrics, of a Keras model or of what is registered."""
    if type(metric) in METRICS.values():
        return serialize_metric(metric)
    if isinstance(metric, flavor.layers.Layer):
        return {"layer": flavor.layers.serialize(metric)}
    name = flavor.keras.utils.get_registered_name(metric)
    if flavor.keras.utils.get_registered_object(name) is not metric:
        raise ValueError(
            "`metric` must be registered to be saved, got "
            f"{getattr(metric, '__name__', repr(metric))}: decorate it with "
            f"`{flavor.name}.utils.register_keras_serializable()`."
        )
    return {"registered": name}


def _deserialized(metric: Any, flavor: keras_flavor.KerasFlavor) -> Any:
    if not isinstance(metric, Mapping):
        return metric
    if "metric" in metric:
        return deserialize_metric(metric)
    if "layer" in metric:
        return flavor.layers.deserialize(metric["layer"])
    found = flavor.keras.utils.get_registered_object(metric["registered"])
    if found is None:
        raise ValueError(
            f"The file needs the metric {metric['registered']!r}: import the module that registers "
            "it before loading."
        )
    return found
