"""The metrics by name, and their weighted sum."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

from wrpn_tf.regions.border_crop import BorderCrop
from wrpn_tf.regions.center import Center
from wrpn_tf.regions.entropy import Entropy
from wrpn_tf.regions.gradient import ColorGradient
from wrpn_tf.regions.metric import Metric
from wrpn_tf.regions.points_of_interest import PointsOfInterest
from wrpn_tf.regions.tiles import tile_count

# A map whose values differ by less than this part of the largest is constant but for rounding.
_CONSTANT = 1e-5


def get_metric(metric: str | Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Returns a metric by its name in `METRICS`, with default arguments, or a callable as it is.

    Raises:
        ValueError: If there is no such name, or it is neither a name nor a callable.
    """
    if isinstance(metric, str) and metric in METRICS:
        return METRICS[metric]()
    if isinstance(metric, type) or not callable(metric):
        raise ValueError(
            f"`metric` must be one of {', '.join(map(repr, METRICS))}, or a callable from images "
            f"to importance, got {metric!r}."
        )
    return metric


def serialize_metric(metric: Metric) -> dict[str, Any]:
    """Returns `{"metric": name, "config": arguments}` of a metric in `METRICS`, ready for JSON.

    Raises:
        ValueError: If the metric's class is not in `METRICS`.
    """
    for name, metric_class in METRICS.items():
        if type(metric) is metric_class:
            return {"metric": name, "config": metric.get_config()}
    classes = ", ".join(metric_class.__name__ for metric_class in METRICS.values())
    raise ValueError(f"`metric` must be one of {classes} to be saved by name, got {metric!r}.")


def deserialize_metric(config: dict[str, Any]) -> Metric:
    """Makes a metric from what `serialize_metric` returned.

    Raises:
        ValueError: If there is no metric of that name.
    """
    name = config["metric"]
    if name not in METRICS:
        raise ValueError(f"A metric must be one of {', '.join(map(repr, METRICS))}, got {name!r}.")
    return METRICS[name].from_config(config["config"])


def z_scores(importance: Any) -> Any:
    """Computes (importance - mean) / standard deviation of each map; of a constant map, zeros.

    Args:
        importance: float32 tensor [batch, rows, columns].
    """
    axes = (1, 2)
    largest = ops.max(importance, axis=axes, keepdims=True)
    smallest = ops.min(importance, axis=axes, keepdims=True)
    magnitude = ops.maximum(ops.abs(largest), ops.abs(smallest))
    constant = largest - smallest <= _CONSTANT * magnitude
    # Dividing by the spread first keeps the squares within float32's range.
    spread = ops.where(constant, ops.ones_like(largest), largest - smallest)
    centred = (importance - ops.mean(importance, axis=axes, keepdims=True)) / spread
    deviation = ops.sqrt(ops.mean(ops.square(centred), axis=axes, keepdims=True))
    deviation = ops.where(constant, ops.ones_like(deviation), deviation)
    return ops.where(constant, ops.zeros_like(centred), centred / deviation)


@dataclasses.dataclass(frozen=True)
class Combined(Metric):
    """Importance is a weighted sum of other metrics' z-scores.

    importance = sum_m weight_m (importance_m - mean_m) / deviation_m

    with mean and standard deviation over the tiles of each image; a metric that is constant on an
    image adds 0 there. Tiles are the smallest of the metrics'; the values of others are repeated.

    Args:
        metrics: Names in `METRICS`, or metrics.
        weights: One finite number for each metric; None: 1 each.

    Raises:
        ValueError: If there is no metric, one has no `tile`, a weight is missing or not finite, or
            the smallest tile does not divide another.

    Source: Ours.
    """

    metrics: Sequence[str | Metric] = ("entropy", "center")
    weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.metrics, str) or not len(self.metrics):
            raise ValueError(f"`metrics` must be a sequence of metrics, got {self.metrics!r}.")
        metrics = tuple(get_metric(metric) for metric in self.metrics)
        weights = (1.0,) * len(metrics) if self.weights is None else tuple(self.weights)
        if len(weights) != len(metrics) or not all(map(math.isfinite, weights)):
            raise ValueError(
                f"`weights` must be {len(metrics)} finite numbers, one for each metric, got "
                f"{self.weights!r}."
            )
        for metric in metrics:
            if not isinstance(metric, Metric):
                raise ValueError(f"`metrics` must be metrics of wrpn_tf.regions, got {metric!r}.")
        object.__setattr__(self, "metrics", metrics)
        object.__setattr__(self, "weights", weights)
        if any(metric.tile % self.tile for metric in metrics):
            raise ValueError(
                f"`metrics` must have tiles that their smallest, {self.tile}, divides, got "
                f"{[metric.tile for metric in metrics]}."
            )

    @property
    def tile(self) -> int:
        """Side of a tile: the smallest of the metrics'."""
        return min(metric.tile for metric in self.metrics)

    def _importance(self, images: Any) -> Any:
        _, height, width, _ = images.shape
        rows, columns = tile_count(height, self.tile), tile_count(width, self.tile)
        total = 0.0
        for metric, weight in zip(self.metrics, self.weights, strict=True):
            scores = weight * z_scores(metric(images))
            repeats = metric.tile // self.tile
            scores = ops.repeat(ops.repeat(scores, repeats, axis=1), repeats, axis=2)
            total = total + scores[:, :rows, :columns]
        return total

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, ready for JSON."""
        metrics = [serialize_metric(metric) for metric in self.metrics]
        return {"metrics": metrics, "weights": list(self.weights)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Combined:
        """Makes a metric from what `get_config` returned."""
        return cls([deserialize_metric(entry) for entry in config["metrics"]], config["weights"])


METRICS: dict[str, type[Metric]] = {
    "entropy": Entropy,
    "gradient": ColorGradient,
    "points_of_interest": PointsOfInterest,
    "center": Center,
    "border_crop": BorderCrop,
    "combined": Combined,
}
