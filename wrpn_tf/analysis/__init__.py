"""Counts of what a model stores and computes, by layer and by bits."""

from wrpn_tf.analysis.array_layers import (
    ArrayCost,
    RooflinePoint,
    array_costs,
    roofline_point,
)
from wrpn_tf.analysis.bit_search import search
from wrpn_tf.analysis.bit_search_result import SearchResult
from wrpn_tf.analysis.cost import (
    compute_cost,
    layer_costs,
    mac_cost,
    relative_cost,
    uniform_cost,
    with_bits,
)
from wrpn_tf.analysis.crop_energy import crop_savings, crop_table
from wrpn_tf.analysis.energy import Energy, EnergyReport, LayerEnergy, energy_report
from wrpn_tf.analysis.energy_table import HOROWITZ_45NM, EnergyTable
from wrpn_tf.analysis.hardware import SpeedUp, speed_up, speed_up_table
from wrpn_tf.analysis.hardware_engine import ClaimCheck, check_paper_gains, paper_gains_table
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
from wrpn_tf.analysis.report_files import report

__all__ = [
    "HOROWITZ_45NM",
    "ArrayCost",
    "ClaimCheck",
    "Energy",
    "EnergyReport",
    "EnergyTable",
    "FeatureMap",
    "LayerEnergy",
    "LayerProfile",
    "LayerSummary",
    "MACProfile",
    "MemoryFootprint",
    "ModelProfile",
    "Plan",
    "PlanCell",
    "RooflinePoint",
    "SearchResult",
    "SpeedUp",
    "Summary",
    "WeightProfile",
    "array_costs",
    "check_paper_gains",
    "compute_cost",
    "crop_savings",
    "crop_table",
    "energy_report",
    "feature_maps",
    "layer_costs",
    "mac_cost",
    "memory_footprint",
    "memory_table",
    "paper_gains_table",
    "peak_activation_bytes",
    "plan",
    "region_energy",
    "relative_cost",
    "report",
    "roofline_point",
    "search",
    "speed_up",
    "speed_up_table",
    "summary",
    "uniform_cost",
    "widened_profile",
    "with_bits",
]
