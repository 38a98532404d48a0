"""The variables of quantizers, as weights of layers of either Keras."""

from __future__ import annotations

from typing import Any

from wrpn_tf import keras_flavor


def add_variable(
    layer: Any, name: str, value: float, trainable: bool, shape: tuple[int, ...] = ()
) -> Any:
    """Adds a float32 weight that mixed precision leaves in float32 and replicas keep equal."""
    flavor = keras_flavor.flavor_of(layer, "layer")
    if flavor is keras_flavor.KERAS:
        options: dict[str, Any] = {"autocast": False}
        if not trainable:
            options["aggregation"] = "mean"
    else:
        import tensorflow as tf

        options = {"experimental_autocast": False}
        if trainable:
            _put_inner_weights_first(layer)
        if not trainable:
            options["aggregation"] = tf.VariableAggregation.MEAN
    return layer.add_weight(
        name=name,
        shape=shape,
        initializer=flavor.keras.initializers.Constant(value),
        dtype="float32",
        trainable=trainable,
        **options,
    )


def _put_inner_weights_first(wrapper: Any) -> None:
    """Fixes the order of a tfmot wrapper's trainable weights: its layer's, then the quantizers'.

    tfmot's order depends on whether the layer was built before it was wrapped; a model that is
    loaded builds it later than the one that was saved, and its `.h5` file would be read in the
    wrong order.
    """
    inner = getattr(wrapper, "layer", None)
    own = wrapper._trainable_weights
    own.extend(w for w in getattr(inner, "trainable_weights", ()) if not any(w is v for v in own))
