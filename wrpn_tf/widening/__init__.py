"""Widening of layers: the plan, and the widened model."""

from wrpn_tf.widening.widen import plan_widths, widen_model

__all__ = ["plan_widths", "widen_model"]
