"""`summary`: what a model stores and computes, layer by layer, as a table and as data."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable
from typing import Any

from wrpn_tf.analysis.precision import FLOAT_BITS
from wrpn_tf.analysis.profile import LayerProfile, ModelProfile
from wrpn_tf.analysis.summary_table import table_lines


@dataclasses.dataclass(frozen=True)
class LayerSummary:
    """One call of one layer.

    Attributes:
        path: The layer's name, "outer/inner" in a nested model.
        class_name: The layer's class.
        output_shape: Shape of the first output, with the batch size asked for.
        num_bits_weight: Bits of each weight that is multiplied, by attribute: {"kernel": 2}; 32 is
            float.
        num_bits_activation: Bits of the values the layer reads; 32 is float.
        num_parameters: Parameters; 0 in the second and later calls of a shared layer.
        num_bytes: Bytes of the parameters at their bits.
        macs: "activation bits x weight bits" -> multiply-accumulates of the batch: {"8x2": 1024};
            None if unknown.
        bits_by_region: Bits of the values the layer reads where they are most important, then
            less; None where they are the same everywhere.
    """

    path: str
    class_name: str
    output_shape: tuple[int | None, ...]
    num_bits_weight: dict[str, int]
    num_bits_activation: int
    num_parameters: int
    num_bytes: int
    macs: dict[str, int] | None
    bits_by_region: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Summary:
    """What `wrpn_tf.summary` returns; `str()` of it is the table.

    Attributes:
        name: The model's name.
        batch_size: Examples per batch; `macs`, `cost` and output shapes are per batch.
        layers: One row per layer call, in the order of computation.
        num_parameters: Parameters, each layer once.
        num_bytes: Bytes of the parameters at their bits; what stays float at 32.
        num_bytes_float: Bytes of the same parameters in float32.
        macs: "activation bits x weight bits" -> multiply-accumulates: {"8x2": 1024}.
        cost: FMA-bits: the sum of multiply-accumulates * (activation bits + weight bits).
        cost_float: The same with 32 + 32 bits everywhere.
        float_weights: Paths of the layers whose multiplied weights stay float.
        float_activations: Paths of the layers with quantized weights that read float values.
        float_parameters: Class -> number of layers whose parameters scale or shift values in
            float, such as BatchNormalization.
        uncounted: Path -> why the layer's multiply-accumulates are unknown; they are in no sum.
        regions: What makes parts of an image important, in words; None without regions. `macs` and
            `cost` are with all of it important.
    """

    name: str
    batch_size: int
    layers: tuple[LayerSummary, ...]
    num_parameters: int
    num_bytes: int
    num_bytes_float: int
    macs: dict[str, int]
    cost: int
    cost_float: int
    float_weights: tuple[str, ...]
    float_activations: tuple[str, ...]
    float_parameters: dict[str, int]
    uncounted: dict[str, str]
    regions: str | None = None

    @property
    def num_macs(self) -> int:
        """Multiply-accumulates of the batch, without those of `uncounted` layers."""
        return sum(self.macs.values())

    @property
    def compression(self) -> float:
        """`num_bytes_float / num_bytes`."""
        return self.num_bytes_float / self.num_bytes

    @property
    def relative_cost(self) -> float | None:
        """`cost / cost_float`; None if no multiply-accumulates are known."""
        return self.cost / self.cost_float if self.cost_float else None

    def to_dict(self) -> dict[str, Any]:
        """Returns all of it, derived figures included, in types that JSON can hold."""
        data = dataclasses.asdict(self)
        for row in data["layers"]:
            row["output_shape"] = list(row["output_shape"])
            row["bits_by_region"] = row["bits_by_region"] and list(row["bits_by_region"])
        for name in ("layers", "float_weights", "float_activations"):
            data[name] = list(data[name])
        for name in ("num_macs", "compression", "relative_cost"):
            data[name] = getattr(self, name)
        return data

    def __str__(self) -> str:
        return "\n".join(table_lines(self))


def summary(
    model: Any, *, batch_size: int = 1, print_fn: Callable[[str], Any] | None = print
) -> Summary:
    """Prints and returns what a model stores and computes, by layer and by bits.

    Cost is the papers': multiply-accumulates * (activation bits + weight bits), relative to 32 + 32
    bits. Bytes hold the weights densely packed at their bits, and biases, normalizations and float
    layers at 32 bits; the quantizers' scales are not in them.

    Args:
        model: A Functional or Sequential model of either Keras, float or quantized.
        batch_size: Examples per batch; scales multiply-accumulates and costs, not bytes.
        print_fn: Takes each line of the table, which has 100 columns at most; None prints nothing.

    Returns:
        The same as data.

    Raises:
        TypeError, ValueError: If the model's graph cannot be read, or `batch_size` is not an
            integer >= 1.

    Source: Mishra & Marr, "WRPN & Apprentice" (arXiv 1803.00227), section 2, footnote 2.
    """
    check_batch_size(batch_size)
    result = summarize(ModelProfile(model), batch_size)
    if print_fn is not None:
        for line in table_lines(result):
            print_fn(line)
    return result


def summarize(profile: ModelProfile, batch_size: int = 1) -> Summary:
    """Adds up a profile; see `Summary`."""
    macs = {pair: batch_size * count for pair, count in profile.macs_by_bits.items()}
    return Summary(
        name=profile.name,
        batch_size=batch_size,
        layers=tuple(_row(layer, batch_size) for layer in profile.layers),
        num_parameters=profile.num_parameters,
        num_bytes=profile.num_bytes,
        num_bytes_float=profile.num_parameters * FLOAT_BITS // 8,
        macs={_pair(*pair): count for pair, count in macs.items()},
        cost=batch_size * profile.cost,
        cost_float=2 * FLOAT_BITS * sum(macs.values()),
        float_weights=_paths(profile, lambda mac: mac.num_bits_weight == FLOAT_BITS),
        float_activations=_paths(
            profile,
            lambda mac: mac.num_bits_weight < FLOAT_BITS == mac.num_bits_activation,
        ),
        float_parameters=_float_parameters(profile),
        uncounted=profile.uncounted,
        regions=profile.regions,
    )


def check_batch_size(batch_size: int) -> None:
    """Checks a number of examples per batch.

    Raises:
        TypeError: If it is no integer.
        ValueError: If it is below 1.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int):
        raise TypeError(f"`batch_size` must be an integer, got {batch_size!r}.")
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be >= 1, got {batch_size}.")


