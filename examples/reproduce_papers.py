"""Recomputes what the papers print about cost and memory, cell by cell.

    python examples/reproduce_papers.py
    python examples/reproduce_papers.py --figure=figure1.png

No data and no training; well under a minute. --figure draws WRPN's Figure 1, which needs
matplotlib. What it printed is in examples/results/papers.md. The papers' accuracies are not here:
they need ImageNet.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import paper_figure
import paper_networks
from absl import app, flags

import wrpn_tf
from wrpn_tf.analysis import (
    MemoryFootprint,
    ModelProfile,
    crop_table,
    memory_table,
    paper_gains_table,
    relative_cost,
    speed_up_table,
    uniform_cost,
    widened_profile,
    with_bits,
)

_FIGURE = flags.DEFINE_string(
    "figure", None, "Where to draw WRPN's Figure 1: a .png, .svg or .pdf file."
)

_BITS = (32, 8, 4, 2, 1)
# WRPN, Table 3: AlexNet, twice as wide. Rows: bits of weights, columns: of activations.
_TABLE_3 = (
    ("3.9", "2.4", "2.2", "2.1", "2.0"),
    ("2.4", "1.0", "0.7", "0.6", "0.6"),
    ("2.2", "0.7", "0.5", "0.4", "0.3"),
    ("2.1", "0.6", "0.4", "0.2", "0.2"),
    ("2.0", "0.6", "0.3", "0.2", "0.1"),
)
# WRPN, Table 4, ResNet-34: width, bits of activations and of weights, cost.
_TABLE_4 = (
    (1, 1, 1, ".03"),
    (2, 4, 8, ".74"),
    (2, 4, 4, ".50"),
    (2, 4, 2, ".39"),
    (2, 2, 4, ".39"),
    (2, 2, 2, ".27"),
    (2, 1, 1, ".15"),
    (3, 1, 1, ".30"),
)
# WRPN, Table 5, BN-Inception, twice as wide: bits of activations and of weights, cost.
_TABLE_5 = ((4, 4, ".50"), (4, 2, ".38"), (2, 2, ".25"), (1, 1, ".13"))
# WRPN, Figure 1: % of weights in training and in inference, each at batch sizes 1 and 32; and what
# of the network is counted.
_FIGURE_1 = {
    "AlexNet": (("70.3", "6.9", "71.5", "7.3"), "convolutions"),
    "ResNet-50": (("69.0", "6.5", "94.1", "33.2"), "kernels"),
    "ResNet-101": (("72.8", "7.7", "96.5", "46.4"), "kernels"),
    "Inception-ResNet-v2": (("65.6", "5.6", "79.6", "10.9"), "kernels"),
}
_INCEPTION = "Inception-ResNet-v2"
_PAPER_FORM = "paper's form"
_BLOCKS_ONCE = "each kind of block once"


def main(argv: Sequence[str]) -> None:
    """Prints all tables and draws the figure."""
    if len(argv) > 1:
        raise app.UsageError(f"Flags only, got {' '.join(argv[1:])}.")
    if _FIGURE.value:
        try:
            draw_figure_1(_FIGURE.value)
        except (ImportError, OSError, ValueError) as error:
            sys.exit(f"Error: {error}")
    for line in report():
        print(line)


def report() -> Iterator[str]:
    """Yields the lines of all tables, in Markdown."""
    yield from (
        "# The papers' figures, recomputed",
        "",
        "By `python examples/reproduce_papers.py`. WRPN: arXiv 1709.01134; workshop paper: arXiv",
        "1704.03079. yes: equal at the printed digits; cut: equal if digits are cut off instead of",
        "rounded; no: neither. Costs are relative to the network in float32 before widening.",
    )
    sections = (
        *(_alexnet, _resnet34, _bn_inception, _figure_1, _inception, _speed_ups),
        *(_accelerator, _crops),
    )
    for section in sections:
        yield ""
        yield from section()


def _alexnet() -> Iterator[str]:
    _, wide = alexnet()
    yield from _title("AlexNet, twice as wide: cost (WRPN, Table 3)", "Sum model, all layers.")
    rows = [
        (f"{weight}b weights, {activation}b activations", _TABLE_3[i][j], wide, weight, activation)
        for i, weight in enumerate(_BITS)
        for j, activation in enumerate(_BITS)
    ]
    for what, published, profile, weight, activation in rows:
        yield _row(what, published, _cost("AlexNet", profile, weight, activation))
    yield ""
    yield from _title("AlexNet, twice as wide, 4 bits: cost elsewhere in print", "In %.")
    yield _row("WRPN: sum model, all layers", "49", 100 * _cost("AlexNet", wide, 4, 4))
    product = _cost("AlexNet", wide, 4, 4, model="product", first_and_last="float")
    yield _row("workshop: product model, first and last float", "14", 100 * product)


def _resnet34() -> Iterator[str]:
    yield from _title(
        "ResNet-34: cost (WRPN, Table 4; workshop paper)",
        "Wide: first and last layers float, first convolution not widened, a 1x1 beside block 1.",
    )
    wide = {1: network("ResNet-34")}
    for width in (2, 3):
        wide[width] = widened_profile(
            paper_networks.projected_resnet34(),
            width_multiplier=width,
            overrides={"stem_conv": 1},
        )
    for width, activation, weight, published in _TABLE_4:
        ends = "as_is" if width == 1 else "float"
        cost = _cost("ResNet-34", wide[width], weight, activation, first_and_last=ends)
        what = f"{width}x, {weight}b weights, {activation}b activations"
        yield _row(what, published, cost)
    product = _cost("ResNet-34", wide[2], 4, 8, model="product", first_and_last="float")
    yield _row("workshop, in %: 2x, 4b weights, 8b activations, product", "15.1", 100 * product)


def _bn_inception() -> Iterator[str]:
    yield from _title(
        "BN-Inception, twice as wide: cost (WRPN, Table 5)",
        "The formula width^2 * (a + w) / 64, no network.",
    )
    for activation, weight, published in _TABLE_5:
        cost = uniform_cost(activation, weight, width_multiplier=2)
        yield _row(f"{weight}b weights, {activation}b activations", published, cost)


def _figure_1() -> Iterator[str]:
    yield from _title(
        "Memory: weights in % of all (WRPN, Figure 1)",
        'Rule "figure": W / (W + b A) in training, W / (W + 2 b max M) in inference.',
    )
    for name, (published, counting) in _FIGURE_1.items():
        for value, footprint in zip(published, _footprints(name, "figure"), strict=True):
            what = f"{name} ({counting}), {footprint.phase}, batch of {footprint.batch_size}"
            yield _row(what, value, 100 * footprint.weight_share)
    yield ""
    yield 'By the text\'s formula (rule "text"), which adds the largest gradient maps in training:'
    yield ""
    yield "| network | training, 1 | training, 32 | inference, 1 | inference, 32 |"
    yield "|---|---|---|---|---|"
    for name in _FIGURE_1:
        shares = [f"{100 * x.weight_share:.1f}" for x in _footprints(name, "text")]
        yield f"| {name} | {' | '.join(shares)} |"


def _inception() -> Iterator[str]:
    yield "## Inception-ResNet-v2 in Figure 1: not reproduced"
    yield ""
    yield "Weights (M), all feature maps A (M), the largest M (M), and the shares by the same rule:"
    yield ""
    yield "| form, what is counted | W | A | max M | shares, as above |"
    yield "|---|---|---|---|---|"
    for form in (_INCEPTION, _PAPER_FORM, _BLOCKS_ONCE):
        for counting in ("kernels", "convolutions"):
            table = memory_table(network(form), rule="figure", counting=counting)
            maps = wrpn_tf.analysis.feature_maps(network(form), counting=counting)
            sizes = [x.num_values / 1e6 for x in maps]
            shares = " ".join(f"{100 * x.weight_share:.1f}" for x in table)
            weights = table[0].weight_bytes / 4e6
            label = "keras.applications" if form == _INCEPTION else form
            yield (
                f"| {label}, {counting} | {weights:.2f} | {sum(sizes):.2f} | {max(sizes):.2f} "
                f"| {shares} |"
            )
    yield from (
        "",
        "Published: 65.6 5.6 79.6 10.9. Inference needs W = 7.8 max M: for 56 M weights a map of",
        "7.1 M values, five times the largest there is; for the largest there is, 10.8 M weights.",
        "So many has the paper's form with each kind of block counted once and no classifier: its",
        "inference comes out (perhaps by chance), its training does not. Tried besides, and no",
        "natural counting gives all four: images of 224 to 395 pixels; same padding throughout;",
        "blocks as often as in either form, once, twice or never; no stem, reductions, last",
        "convolution or classifier; maps with and without pools, concatenations, sums, inputs; two",
        "or three copies of convolutions' outputs (batch norm, ReLU); other maps than the largest.",
    )


def _speed_ups() -> Iterator[str]:
    yield "## First-order speed-up: 64 / (a + w) (WRPN, section on speed-ups)"
    yield ""
    yield "Per operation, and per image for AlexNet twice as wide (the sum model's inverse)."
    yield ""
    yield "| weights, activations | per operation | AlexNet 2x, per image |"
    yield "|---|---|---|"
    _, wide = alexnet()
    for gain in speed_up_table(profile=wide, baseline=network("AlexNet")):
        pair = f"{gain.num_bits_weight}b, {gain.num_bits_activation}b"
        yield f"| {pair} | {gain.per_operation:.2f} | {gain.per_network:.2f} |"


def _accelerator() -> Iterator[str]:
    yield from (
        "## The accelerator: 15x smaller, 12x less power (WRPN & Apprentice, section 3)",
        "",
        "Against an upper bound: the gates of one 2-bit x 8-bit engine and of a float32",
        "multiply-add, counted with Aladdin's published 40 nm units. alike: what both designs",
        "would have to share, in small engines, for the count to come down to the paper's figure.",
        "",
        *("```", *paper_gains_table().splitlines(), "```"),
    )


def _crops() -> Iterator[str]:
    yield from (
        "## Computational energy saved by cropping VGG-16's borders at N = 25",
        "",
        "Dynamic Activation Quantization, slides. Widths of the crop scaled to each map, and",
        "those on the slides (25, 10, 8, 5, 2), which no scaling gives. The slides' 33.5 % and",
        "42.0 % are means over images and their predictor's choices, which are not published.",
        "",
        *("```", *crop_table().splitlines(), "```"),
    )


def draw_figure_1(path: str) -> None:
    """Draws the shares of weights and activations by network, as WRPN's Figure 1.

    Raises:
        ImportError: If matplotlib is missing; says how to install it.
    """
    panels: dict[str, list[tuple[str, float, float]]] = {"training": [], "inference": []}
    for name, (published, _) in _FIGURE_1.items():
        for value, footprint in zip(published, _footprints(name, "figure"), strict=True):
            label = f"{name}\nbatch of {footprint.batch_size}"
            bar = (label, 100 * footprint.weight_share, float(value))
            panels[footprint.phase].append(bar)
    paper_figure.draw_shares(path, panels)


@functools.cache
def alexnet() -> tuple[ModelProfile, ModelProfile]:
    """Returns the profiles of AlexNet and of AlexNet twice as wide."""
    model = wrpn_tf.applications.AlexNet()
    return ModelProfile(model), widened_profile(model)


@functools.cache
def network(name: str) -> ModelProfile:
    """Returns the profile of a float network, built once."""
    if name == "AlexNet":
        return alexnet()[0]
    builders = {
        "ResNet-34": wrpn_tf.applications.PreActResNet34,
        "ResNet-50": lambda: paper_networks.bottleneck_resnet("resnet50", (3, 4, 6, 3)),
        "ResNet-101": lambda: paper_networks.bottleneck_resnet("resnet101", (3, 4, 23, 3)),
        _INCEPTION: lambda: keras.applications.InceptionResNetV2(weights=None),
        _PAPER_FORM: lambda: paper_networks.inception_resnet_v2((5, 10, 5)),
        _BLOCKS_ONCE: lambda: paper_networks.inception_resnet_v2((1, 1, 1)),
    }
    return ModelProfile(builders[name]())


def _footprints(name: str, rule: str) -> tuple[MemoryFootprint, ...]:
    return memory_table(network(name), rule=rule, counting=_FIGURE_1[name][1])


def _cost(baseline: str, profile: ModelProfile, weight: int, activation: int, **how: str) -> float:
    low = with_bits(profile, num_bits_weight=weight, num_bits_activation=activation)
    return relative_cost(low, network(baseline), **how)


def _title(title: str, note: str) -> Iterator[str]:
    yield f"## {title}"
    yield ""
    yield note
    yield ""
    yield "| what | published | computed | difference | equal |"
    yield "|---|---|---|---|---|"


def _row(what: str, published: str, computed: float) -> str:
    decimals = len(published.partition(".")[2])
    unit = 10.0**-decimals
    difference = computed - float(published)
    # 1e-9: what is exactly in the middle counts as rounded either way.
    equal = "yes" if abs(difference) <= unit / 2 + 1e-9 else "no"
    if equal == "no" and 0 <= difference < unit:
        equal = "cut"
    digits = decimals + 2
    return f"| {what} | {published} | {computed:.{digits}f} | {difference:+.{digits}f} | {equal} |"


if __name__ == "__main__":
    app.run(main)
