"""Quantized networks run as integers on the accelerator."""

from wrpn_tf.simulation.network import simulate
from wrpn_tf.simulation.report import LayerRecord, Simulation

__all__ = ["LayerRecord", "Simulation", "simulate"]
