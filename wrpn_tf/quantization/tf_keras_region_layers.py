"""The tf_keras layers of region precision."""

from __future__ import annotations

from wrpn_tf.keras_flavor import TF_KERAS
from wrpn_tf.quantization.region_layers import (
    ImportanceMixin,
    RegionMapMixin,
    RegionWrapperMixin,
)

tf_keras = TF_KERAS.keras
_register = tf_keras.utils.register_keras_serializable("wrpn_tf")


@_register
class Importance(ImportanceMixin, tf_keras.layers.Layer):
    """See `ImportanceMixin`."""

    keras_name = TF_KERAS.name


@_register
class RegionMap(RegionMapMixin, tf_keras.layers.Layer):
    """See `RegionMapMixin`."""


@_register
class RegionWrapper(RegionWrapperMixin, tf_keras.layers.Wrapper):
    """See `RegionWrapperMixin`."""