def _row(layer: LayerProfile, batch_size: int) -> LayerSummary:
    macs: collections.Counter[str] = collections.Counter()
    for mac in layer.macs:
        macs[_pair(mac.num_bits_activation, mac.num_bits_weight)] += batch_size * mac.count
    return LayerSummary(
        path=layer.path,
        class_name=layer.class_name,
        output_shape=(batch_size, *layer.output_shapes[0][1:]),
        num_bits_weight={mac.weight: mac.num_bits_weight for mac in layer.macs},
        num_bits_activation=max(layer.num_bits_input),
        num_parameters=layer.num_parameters,
        num_bytes=layer.num_bytes,
        macs=None if layer.uncounted else dict(macs),
        bits_by_region=layer.bits_by_region,
    )


def _pair(num_bits_activation: int, num_bits_weight: int) -> str:
    return f"{num_bits_activation}x{num_bits_weight}"


def _paths(profile: ModelProfile, holds: Callable[[Any], bool]) -> tuple[str, ...]:
    """Returns the paths of the layers with a multiply-accumulate of which `holds` is true."""
    paths = [layer.path for layer in profile.layers if any(holds(mac) for mac in layer.macs)]
    return tuple(dict.fromkeys(paths))


def _float_parameters(profile: ModelProfile) -> dict[str, int]:
    counted = [x for x in profile.layers if x.weights and not x.macs and not x.uncounted]
    return dict(collections.Counter(layer.class_name for layer in counted))
