"""What a model puts out, logits or probabilities: found out, and compared with what was said."""

from __future__ import annotations

from typing import Any

import numpy as np

from wrpn_tf.keras_flavor import keras_class
from wrpn_tf.model_graph import model_graph, structures
from wrpn_tf.quantization.quantize_registry import activation_name, probability_function
from wrpn_tf.training.distributions import (
    BERNOULLI,
    CATEGORICAL,
    LOGITS,
    PROBABILITIES,
    Distribution,
)

_KINDS = ("auto", LOGITS, PROBABILITIES)
_PROBE_EXAMPLES = 4
# bfloat16 keeps 8 bits, so a sum of probabilities is off by up to 2**-8, more when an output
# quantizer follows; random logits that are non-negative and sum to 1 this nearly, four times over,
# do not occur.
_TOLERANCE = 0.02


def class_shape(model: Any, argument: str) -> tuple[int | None, ...]:
    """Returns the shape, with batch dimension, of a classifier's one output.

    A list of one output counts as that output, which is what both Keras return from a call. Keras 3
    makes such a model of an HDF5 file of Keras 2.

    Raises:
        ValueError: If the model has several outputs, or one whose last axis has no known size.
    """
    _, outputs = structures(model)
    if not _is_one_tensor(outputs):
        raise ValueError(
            f"`{argument}` must have one output that is a tensor, got {model.name!r} with "
            f"{outputs!r:.200}. Distil a model of one of them: "
            "`keras.Model(model.inputs, model.outputs[0])`."
        )
    shape = tuple(model.outputs[0].shape)
    if len(shape) < 2 or shape[-1] is None:
        raise ValueError(
            f"`{argument}` must end in logits or probabilities over a last axis of known size, "
            f"got outputs of shape {shape}."
        )
    return shape


def _is_one_tensor(structure: Any) -> bool:
    if isinstance(structure, list | tuple) and len(structure) == 1:
        (structure,) = structure
    return not isinstance(structure, list | tuple | dict)


def check_same_shapes(student: Any, teacher: Any) -> None:
    """Checks that both models take the same inputs and give outputs of one shape.

    Raises:
        ValueError: If a known dimension differs.
    """
    for what, ours, theirs in (
        ("inputs", student.inputs, teacher.inputs),
        ("outputs", student.outputs, teacher.outputs),
    ):
        ours, theirs = ([tuple(t.shape) for t in tensors] for tensors in (ours, theirs))
        if len(ours) != len(theirs) or not all(map(_compatible, ours, theirs)):
            raise ValueError(
                f"`teacher` must have {what} of the student's shape {_spell(ours)}, "
                f"got {_spell(theirs)}."
            )


def output_distribution(student: Any, teacher: Any) -> Distribution:
    """Returns what the outputs of both models distribute.

    A single output says yes or no, and so do several where one of the models ends in a sigmoid.

    Raises:
        ValueError: If a model ends in a softmax, and it or the other one in yes and no.
    """
    activations = {"student": _last_activation(student), "teacher": _last_activation(teacher)}
    is_single = student.outputs[0].shape[-1] == 1
    if not is_single and "sigmoid" not in activations.values():
        return CATEGORICAL
    for argument, activation in activations.items():
        if activation == "softmax":
            why = "is 1 for every input" if is_single else "the other model's sigmoid does not fit"
            raise ValueError(
                f"`{argument}` must end in logits or a sigmoid, got a softmax, which {why}."
            )
    return BERNOULLI


def output_kind(model: Any, said: str, argument: str, distribution: Distribution) -> str:
    """Returns `"logits"` or `"probabilities"`: what a model's outputs are.

    For classes the model is run once on four random examples: outputs that are non-negative and sum
    to 1 over the last axis are probabilities. Where the input shape is not fully known, and for
    yes and no, the last activation decides.

    Args:
        model: A Functional or Sequential model with one output.
        said: `"auto"`, or what the user says they are.
        argument: `"student"` or `"teacher"`; used in errors.
        distribution: Of what they are.

    Raises:
        ValueError: If `said` is unknown or does not agree with what was found, or nothing was
            found.
    """
    if said not in _KINDS:
        names = ", ".join(f'"{kind}"' for kind in _KINDS)
        raise ValueError(f"`{argument}_outputs` must be one of {names}, got {said!r}.")
    activation = _last_activation(model)
    if distribution is BERNOULLI:
        why = "numbers from 0 to 1 may be either"
        return _kind_by_activation(activation, said, argument, distribution, why)
    outputs = _probe(model)
    if outputs is None:
        why = "its input shape is not fully known, so that it cannot be tried"
        return _kind_by_activation(activation, said, argument, distribution, why)
    found = PROBABILITIES if _are_probabilities(outputs) else LOGITS
    _check_agreement(found, said, activation, outputs, argument)
    return found


