"""Which regions of an image matter: metrics of importance, and what reads at which precision."""

from wrpn_tf.regions.border_crop import BorderCrop, all_crops
from wrpn_tf.regions.center import Center
from wrpn_tf.regions.entropy import Entropy
from wrpn_tf.regions.gradient import ColorGradient
from wrpn_tf.regions.metric import Metric
from wrpn_tf.regions.metrics import METRICS, Combined
from wrpn_tf.regions.points_of_interest import PointsOfInterest
from wrpn_tf.regions.region_plan import FixedRead, RegionPlan, RegionRead, Resolution
from wrpn_tf.regions.region_precision import RegionPrecision

__all__ = [
    "METRICS",
    "BorderCrop",
    "Center",
    "ColorGradient",
    "Combined",
    "Entropy",
    "FixedRead",
    "Metric",
    "PointsOfInterest",
    "RegionPlan",
    "RegionPrecision",
    "RegionRead",
    "Resolution",
    "all_crops",
]
