"""Metrics that are given by name, for outputs that each say yes or no."""

from __future__ import annotations

from typing import Any

from keras import tree

from wrpn_tf.keras_flavor import TF_KERAS, KerasFlavor
from wrpn_tf.training.distributions import LOGITS

_CLASS_OF_NAME = {
    "acc": "BinaryAccuracy",
    "accuracy": "BinaryAccuracy",
    "auc": "AUC",
    "bce": "BinaryCrossentropy",
    "binary_accuracy": "BinaryAccuracy",
    "binary_crossentropy": "BinaryCrossentropy",
}
_CLASS_OF_NAME |= {name: name for name in set(_CLASS_OF_NAME.values())}


def binary_metrics(metrics: Any, kind: str, flavor: KerasFlavor) -> Any:
    """Returns what `compile` takes as metrics, names replaced by metrics of yes and no.

    Keras itself reads a name as of probabilities, also where the outputs are logits: yes would
    begin at the logit 0.5. And it takes several outputs for classes.

    Args:
        metrics: As for `Model.compile`. What is no name of an accuracy, area under the curve or
            cross entropy stays as it is.
        kind: `"logits"` or `"probabilities"`: what the student puts out.
        flavor: The student's Keras.
    """
    from_logits = kind == LOGITS
    options = {
        "BinaryAccuracy": {"threshold": 0.0 if from_logits else 0.5},
        "AUC": {"from_logits": from_logits},
        "BinaryCrossentropy": {"from_logits": from_logits},
    }

    def replace(metric: Any) -> Any:
        class_name = _CLASS_OF_NAME.get(metric) if isinstance(metric, str) else None
        if class_name is None:
            return metric
        made = getattr(flavor.keras.metrics, class_name)
        # tf_keras reports a class that is named under a name of its own.
        own_name = flavor is TF_KERAS and metric == class_name
        name = {} if own_name else {"name": metric}
        return made(**options[class_name], **name)

    return tree.map_structure(replace, metrics)