def _check_agreement(
    found: str, said: str, activation: str | None, outputs: np.ndarray, argument: str
) -> None:
    sums = outputs.sum(axis=-1)
    evidence = (
        f"its outputs span {outputs.min():.3g}..{outputs.max():.3g} "
        f"and sum to {sums.min():.3g}..{sums.max():.3g}"
    )
    if said not in ("auto", found):
        raise ValueError(
            f'`{argument}_outputs` must say what the {argument} puts out, got "{said}", but on '
            f"random examples {evidence} over the last axis: {found}."
        )
    if activation == "softmax" and found == LOGITS:
        raise ValueError(
            f"`{argument}` ends in a softmax, whose outputs must sum to 1 over the last axis, but "
            f"on random examples {evidence}. Is the softmax over another axis?"
        )


def _kind_by_activation(
    activation: str | None, said: str, argument: str, distribution: Distribution, why: str
) -> str:
    kinds = {distribution.activation: PROBABILITIES, "linear": LOGITS}
    found = kinds.get(activation or "")
    if said != "auto":
        if found not in (None, said):
            raise ValueError(
                f'`{argument}_outputs` must say what the {argument} puts out, got "{said}", but '
                f"its last activation is {activation}: {found}."
            )
        return said
    if found is None:
        raise ValueError(
            f'`{argument}_outputs` must be "logits" or "probabilities" for this {argument}: {why}, '
            f"and its last activation is {activation or 'not known'}."
        )
    return found


def _are_probabilities(outputs: np.ndarray) -> bool:
    return bool(outputs.min() >= 0 and np.abs(outputs.sum(axis=-1) - 1).max() <= _TOLERANCE)


def _probe(model: Any) -> np.ndarray | None:
    """The model's outputs for random examples; None where there can be none, or not finite ones."""
    examples = []
    generator = np.random.default_rng(0)
    for tensor in model.inputs:
        batch, *shape = tensor.shape
        dtype = getattr(tensor.dtype, "name", tensor.dtype)
        if None in shape or dtype == "string":
            return None
        size = (batch or _PROBE_EXAMPLES, *shape)
        noise = generator.standard_normal(size).astype(np.float32)
        # Zero is the one integer that every Embedding or CategoryEncoding takes.
        examples.append(noise if "float" in dtype else np.zeros(noise.shape, dtype))
    outputs = model(_pack_inputs(model, examples), training=False)
    outputs = np.asarray(outputs).astype(np.float64)
    return outputs if np.isfinite(outputs).all() else None


def _pack_inputs(model: Any, examples: list[np.ndarray]) -> Any:
    structure, _ = structures(model)
    if isinstance(structure, dict):
        by_tensor = {id(tensor): e for tensor, e in zip(model.inputs, examples, strict=True)}
        return {name: by_tensor[id(tensor)] for name, tensor in structure.items()}
    return examples if isinstance(structure, list | tuple) else examples[0]


def _last_activation(model: Any) -> str | None:
    """The name of the activation that makes the output; None where the last layer does not say."""
    graph = model_graph(model)
    key = graph.outputs[0]
    while key in graph.producers:
        call = graph.producers[key]
        layer = getattr(call.layer, "layer", call.layer)  # What a quantizing wrapper wraps.
        probabilities = probability_function(layer)
        if probabilities is not None or not hasattr(layer, "activation"):
            return probabilities
        name = activation_name(layer)
        if keras_class(layer) != "Activation" or name != "linear":
            return name
        key = call.inputs[0]
    return None


def _compatible(one: tuple[int | None, ...], other: tuple[int | None, ...]) -> bool:
    return len(one) == len(other) and all(
        a == b or a is None or b is None for a, b in zip(one, other, strict=True)
    )


def _spell(shapes: list[tuple[int | None, ...]]) -> str:
    return ", ".join(map(str, shapes))
