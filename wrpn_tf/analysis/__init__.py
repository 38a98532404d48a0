"""Counts of what a model stores and computes, by layer and by bits."""

from wrpn_tf.analysis.model_summary import LayerSummary, Summary, summary
from wrpn_tf.analysis.profile import LayerProfile, MACProfile, ModelProfile, WeightProfile

__all__ = [
    "LayerProfile",
    "LayerSummary",
    "MACProfile",
    "ModelProfile",
    "Summary",
    "WeightProfile",
    "summary",
]
