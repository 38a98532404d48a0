"""WRPN as a tfmot scheme, for `tfmot.quantization.keras.quantize_apply` on tf_keras models.

Importing this module imports tfmot and tf_keras, and registers the package's quantizers and configs
with both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import tf_keras

from wrpn_tf.keras_flavor import clone_layer, import_tfmot, keras_class, own_objects
from wrpn_tf.model_graph import LayerCall, ModelGraph, copy_weights, model_graph, rebuild
from wrpn_tf.quantization import quantizers
from wrpn_tf.quantization.layer_settings import QuantizationRules
from wrpn_tf.quantization.quantize_config import WRPNQuantizeConfig
from wrpn_tf.quantization.quantize_registry import Kind, can_be_wrapped, kind_of
from wrpn_tf.quantization.quantizer_plan import plan_quantizers
from wrpn_tf.quantization.tfmot_layers import QuantizeLayer, mend

tfmot = import_tfmot().quantization.keras

tfmot.QuantizeConfig.register(WRPNQuantizeConfig)
tfmot.quantizers.Quantizer.register(quantizers.Quantizer)
_register = tf_keras.utils.register_keras_serializable("wrpn_tf")
for _class in (
    WRPNQuantizeConfig,
    quantizers.ObservedQuantizer,
    quantizers.WRPNActivationQuantizer,
    quantizers.WRPNWeightQuantizer,
):
    _register(_class)


class WRPNQuantizeScheme(tfmot.QuantizeScheme):
    """Quantizes the annotated layers of a tf_keras model as `wrpn_tf.quantize_model` would.

    A tensor is rounded if the layer that makes it is annotated; an input, if a layer that reads it
    is. A layer annotated with a config of its own keeps that. Nothing else is added: no
    moving-average quantizers, none on layers without annotation.

        annotated = tfmot.quantization.keras.quantize_annotate_model(model)
        scheme = WRPNQuantizeScheme(num_bits_weight=4)
        quantized = tfmot.quantization.keras.quantize_apply(annotated, scheme)

    Args:
        origin: Name in the annotated model -> name that `overrides` may use as well.
        **rules: Arguments of `wrpn_tf.quantize_model`.

    Raises:
        TypeError, ValueError: As `wrpn_tf.quantize_model`.
    """

    def __init__(self, *, origin: Mapping[str, str] | None = None, **rules: Any):
        self._transform = _LayoutTransform(QuantizationRules(**rules), origin)

    def get_layout_transformer(self) -> Any:
        """Returns the transform that places the quantizers."""
        return self._transform

    def get_quantize_registry(self) -> Any:
        """Returns a registry that leaves every layer without annotation alone."""
        return _NothingElse()


class _NothingElse(tfmot.QuantizeRegistry):
    """tfmot asks it for the layers that have no config; none gets one."""

    def supports(self, layer: Any) -> bool:
        return False

    def get_quantize_config(self, layer: Any) -> None:
        return None


class _LayoutTransform(tfmot.QuantizeLayoutTransform):
    """Plans an unwrapped model's quantizers, and inserts those of inputs and operations."""

    def __init__(self, rules: QuantizationRules, origin: Mapping[str, str] | None):
        self._rules = rules
        self._origin = origin

    def apply(self, model: Any, layer_quantize_map: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        graph = model_graph(model)
        origin = self._origin or {path: path for path in graph.layers()}
        plan = plan_quantizers(graph, self._rules.settings(graph, origin))
        configs = {
            name: {"quantize_config": entry["quantize_config"] or plan.configs.get(name)}
            for name, entry in layer_quantize_map.items()
            if "quantize_config" in entry  # tfmot lists input layers too, without
        }
        inserted = {
            key: quantizer
            for key, quantizer in plan.inserted.items()
            if any(call.path in configs for call in _readers(key, graph))
        }

        def insert(key: int, tensor: Any) -> Any:
            if key not in inserted:
                return tensor
            return QuantizeLayer(inserted[key], name=plan.names[key])(tensor)

        transformed, _ = rebuild(graph, lambda call: call.layer, insert)
        return transformed, {n: entry for n, entry in configs.items() if entry["quantize_config"]}


def _readers(key: int, graph: ModelGraph) -> Iterator[LayerCall]:
    """Yields the calls that read a tensor, if need be behind what cannot be annotated itself.

    That is layers that move its values, and operations.
    """
    for call in graph.consumers[key]:
        yield call
        if kind_of(call.layer) is Kind.PASS_THROUGH or keras_class(call.layer) == "TFOpLambda":
            for output in call.outputs:
                yield from _readers(output, graph)


def apply_rules(graph: ModelGraph, rules: QuantizationRules, origin: Mapping[str, str]) -> Any:
    """Returns the quantized copy of a prepared tf_keras model, with copies of its weights.

    Args:
        graph: The prepared model's graph.
        rules: What is asked for.
        origin: Path in the prepared model -> path in the user's model.

    Raises:
        ValueError: If an override matches nothing, or nothing that it has an effect on; for an
            `activity_regularizer`; if two functions or classes have one name.
    """
    # tfmot builds the network three times before it asks the scheme, which would refuse it then.
    rules.settings(graph, origin)
    _check_regularizers(graph, origin)

    def annotate(call: LayerCall) -> Any:
        layer = clone_layer(call.layer)
        return tfmot.quantize_annotate_layer(layer) if can_be_wrapped(call.layer) else layer

    annotated, layers = rebuild(graph, annotate)
    copy_weights(graph, layers)
    scheme = WRPNQuantizeScheme(origin=origin, **vars(rules))
    with tf_keras.utils.custom_object_scope(_own_objects(graph)):
        quantized = tfmot.quantize_apply(annotated, scheme)
    mend(quantized)
    return quantized


def _check_regularizers(graph: ModelGraph, origin: Mapping[str, str]) -> None:
    paths = [
        origin[path]
        for path, layer in graph.layers().items()
        if getattr(layer, "activity_regularizer", None) is not None
    ]
    if paths:
        raise ValueError(
            "`model` must have no `activity_regularizer` in tf_keras, where tfmot's copies cannot "
            f"train with one, got one at {', '.join(paths)}. Leave it out, or use Keras 3."
        )


def _own_objects(graph: ModelGraph) -> dict[str, Any]:
    """The user's classes and functions, which tfmot makes anew by their names."""
    objects: dict[str, Any] = {}
    for path, layer in graph.layers().items():
        for name, each in own_objects(layer).items():
            if name == "<lambda>" or objects.setdefault(name, each) is not each:
                raise ValueError(
                    "`model` must have functions and classes of different names in tf_keras, where "
                    f"tfmot makes them anew by these, got {name!r} at {path!r}. Give it a name of "
                    "its own."
                )
    return objects
