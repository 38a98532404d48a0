"""Counts of what a model stores and computes, by layer and by bits."""

from wrpn_tf.analysis.array_layers import (
    ArrayCost,
    RooflinePoint,
    array_costs,
    roofline_point,
)
from wrpn_tf.analysis.cost import (
    compute_cost,
    layer_costs,
    mac_cost,
    relative_cost,
    uniform_cost,
    with_bits,
)
from wrpn_tf.analysis.crop_energy import crop_savings, crop_table
from wrpn_tf.analysis.hardware import SpeedUp, speed_up, speed_up_table
from wrpn_tf.analysis.memory import (
    FeatureMap,
    MemoryFootprint,
    feature_maps,
    memory_footprint,
    memory_table,
)
from wrpn_tf.analysis.memory_peak import peak_activation_bytes
from wrpn_tf.analysis.model_summary import LayerSummary, Summary, summary
from wrpn_tf.analysis.plan_table import Plan, PlanCell, plan
from wrpn_tf.analysis.plan_widening import widened_profile
from wrpn_tf.analysis.profile import LayerProfile, MACProfile, ModelProfile, WeightProfile
from wrpn_tf.analysis.region_report import region_energy

__all__ = [
    "ArrayCost",
    "FeatureMap",
    "LayerProfile",
    "LayerSummary",
    "MACProfile",
    "MemoryFootprint",
    "ModelProfile",
    "Plan",
    "PlanCell",
    "RooflinePoint",
    "SpeedUp",
    "Summary",
    "WeightProfile",
    "array_costs",
    "compute_cost",
    "crop_savings",
    "crop_table",
    "feature_maps",
    "layer_costs",
    "mac_cost",
    "memory_footprint",
    "memory_table",
    "peak_activation_bytes",
    "plan",
    "region_energy",
    "relative_cost",
    "roofline_point",
    "speed_up",
    "speed_up_table",
    "summary",
    "uniform_cost",
    "widened_profile",
    "with_bits",
]
