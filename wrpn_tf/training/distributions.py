"""What the outputs of a classifier distribute: one of several classes, or yes and no."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable
from typing import Any

LOGITS = "logits"
PROBABILITIES = "probabilities"

# Keras' own floor for the probabilities in a cross entropy (`keras.config.epsilon`).
_EPSILON = 1e-7


@dataclasses.dataclass(frozen=True)
class Distribution:
    """How logits and probabilities are made of each other.

    Attributes:
        activation: The name of the function that makes probabilities of logits.
        cross_entropy: The name of the loss of Keras that takes soft targets.
        logits: Makes logits of probabilities (from the probabilities and the array operations).
    """

    activation: str
    cross_entropy: str
    logits: Callable[[Any, types.ModuleType], Any]

    def probabilities(self, logits: Any, ops: types.ModuleType) -> Any:
        """Returns probabilities of logits; shape as `logits`."""
        return getattr(ops, self.activation)(logits)


def _log(probabilities: Any, ops: types.ModuleType) -> Any:
    return ops.log(ops.maximum(probabilities, _EPSILON))


def _log_odds(probabilities: Any, ops: types.ModuleType) -> Any:
    return _log(probabilities, ops) - _log(1 - probabilities, ops)


# One of the classes of the last axis: their probabilities sum to 1.
CATEGORICAL = Distribution("softmax", "CategoricalCrossentropy", _log)
# Each output by itself: yes, with its probability, or no.
BERNOULLI = Distribution("sigmoid", "BinaryCrossentropy", _log_odds)
