"""The rows of `region_curve.py`: which maps, at which bits, and what they must beat."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from typing import Any

import numpy as np
import region_metrics
import region_sensitivity

import wrpn_tf
from wrpn_tf.quantization import region_plan
from wrpn_tf.regions import METRICS, Combined

_EVERYTHING = 1e9  # No importance reaches it.
_PREDICTOR_EPOCHS = 6


@dataclasses.dataclass(frozen=True)
class Setting:
    """One row.

    Attributes:
        metric: A metric of `wrpn_tf.regions`; "random", "learned", "oracle" or "oracle_within";
            "full" or "uniform"; "two_pass" or "two_pass_random".
        bits: Of maps: bits by rank, "8/4", or uniform mixes by rank, "mix17/mix50", the share in %
            that each saves at least. Of uniform precision one mix or number; of two passes "4" or
            "4+mix10", both uniform; the second one's is 8 by default.
        target: Of maps, the mean bits to calibrate for; of two passes, the least margin in logits
            with which the first pass is not in doubt.
        weights: "base", or a name in `TUNED`.
    """

    metric: str
    bits: str = "8"
    target: float = 0.0
    weights: str = "base"

    @property
    def key(self) -> tuple[str, ...]:
        """The first columns of the row."""
        return self.weights, self.metric, self.bits, f"{self.target:g}"

    @property
    def has_target(self) -> bool:
        """Whether thresholds are found for mean bits."""
        return self.metric not in ("full", "uniform")

    @property
    def passes(self) -> tuple[Setting, Setting]:
        """What two passes compute: of all images, and of those in doubt."""
        first, _, second = self.bits.partition("+")
        return (
            Setting("uniform", first, weights=self.weights),
            Setting("uniform" if second else "full", second or "8", weights=self.weights),
        )


_CONTROLS = ("center", "random")
_METRICS = ("entropy", "gradient", "points_of_interest", "border_crop", "combined", "learned")
_ORACLES = ("oracle", "oracle_within")
# What each net is fine-tuned with; None: full precision. All others save about 56 %.
TUNED: dict[str, Setting | None] = {
    "tuned_uniform": Setting("uniform", "mix56"),
    "tuned_combined": Setting("combined", "mix48/mix64", 3.5),
    "tuned_full": None,
    "tuned_center": Setting("center", "mix48/mix64", 3.5),
}


def of_stage(stage: str) -> list[Setting]:
    """Returns a stage's rows, the most telling first.

    Raises:
        ValueError: If there is no such stage.
    """
    stages = {
        "base": [Setting("full")],
        "uniform": [
            Setting("uniform", bits)
            for bits in (
                "4",
                "mix33",
                "mix40",
                "mix45",
                "mix25",
                "mix17",
                "mix10",
                "mix52",
                "mix56",
                "mix60",
                "2",
            )
        ],
        "two_pass": [
            Setting(metric, bits, margin)
            for bits in ("4", "mix33", "mix40", "mix45", "mix52", "mix56", "mix60")
            for margin in (0.25, 0.5, 1.0, 1.5, 2.0, 3.0)
            for metric in ("two_pass", "two_pass_random")
        ]
        + [
            Setting("two_pass", f"{first}+{second}", margin)
            for first in ("4", "mix45")
            for second in ("mix10", "mix17", "mix25")
            for margin in (0.75, 1.0, 1.25, 1.5, 2.0)
        ],
        "maps": [
            *_maps("8/4", (5.32,), (*_METRICS, *_CONTROLS, *_ORACLES)),
            *_maps("8/4", (4.8,), (*_METRICS, *_CONTROLS)),
            *_maps("mix17/mix48", (5.32, 4.8, 5.7, 5.05), ("combined", *_CONTROLS, "learned")),
            *_maps("8/0", (6.8,), ("border_crop", "combined", "entropy", *_CONTROLS)),
            *_maps("mix17/mix48", (5.32,), (*_ORACLES, "entropy", "gradient")),
            *_maps("mix33/mix60", (4.2, 4.6), ("learned", *_CONTROLS, "combined")),
            *_maps("8/4/2", (4.8,), ("combined", *_CONTROLS)),
        ],
        "tuned": _tuned(),
    }
    if stage not in stages:
        raise ValueError(f"`stages` must be among {', '.join(stages)}, report, got {stage!r}.")
    return stages[stage]


def in_doubt(probabilities: np.ndarray, setting: Setting) -> np.ndarray:
    """Returns which images a second pass computes again: bool [images].

    `two_pass`: those whose first margin is below the target. `two_pass_random`: as many, whatever
    their margin.
    """
    greatest = np.sort(np.log(np.maximum(probabilities, 1e-20)), axis=1)
    doubtful = greatest[:, -1] - greatest[:, -2] < setting.target
    if setting.metric == "two_pass":
        return doubtful
    return np.random.default_rng(0).permutation(doubtful)


class Precisions:
    """Makes the `RegionPrecision` of settings; sensitivities and predictor are kept in a folder.

    Args:
        base: The quantized net.
        images: Training images in [0, 1], for sensitivities and the predictor.
        mean: What is subtracted from an image before the net reads it.
        folder: Where results are kept.
    """

    def __init__(self, base: Any, images: np.ndarray, mean: np.ndarray, folder: pathlib.Path):
        self._base = base
        self._images = images
        self._mean = mean
        self._folder = folder

    def precision(self, setting: Setting) -> wrpn_tf.RegionPrecision:
        """Returns the regions of a setting."""
        if setting.metric == "uniform":
            overrides = {x: (8, b) for x, b in self._by_layer(setting.bits).items()}
            return wrpn_tf.RegionPrecision(
                "center", (8, 4), threshold=_EVERYTHING, overrides=overrides
            )
        names = setting.bits.split("/")
        bits: tuple[int, ...] = (8, 4)
        overrides = None
        if names[0].startswith("mix"):
            mixes = [self._by_layer(name) for name in names]
            overrides = {layer: tuple(mix[layer] for mix in mixes) for layer in mixes[0]}
        else:
            bits = tuple(int(name) for name in names)
        return wrpn_tf.RegionPrecision(
            self._metric(setting.metric),
            bits,
            target_bits=setting.target,
            overrides=overrides,
            value_range=region_metrics.VALUE_RANGE,
        )

    def cost_of(self, setting: Setting) -> float:
        """Returns the metric's own multiply-accumulates over the net's, each with 8 bits.

        Those of the predictor; the other metrics' sums over windows are not counted.
        """
        if setting.metric != "learned":
            return 0.0
        plan = region_plan(
            wrpn_tf.apply_regions(self._base, wrpn_tf.RegionPrecision("center", (8, 4)))
        )
        return region_metrics.num_macs(self._predictor) / plan.macs

    def _by_layer(self, name: str) -> dict[str, int]:
        """Uniform bits of each layer: a number, or "mix" and the share to save in %."""
        if name.startswith("mix"):
            saved = int(name.removeprefix("mix")) / 100
            return dict(region_sensitivity.uniform_mix(self._sensitivity, saved))
        return dict.fromkeys(self._sensitivity.layers, int(name))

    def _metric(self, name: str) -> Any:
        if name == "learned":
            metric = self._predictor
        elif name == "random":
            metric = region_metrics.SmoothRandom(self._images.shape[1])
        elif name == "combined":
            metric = Combined(("entropy", "gradient", "center"))
        elif name in _ORACLES:
            metric = region_sensitivity.Oracle(self._base, self._mean, name == "oracle_within")
        else:
            metric = METRICS[name]()
        return region_metrics.on_original(metric, self._mean)

    @functools.cached_property
    def _sensitivity(self) -> region_sensitivity.Sensitivity:
        path = self._folder / "sensitivity.npz"
        if not path.exists():
            found = region_sensitivity.measure_sensitivity(self._base, self._images - self._mean)
            np.savez(path, **dataclasses.asdict(found))
        with np.load(path) as file:
            layers = tuple(str(name) for name in file["layers"])
            arrays = {name: file[name] for name in ("shares", "by_layer", "log_tiles")}
        return region_sensitivity.Sensitivity(layers, **arrays)

    @functools.cached_property
    def _predictor(self) -> Any:
        path = self._folder / "predictor.h5"
        predictor = region_metrics.make_predictor(self._images.shape[1])
        if path.exists():
            predictor.load_weights(path)
            return predictor
        correlation = region_metrics.train_predictor(
            predictor, self._images, self._sensitivity.log_tiles, _PREDICTOR_EPOCHS, seed=0
        )
        print(f"predictor: correlation {correlation:.3f} on 1,000 held-out images", flush=True)
        predictor.save_weights(path)
        return predictor


def _maps(bits: str, targets: tuple[float, ...], metrics: tuple[str, ...]) -> list[Setting]:
    return [Setting(metric, bits, target) for target in targets for metric in metrics]


def _tuned() -> list[Setting]:
    """Each tuned net as it was tuned, and at full precision; others of the uniform one."""
    rows = []
    for name, setting in TUNED.items():
        if setting is not None:
            rows.append(dataclasses.replace(setting, weights=name))
        rows.append(Setting("full", weights=name))
        if name == "tuned_uniform":
            rows += [Setting("uniform", bits, weights=name) for bits in ("4", "mix60")]
            rows += [
                Setting("two_pass", bits, margin, name)
                for bits in ("4", "mix56", "mix60")
                for margin in (0.25, 0.5, 1.0, 1.5, 2.0)
            ]
    return rows
