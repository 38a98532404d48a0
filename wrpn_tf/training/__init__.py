"""Training a low-precision student with a float teacher."""

from wrpn_tf.training.distiller import Distiller

__all__ = ["Distiller"]
