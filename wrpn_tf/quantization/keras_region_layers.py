"""The Keras 3 layers of region precision."""

from __future__ import annotations

from wrpn_tf.keras_flavor import KERAS
from wrpn_tf.quantization.region_layers import (
    ImportanceMixin,
    RegionMapMixin,
    RegionWrapperMixin,
)

keras = KERAS.keras
_register = keras.saving.register_keras_serializable("wrpn_tf")


@_register
class Importance(ImportanceMixin, keras.layers.Layer):
    """See `ImportanceMixin`."""

    keras_name = KERAS.name


@_register
class RegionMap(RegionMapMixin, keras.layers.Layer):
    """See `RegionMapMixin`."""


@_register
class RegionWrapper(RegionWrapperMixin, keras.layers.Wrapper):
    """See `RegionWrapperMixin`."""
