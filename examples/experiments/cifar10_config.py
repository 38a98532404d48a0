"""What `cifar10.py` is asked to train: the YAML file, checked."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import yaml

_TOOLS = ("larq", "qkeras", "tfmot")


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How all runs train; a run may replace single values.

    Attributes:
        epochs: Passes over the training images.
        batch_size: Images in a step.
        learning_rate: SGD's at first; falls to 0 as a cosine.
        momentum: Nesterov's.
        weight_decay: On kernels, in the size that is customary for SGD's L2.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float


@dataclasses.dataclass(frozen=True)
class Run:
    """One network, once for each seed.

    Attributes:
        name: Of its files.
        title: Of its row.
        depth: `CIFARResNet`'s.
        schedule: How it trains.
        seeds: Number of seeds 0, 1, ...
        quantize: Arguments of `wrpn_tf.widen_and_quantize`; None: not quantized by us.
        distill: Arguments of `wrpn_tf.Distiller`; None: no teacher.
        tool: Another tool's name, and its bits.
        start: The run whose trained weights this one starts from.
        export: Whether the trained net is exported and the file's accuracy measured.
    """

    name: str
    title: str
    depth: int
    schedule: Schedule
    seeds: int = 1
    quantize: Mapping[str, Any] | None = None
    distill: Mapping[str, Any] | None = None
    tool: Mapping[str, Any] | None = None
    start: str | None = None
    export: bool = False

    def __post_init__(self):
        if self.tool is not None:
            if self.tool.get("name") not in _TOOLS:
                raise ValueError(
                    f"`{self.name}.tool.name` must be one of {', '.join(_TOOLS)}, got "
                    f"{self.tool.get('name')!r}."
                )
            if self.quantize is not None:
                raise ValueError(f"`{self.name}` must have `quantize` or `tool`, got both.")
        if (self.distill is not None or self.export) and self.quantize is None:
            raise ValueError(f"`{self.name}` must have `quantize` to be distilled or exported.")

    @property
    def needs_other_environment(self) -> bool:
        """Whether the tool cannot be installed beside this package."""
        return self.tool is not None and self.tool["name"] != "tfmot"


def read(path: str | pathlib.Path) -> dict[str, Run]:
    """Returns the runs of a configuration file, by name, in its order.

    Raises:
        ValueError: If a key is unknown or missing, or a value does not fit; the message names it.
    """
    content = yaml.safe_load(pathlib.Path(path).read_text())
    expected = {"network", "schedule", "runs"}
    if not isinstance(content, dict) or set(content) != expected:
        raise ValueError(f"{path} must have the keys {', '.join(sorted(expected))}.")
    runs = {}
    for name, options in content["runs"].items():
        own = dict(options)
        schedule = {**content["schedule"], **own.pop("schedule", {})}
        try:
            runs[name] = Run(name, depth=content["network"], schedule=Schedule(**schedule), **own)
        except TypeError as error:
            raise ValueError(f"`runs.{name}` in {path}: {error}.") from error
        start = runs[name].start
        if start is not None and not _is_float(runs.get(start)):
            raise ValueError(
                f"`runs.{name}.start` in {path} must name a float run above it, got {start!r}."
            )
    return runs


def _is_float(run: Run | None) -> bool:
    return run is not None and run.quantize is None and run.tool is None
