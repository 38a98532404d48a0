"""Training a low-precision student with a float teacher, and callbacks that watch it."""

from wrpn_tf.training.batch_norm import ReestimateBatchNorm, reestimate_batch_norm
from wrpn_tf.training.dead_zone import WarnOnDeadZone
from wrpn_tf.training.distiller import Distiller
from wrpn_tf.training.monitor import QuantizationTensorBoard
from wrpn_tf.training.region_callback import RegionTensorBoard

__all__ = [
    "Distiller",
    "QuantizationTensorBoard",
    "ReestimateBatchNorm",
    "RegionTensorBoard",
    "WarnOnDeadZone",
    "reestimate_batch_norm",
]
