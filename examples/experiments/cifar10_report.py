"""The report of `cifar10.py`: tables in Markdown, and a plot."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

import cifar10_plot
import cifar10_results
from cifar10_config import Run
from cifar10_results import Row

from wrpn_tf.whole_file import write_whole

_LARGEST_LOSS = 1.0  # What 2W/8A may lose against float, in points.
_PLAIN = (
    "w2a8",
    "w2a8_from_float",
    "w2a8_float_half",
    "w2a8_steps",
    "w2a8_square",
    "w2a8_decay",
    "w2a8_shortcuts8",
    "w2a8_stage1_8",
)
_SHARE_OF_EPOCHS = 0.85
_LARGEST_EXPORT_LOSS = 0.1
_PAPERS, _OURS = "papers", "ours"
# A claim, whose it is, the run that is to be ahead, and the one that it is to be ahead of.
_CLAIMS = (
    ("2-bit weights cost less than 8-bit activations", _OURS, "w2a32", "w32a8"),
    ("2-bit weights cost less than 2-bit activations", _PAPERS, "w2a32", "w32a2"),
    ("the first 30 % at 2x win back what 2W/8A loses", _PAPERS, "w2a8_first30", "w2a8"),
    ("a teacher wins it back", _PAPERS, "w2a8_apprentice", "w2a8"),
    ("a teacher wins it back, in steps", _PAPERS, "w2a8_apprentice_steps", "w2a8_steps"),
    ("a teacher wins it back, from float weights", _PAPERS, "w2a8_apprentice_c", "w2a8_from_float"),
    (
        "a start from float weights, without a teacher, wins it back",
        _OURS,
        "w2a8_from_float",
        "w2a8",
    ),
    ("half of the same epochs in float win it back", _OURS, "w2a8_float_half", "w2a8"),
    ("8-bit weights in the first stage win it back", _OURS, "w2a8_stage1_8", "w2a8"),
    ("8-bit weights in 1x1 shortcuts win it back", _OURS, "w2a8_shortcuts8", "w2a8"),
    ("both are better than float", _PAPERS, "w2a8_both", "float"),
    ("4W/4A at 2x is better than float", _PAPERS, "w4a4_2x", "float"),
)
_STEPS = (
    "`In steps`: the rate falls to a tenth after 50 and after 75 % of the epochs instead, as in He "
    "et al. (arXiv 1512.03385, section 4.2)."
)
_POWER = (
    "`Rate as a square`: the rate falls as the square of the share of the epochs that is left "
    "instead, so that more of them have a low one."
)
_FROM_FLOAT = (
    "`From float`: starts from the trained weights of the float net of its seed, so it has twice "
    "the epochs in all, and the float net that it is compared with has not."
)
_HALF_IN_FLOAT = (
    "`Half of it in float`: the first half of the same epochs trains the float net, which is then "
    "quantized, its ranges `wrpn_tf.calibrate`d; SGD's momentum begins anew."
)
_EXPORT_KEYS = ("keras_accuracy", "snapped_accuracy", "tflite_accuracy")


def write(runs: Mapping[str, Run], folder: pathlib.Path, config: pathlib.Path) -> str:
    """Writes the report on a folder of results, `<folder>.md` and `<folder>.png`; returns the text.

    Args:
        runs: The runs of the configuration file.
        folder: Their results.
        config: The configuration file, for the command that the report gives.
    """
    rows = cifar10_results.read(runs, folder)
    if not rows:
        return f"No run in {folder} is finished yet."
    text = markdown(runs, rows, folder.name, config.name)
    write_whole(text.encode(), folder.parent / f"{folder.name}.md")
    cifar10_plot.draw(rows, folder.parent / f"{folder.name}.png")
    return text


def markdown(runs: Mapping[str, Run], rows: Mapping[str, Row], folder: str, config: str) -> str:
    """Returns the report's text; `folder` and `config` are file names in it."""
    first = next(iter(rows.values()))
    plan = first.run.schedule
    parts = [
        "# Low precision on CIFAR-10",
        f"ResNet-{first.run.depth}, all 50,000 training images, shifted by up to 4 pixels and "
        f"mirrored; {plan.epochs} epochs from random weights, batch {plan.batch_size}, SGD "
        f"{plan.learning_rate:g} with Nesterov momentum {plan.momentum:g} and a cosine to 0, "
        f"weight decay {plan.weight_decay:g} on kernels; one schedule for all whose name gives no "
        "other. Accuracy is of all 10,000 test images after the last epoch, never of the best one; "
        "the standard error of a single net's accuracy is some "
        f"{cifar10_results.standard_error(first.mean):.2f} points. `±` is the standard deviation "
        "over seeds; a difference is the mean over the seeds that both nets have. "
        f"Written by `examples/experiments/cifar10.py`; every epoch is in `{folder}/*.csv`, every "
        f"setting, commit and version in `{folder}/*.json`.",
        _STEPS if any(row.run.schedule.steps for row in rows.values()) else "",
        _POWER if any(row.run.schedule.power for row in rows.values()) else "",
        _FROM_FLOAT if any(row.run.start for row in rows.values()) else "",
        _HALF_IN_FLOAT if any(row.run.float_share for row in rows.values()) else "",
        f"![Accuracies, and test accuracy by epoch]({folder}.png)",
        "In the middle of training, batch norm's moving averages lag behind weights of few bits. "
        "Accuracies by epoch are with statistics measured again "
        "(`wrpn_tf.reestimate_batch_norm`) where the runs tell it.",
        _command(runs, folder, config),
        _teachers(rows),
    ]
    sections = (
        ("Accuracy", "", _accuracies),
        ("Figures", "", _figures),
        (
            "Claims of the papers, and questions of our own",
            "Differences of test accuracies, in points, with the standard error that 10,000 images "
            "give; twice as much is taken to settle a claim. The spread between seeds is not in "
            "it. The rows of the papers are what they claim; ours vary that, to tell where the "
            "points go.",
            _claims,
        ),
        (
            "Convergence",
            "Epochs until a distilled student is first as good on the test set as the plain "
            "student of the same widths, bits and start is at its end, and until that student is "
            "itself.",
            _convergence,
        ),
        (
            "Integer files",
            "Top-1 on the whole test set: Keras, Keras after snapping (scales and biases moved to "
            "values that all kernels round alike), and the int8 `.tflite` file in `tf.lite`. Right "
            "answers lost and won: by the file, and, as a control, by Keras itself when ranges of "
            "activations grow by 0.1 %, which makes no better or worse net. Of n such answers, "
            "chance alone moves accuracy by √n / 100 points.",
            _exports,
        ),
        (
            "How each net was obtained",
            "Minutes are wall time, beside other work on the same machine and its pauses: they "
            "tell what a series takes, not which net trains faster.",
            _provenance,
        ),
    )
    for title, text, table in sections:
        lines = table(rows)
        if lines:
            parts += [f"## {title}", text, lines]
    parts.append(_missing(runs, rows))
    return "\n\n".join(part for part in parts if part) + "\n"


