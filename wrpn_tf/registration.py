"""Lets Keras load files that hold classes of this package, after no more than `import wrpn_tf`.

Keras finds a class by the name that it was registered under, which happens when its module is
imported. Importing those modules whenever Keras is would cost every user TensorFlow, tf_keras and
tfmot, and would fail where Keras is imported by one of them. So once Keras is there, each name is
registered with a `DeferredClass`, which imports the class when a file first needs it.
"""

from __future__ import annotations

import importlib
import types
from collections.abc import Mapping
from typing import Any

import wrapt

# Keras -> registered name -> module whose import registers the class.
REGISTERED_CLASSES: dict[str, dict[str, str]] = {
    "keras": {
        "wrpn_tf>Importance": "wrpn_tf.quantization.keras_region_layers",
        "wrpn_tf>RegionMap": "wrpn_tf.quantization.keras_region_layers",
        "wrpn_tf>RegionWrapper": "wrpn_tf.quantization.keras_region_layers",
        "wrpn_tf>QuantizeLayer": "wrpn_tf.quantization.quantize_wrapper",
        "wrpn_tf>QuantizeWrapper": "wrpn_tf.quantization.quantize_wrapper",
    },
    "tf_keras": {
        "QuantizeLayer": "wrpn_tf.quantization.tfmot_layers",
        "QuantizeWrapperV2": "wrpn_tf.quantization.tfmot_layers",
        "wrpn_tf>Importance": "wrpn_tf.quantization.tf_keras_region_layers",
        "wrpn_tf>RegionMap": "wrpn_tf.quantization.tf_keras_region_layers",
        "wrpn_tf>RegionWrapper": "wrpn_tf.quantization.tf_keras_region_layers",
        "wrpn_tf>ObservedQuantizer": "wrpn_tf.quantization.quantize_scheme",
        "wrpn_tf>WRPNActivationQuantizer": "wrpn_tf.quantization.quantize_scheme",
        "wrpn_tf>WRPNQuantizeConfig": "wrpn_tf.quantization.quantize_scheme",
        "wrpn_tf>WRPNWeightQuantizer": "wrpn_tf.quantization.quantize_scheme",
    },
}


class DeferredClass:
    """Stands in Keras' register for a class whose module is not imported yet.

    Keras asks nothing of a registered class but `from_config`. As soon as the module is imported,
    the class itself is in the register.

    Attributes:
        name: The name that the class is registered under.
        module: The module whose import registers it.
    """

    def __init__(self, name: str, module: str, register: Mapping[str, Any]) -> None:
        self.name = name
        self.module = module
        self._register = register

    def resolve(self) -> Any:
        """Imports the class and returns it.

        Raises:
            RuntimeError: If the module registers no class under the name.
        """
        importlib.import_module(self.module)
        registered = self._register.get(self.name, self)
        if registered is self:
            raise RuntimeError(f"{self.module} registers no {self.name!r} with Keras.")
        return registered

    def from_config(self, config: dict[str, Any]) -> Any:
        """Returns an object of the class, made from its config."""
        return self.resolve().from_config(config)

    def __repr__(self) -> str:
        return f"<{self.name}, registered by {self.module}>"


def announce_classes() -> None:
    """Registers the package's classes with each Keras, now or when that Keras is imported."""
    for keras_name in REGISTERED_CLASSES:
        wrapt.register_post_import_hook(_announce, keras_name)


def _announce(keras: types.ModuleType) -> None:
    register = keras.saving.get_custom_objects()
    for name, module in REGISTERED_CLASSES[keras.__name__].items():
        register.setdefault(name, DeferredClass(name, module, register))
