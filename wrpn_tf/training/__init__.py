"""Training a low-precision student with a float teacher, and regions of low precision."""

from wrpn_tf.training.distiller import Distiller
from wrpn_tf.training.region_callback import RegionTensorBoard

__all__ = ["Distiller", "RegionTensorBoard"]