def _command(runs: Mapping[str, Run], folder: str, config: str) -> str:
    """The command that trains all runs, as code."""
    lines = [
        "python examples/experiments/cifar10.py --data_dir=.../cifar-10-batches-py \\",
        f"    --config=examples/experiments/{config} --teacher=teacher.h5 \\",
        f"    --out_dir={folder} --work_dir={folder}_checkpoints",
    ]
    if any(run.needs_other_environment for run in runs.values()):
        lines[-1] += " \\"
        lines.append("    --tools_python=tools/bin/python")
    return "\n".join(f"    {line}" for line in lines)


def _teachers(rows: Mapping[str, Row]) -> str:
    nets = [net for row in rows.values() for net in row.nets.values()]
    teachers = {
        f"`{found['file']}` ({found['test_accuracy']:.2f} %)"
        for net in nets
        if (found := net.result.get("teacher"))
    }
    return f"Teacher: {', '.join(sorted(teachers))}." if teachers else ""


def _accuracies(rows: Mapping[str, Row]) -> str:
    lines = []
    for row in rows.values():
        reference = cifar10_results.float_of(row, rows)
        lines.append(
            [
                row.run.title,
                f"{row.mean:.2f}" + (f" ± {row.spread:.2f}" if row.spread is not None else ""),
                str(len(row.nets)),
                _difference(row, reference),
                f"{next(iter(row.nets.values())).result['parameters']:,}",
            ]
        )
    header = ["net", "test accuracy, %", "seeds", "against float", "parameters"]
    return _table(header, lines)


def _difference(row: Row, reference: Row | None) -> str:
    ahead = None if reference is None else row.ahead_of(reference)
    return "" if ahead is None else f"{ahead:+.2f}"


def _figures(rows: Mapping[str, Row]) -> str:
    """What was to be reached, and whether it was."""
    lines = [
        *_ahead("2W/8A, widened and distilled, at least float", rows, "w2a8_both", "float", 0.0),
    ]
    for name in _PLAIN:
        reference = cifar10_results.float_of(rows[name], rows) if name in rows else None
        if reference is not None:
            figure = f"{rows[name].run.title}, plain, within 1 of float"
            lines += _ahead(figure, rows, name, reference.run.name, -_LARGEST_LOSS)
    for row in rows.values():
        ours = cifar10_results.ours_of(row, rows) if row.run.tool is not None else None
        ahead = None if ours is None else ours.ahead_of(row)
        if ahead is not None:
            lines.append([f"ahead of {row.run.title}", f"{ahead:+.2f}", _verdict(ahead > 0)])
    for row, plain in _distilled(rows):
        pairs = row.pairs(plain)
        reached = [cifar10_results.convergence(own, its).epoch for own, its in pairs]
        if reached:
            shares = [None if r is None else r / plain.run.schedule.epochs for r in reached]
            figure = f"{row.run.title}: plain student's accuracy in at most 85 % of the epochs"
            told = ", ".join("never" if share is None else f"{share:.0%}" for share in shares)
            held = all(share is not None and share <= _SHARE_OF_EPOCHS for share in shares)
            lines.append([figure, told, _verdict(held)])
    for row in rows.values():
        for net in row.nets.values():
            if "export" in net.result:
                made = net.result["export"]
                moved = round(made["tflite_accuracy"] - made["keras_accuracy"], 2)
                figure = f"{row.run.title}, seed {net.seed}: file within 0.1 of Keras"
                held = abs(moved) <= _LARGEST_EXPORT_LOSS
                lines.append([figure, f"{moved:+.2f}", _verdict(held)])
    return _table(["figure", "measured", ""], lines)


