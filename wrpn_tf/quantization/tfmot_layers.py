"""tfmot's layers of quantized tf_keras models, mended so that copies and files of any kind fit.

They are registered under tfmot's names, so that loaded models have them, whoever saved them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tf_keras

from wrpn_tf.keras_flavor import import_tfmot

with import_tfmot().quantization.keras.quantize_scope():
    _QuantizeLayer = tf_keras.utils.get_registered_object("QuantizeLayer")
    _QuantizeWrapperV2 = tf_keras.utils.get_registered_object("QuantizeWrapperV2")


class QuantizeLayer(_QuantizeLayer):
    """Rounds a tensor.

    tfmot's does not note that it is built, and makes its variables again, which come twice then, if
    tf_keras builds it before it is called.
    """

    def build(self, input_shape: Any) -> None:
        """Makes the quantizer's variables."""
        super().build(input_shape)
        self.built = True


class QuantizeWrapperV2(_QuantizeWrapperV2):
    """Calls a layer with quantized weights, and rounds what it gives.

    tfmot's trains what it wraps even if that is frozen. And it saves weights that the wrapped layer
    saves, too, and some twice: which, goes by what was built first, so that a copy or a loaded
    model expects others.
    """

    def __init__(self, layer: Any, quantize_config: Any, **kwargs: Any):
        super().__init__(layer, quantize_config, **kwargs)
        _leave_out_of_saved_models(layer)

    @property
    def trainable_weights(self) -> list[Any]:
        """The layer's and the quantizers'; none if the layer is frozen."""
        return super().trainable_weights if self.trainable else []

    @property
    def non_trainable_weights(self) -> list[Any]:
        """All that are not trained, in an order that freezing does not change."""
        if self.trainable:
            return super().non_trainable_weights
        return self._dedup_weights(
            [*self._trainable_weights, *self.layer.weights, *self._non_trainable_weights]
        )

    def save_own_variables(self, store: dict[str, Any]) -> None:
        """Saves the quantized weights, which the layer gave up, and the quantizers' variables."""
        for number, variable in enumerate(self._own_variables()):
            store[str(number)] = variable.numpy()

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        """Restores them; in files of tfmot's wrapper they are the last ones."""
        own = self._own_variables()
        for number, variable in enumerate(own, len(store) - len(own)):
            variable.assign(store[str(number)])

    def _own_variables(self) -> list[Any]:
        wrapped = {id(weight) for weight in self.layer.weights}
        tracked = self._dedup_weights([*self._trainable_weights, *self._non_trainable_weights])
        return [variable for variable in tracked if id(variable) not in wrapped]


def mend(model: Any) -> None:
    """Makes the wrappers of a model this module's; `quantize_apply` takes no class of them."""
    for layer in model.layers:
        if type(layer) is _QuantizeWrapperV2:
            layer.__class__ = QuantizeWrapperV2
            _leave_out_of_saved_models(layer.layer)


def _leave_out_of_saved_models(layer: Any) -> None:
    """Lets a SavedModel hold a wrapped layer's configuration only, and no function of its own.

    tf_keras cannot trace one: the weights are tensors of the wrapper's function.
    """
    layer._must_restore_from_config = True


tf_keras.utils.get_custom_objects().update(
    {"QuantizeLayer": QuantizeLayer, "QuantizeWrapperV2": QuantizeWrapperV2}
)
