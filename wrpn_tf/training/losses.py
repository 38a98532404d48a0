"""The cross entropy H of a Distiller's three parts, from what the user compiles with."""

from __future__ import annotations

from typing import Any

from wrpn_tf.keras_flavor import KerasFlavor
from wrpn_tf.training.distributions import BERNOULLI, LOGITS, Distribution
from wrpn_tf.training.label_checks import BINARY, DENSE, SPARSE, LabelRule

_MEANS = ("auto", "sum_over_batch_size", "mean", "mean_with_sample_weight")
# Keras' losses that ask `from_logits`, by the labels they take; a string or a function of Keras'
# own stands for its class.
_CLASSES = {
    "BinaryCrossentropy": BINARY,
    "BinaryFocalCrossentropy": BINARY,
    "CategoricalCrossentropy": DENSE,
    "CategoricalFocalCrossentropy": DENSE,
    "SparseCategoricalCrossentropy": SPARSE,
}
_CLASS_OF_NAME = {
    "BCE": "BinaryCrossentropy",
    "bce": "BinaryCrossentropy",
    "binary_crossentropy": "BinaryCrossentropy",
    "binary_focal_crossentropy": "BinaryFocalCrossentropy",
    "categorical_crossentropy": "CategoricalCrossentropy",
    "categorical_focal_crossentropy": "CategoricalFocalCrossentropy",
    "sparse_categorical_crossentropy": "SparseCategoricalCrossentropy",
    **{name: name for name in _CLASSES},
}
# In the names of Keras' losses of probabilities that have no form for logits.
_OF_PROBABILITIES = ("dice", "generalized", "kl_divergence", "kldivergence", "tversky")
# In the names of Keras' losses of real numbers.
_OF_NUMBERS = ("cosh", "error", "huber", "poisson")


def label_loss(
    loss: Any,
    kind: str,
    distribution: Distribution,
    output_shape: tuple[int | None, ...],
    flavor: KerasFlavor,
) -> tuple[Any, LabelRule]:
    """Returns H(y, p) as a loss object or function of Keras, and what it asks of the labels.

    Args:
        loss: What the user gave to `compile`. None: the cross entropy that the outputs and the
            labels' shape ask for. A name, or a function of Keras, of a cross entropy: that one, for
            outputs of `kind`. A loss object, another name or a callable: as it is.
        kind: `"logits"` or `"probabilities"`: what the student puts out.
        distribution: Of what.
        output_shape: The student's output shape, with batch dimension.
        flavor: The student's Keras.

    Raises:
        ValueError: If the loss is for several outputs, expects another kind or distribution of
            outputs, takes no logits, is one of regression for a single logit, or does not average
            over the batch.
    """
    from_logits = kind == LOGITS
    losses = flavor.keras.losses
    if loss is None and distribution is BERNOULLI:
        loss = losses.BinaryCrossentropy(from_logits=from_logits)
    if loss is None:
        return _loss_by_labels(from_logits, flavor), LabelRule(output_shape)
    if isinstance(loss, list | tuple | dict):
        raise ValueError(
            f"`loss` must be one loss, got {loss!r}: a Distiller has one output. The three parts "
            "of the Apprentice loss are weighed by `alpha`, `beta` and `gamma`."
        )
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", None)
    if name in _CLASS_OF_NAME and loss in (name, getattr(losses, name, None)):
        loss = getattr(losses, _CLASS_OF_NAME[name])(from_logits=from_logits)
    loss = losses.get(loss)
    if from_logits:
        _check_takes_logits(loss, distribution)
    if not isinstance(loss, losses.Loss):
        return loss, LabelRule.unchecked(output_shape)
    _check_loss(loss, kind)
    label_kind = _CLASSES.get(type(loss).__name__)
    if label_kind is None:
        return loss, LabelRule.unchecked(output_shape)
    if (label_kind == BINARY) != (distribution is BERNOULLI):
        raise ValueError(
            f"`loss` must be a cross entropy for a {distribution.activation} or its logits, got "
            f"{type(loss).__name__} for outputs of shape {output_shape}. Where several outputs "
            "each say yes or no, end the student or the teacher in a sigmoid."
        )
    return loss, LabelRule(output_shape, label_kind)


def distillation_loss(
    label_loss: Any, kind: str, distribution: Distribution, flavor: KerasFlavor
) -> Any:
    """Returns H(z_T, p_A) as a loss object, averaged as the labels' loss is."""
    options = {}
    if isinstance(label_loss, flavor.keras.losses.Loss):
        options["reduction"] = label_loss.reduction
    cross_entropy = getattr(flavor.keras.losses, distribution.cross_entropy)
    return cross_entropy(from_logits=kind == LOGITS, name="distillation", **options)


def _loss_by_labels(from_logits: bool, flavor: KerasFlavor) -> Any:
    """The function H(y, p) that takes class indices, one-hot and soft labels."""
    losses = flavor.keras.losses

    def cross_entropy(y_true: Any, y_pred: Any) -> Any:
        is_dense = len(y_true.shape) == len(y_pred.shape) and y_true.shape[-1] == y_pred.shape[-1]
        function = (
            losses.categorical_crossentropy if is_dense else losses.sparse_categorical_crossentropy
        )
        return function(y_true, y_pred, from_logits=from_logits)

    return cross_entropy


def _check_takes_logits(loss: Any, distribution: Distribution) -> None:
    named = loss if hasattr(loss, "__name__") else type(loss)
    if named.__module__.partition(".")[0] not in ("keras", "tf_keras"):
        return
    name = named.__name__.lower()
    if any(part in name for part in _OF_PROBABILITIES):
        raise ValueError(
            f"`loss` must be one of logits, got {named.__name__}, which takes probabilities. End "
            f"the student in a {distribution.activation}, or choose a cross entropy."
        )
    if distribution is BERNOULLI and any(part in name for part in _OF_NUMBERS):
        raise ValueError(
            f"`loss` must be one of classification, got {named.__name__}: a Distiller takes a "
            "single output without an activation for the logit of yes and no, and has no form for "
            "networks that predict numbers."
        )


def _check_loss(loss: Any, kind: str) -> None:
    from_logits = loss.get_config().get("from_logits")
    if from_logits is not None and from_logits != (kind == LOGITS):
        raise ValueError(
            f"`loss` must expect what the student puts out, {kind}, got "
            f"{type(loss).__name__}(from_logits={from_logits})."
        )
    if loss.reduction not in _MEANS:
        raise ValueError(
            "`loss` must average over the batch, as the other parts of the Apprentice loss do, got "
            f"{type(loss).__name__}(reduction={loss.reduction!r})."
        )