def _ahead(
    figure: str, rows: Mapping[str, Row], name: str, other: str, least: float
) -> list[list[str]]:
    """The line that compares two rows; none while they have no seed in common."""
    ahead = cifar10_results.ahead(rows, name, other)
    return [] if ahead is None else [[figure, f"{ahead:+.2f}", _verdict(ahead >= least)]]


def _claims(rows: Mapping[str, Row]) -> str:
    lines = []
    for claim, whose, name, other in _CLAIMS:
        ahead = cifar10_results.ahead(rows, name, other)
        if ahead is None:
            continue
        error = rows[name].error_of_difference(rows[other])
        settled = "holds" if ahead > 0 else "**does not hold**"
        told = settled if abs(ahead) >= 2 * error else "open"
        lines.append([claim, whose, rows[name].run.title, f"{ahead:+.2f} ± {error:.2f}", told])
    return _table(["claim", "whose", "net", "measured", ""], lines)


def _distilled(rows: Mapping[str, Row]) -> list[tuple[Row, Row]]:
    """The distilled rows, each with that of the plain student."""
    pairs = [
        (row, cifar10_results.plain_of(row, rows))
        for row in rows.values()
        if row.run.distill is not None
    ]
    return [(row, plain) for row, plain in pairs if plain is not None]


def _convergence(rows: Mapping[str, Row]) -> str:
    lines = []
    for row, plain in _distilled(rows):
        for own, its in row.pairs(plain):
            found = cifar10_results.convergence(own, its)
            told = "not reached" if found.epoch is None else f"{found.epoch} of {len(its.curve)}"
            nets = [row.run.title, plain.run.title, str(own.seed)]
            statistics = "measured again" if found.is_reestimated else "moving"
            others = str(found.others_epoch)
            lines.append([*nets, statistics, f"{found.target:.2f}", told, others])
    header = ["distilled", "plain", "seed", "batch norm", "plain's last accuracy, %"]
    header += ["epoch", "plain's own"]
    return _table(header, lines)


def _exports(rows: Mapping[str, Row]) -> str:
    lines = [
        [
            row.run.title,
            str(net.seed),
            *(f"{made[key]:.2f}" for key in _EXPORT_KEYS),
            *(_changed(made.get(key)) for key in ("changed", "changed_by_nudge")),
            f"{made['bytes']:,}",
        ]
        for row in rows.values()
        for net in row.nets.values()
        if (made := net.result.get("export"))
    ]
    header = ["net", "seed", "Keras, %", "snapped, %", "file, %", "lost + won", "control", "bytes"]
    return _table(header, lines)


def _changed(answers: Mapping[str, int] | None) -> str:
    """Empty for files from before answers were counted."""
    return "" if answers is None else f"{answers['lost']} + {answers['won']}"


def _provenance(rows: Mapping[str, Row]) -> str:
    lines = []
    for row in rows.values():
        for net in row.nets.values():
            result = net.result
            versions = result["versions"]
            tool = (row.run.tool or {}).get("name")
            packages = {"tfmot": "tensorflow-model-optimization"}.get(tool, tool)
            used = f"{packages} {versions[packages]}, " if packages else ""
            parts = result["parts"]
            lines.append(
                [
                    row.run.name,
                    str(net.seed),
                    _each("commit", parts),
                    used + _each("trained_with", parts),
                    _each("hardware", parts),
                    f"{result['seconds'] / 60:.0f}",
                    _each("date", parts),
                ]
            )
    header = ["run", "seed", "commit", "with", "hardware", "minutes", "date"]
    return _table(header, lines)


def _each(key: str, parts: Sequence[Mapping[str, str]]) -> str:
    """What the parts of a run say, in their order, each once."""
    return ", then ".join(dict.fromkeys(part[key] for part in parts))


def _missing(runs: Mapping[str, Run], rows: Mapping[str, Row]) -> str:
    lines = []
    for seed in range(max(run.seeds for run in runs.values())):
        names = [
            name
            for name, run in runs.items()
            if seed < run.seeds and (name not in rows or seed not in rows[name].nets)
        ]
        if names:
            lines.append(f"Not run yet with seed {seed}: {', '.join(names)}.")
    return "\n\n".join(lines)


def _verdict(held: bool) -> str:
    return "reached" if held else "**missed**"


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; empty without lines."""
    if not lines:
        return ""
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
