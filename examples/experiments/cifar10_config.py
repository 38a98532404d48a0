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
        learning_rate: SGD's at first; falls to 0 as a cosine, without `steps` or a `power`.
        momentum: Nesterov's.
        weight_decay: On kernels, in the size that is customary for SGD's L2.
        steps: Shares of the epochs after which the rate falls to a tenth, as in He et al.
        power: The rate falls as this power of the share of the epochs that is left; 0: it does not.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    steps: tuple[float, ...] = ()
    power: float = 0.0

    def __post_init__(self):
        steps = tuple(self.steps)  # A file has a list.
        if list(steps) != sorted(set(steps)) or not all(0 < step < 1 for step in steps):
            raise ValueError(
                f"`schedule.steps` must be rising shares between 0 and 1, got {self.steps}."
            )
        object.__setattr__(self, "steps", steps)
        if self.power < 0 or (self.power and steps):
            raise ValueError(
                "`schedule.power` must be positive, or 0 for a cosine or `steps`, got "
                f"{self.power} and the steps {self.steps}."
            )


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
        float_share: Share of the epochs that the network trains before it is quantized.
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
    float_share: float = 0.0
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
        if self.float_share and self.quantize is None:
            raise ValueError(f"`{self.name}` must have `quantize` to train in float before that.")
        if not 0 <= self.float_share < 1:
            raise ValueError(
                f"`{self.name}.float_share` must be at least 0 and less than 1, got "
                f"{self.float_share}."
            )

    @property
    def float_epochs(self) -> int:
        """How many epochs the network trains before it is quantized."""
        return int(self.float_share * self.schedule.epochs)

    @property
    def needs_other_environment(self) -> bool:
        """Whether the tool cannot be installed beside this package."""
        return self.tool is not None and self.tool["name"] != "tfmot"


def read(path: str | pathlib.Path) -> dict[str, Run]:
    """Returns the runs of a configuration file, by name, in its order.

    A file has `network`, `schedule` and `runs`; or `network`, the other file that it is `like`, and
    in `runs` the names of that file's runs that are to be trained of this network too.

    Raises:
        ValueError: If a key is unknown or missing, or a value does not fit; the message names it.
    """
    path = pathlib.Path(path)
    content = _content(path)
    runs = _runs_like(path, content) if "like" in content else _described_runs(path, content)
    floats = set()
    for run in runs.values():
        if run.start is not None and run.start not in floats:
            raise ValueError(
                f"`runs.{run.name}.start` in {path} must name a float run above it, got "
                f"{run.start!r}."
            )
        if run.quantize is None and run.tool is None:
            floats.add(run.name)
    return runs


def _content(path: pathlib.Path) -> dict[str, Any]:
    content = yaml.safe_load(path.read_text())
    keys = set(content) if isinstance(content, dict) else set()
    if keys not in ({"network", "schedule", "runs"}, {"network", "like", "runs"}):
        raise ValueError(f"{path} must have the keys network, runs, and one of schedule and like.")
    return content


def _described_runs(path: pathlib.Path, content: Mapping[str, Any]) -> dict[str, Run]:
    runs = {}
    for name, options in content["runs"].items():
        schedule = {**content["schedule"], **options.get("schedule", {})}
        described = {"name": name, "depth": content["network"], **options, "schedule": schedule}
        try:
            runs[name] = described_run(described)
        except TypeError as error:
            raise ValueError(f"`runs.{name}` in {path}: {error}.") from error
    return runs


def _runs_like(path: pathlib.Path, content: Mapping[str, Any]) -> dict[str, Run]:
    like, names = content["like"], content["runs"]
    if not isinstance(names, list):
        raise ValueError(f"`runs` in {path} must be a list of names, as it is `like` {like}.")
    other = path.parent / like
    other_content = _content(other)
    if "like" in other_content:
        raise ValueError(f"`like` in {path} must name a file that has a schedule, got {like}.")
    others = _described_runs(other, other_content)
    unknown = [str(name) for name in names if name not in others]
    if unknown:
        raise ValueError(f"`runs` in {path} must name runs of {like}, got {', '.join(unknown)}.")
    return {name: dataclasses.replace(others[name], depth=content["network"]) for name in names}


def described_run(described: Mapping[str, Any]) -> Run:
    """Returns the run that `dataclasses.asdict` gave this description of; what it lacks is default.

    Raises:
        TypeError: If a key is unknown, or one without a default is missing.
        ValueError: If a value does not fit.
    """
    return Run(**{**described, "schedule": Schedule(**described["schedule"])})
