"""The Distiller of Keras 3 students, for every backend whose trainer calls `compute_loss`."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from wrpn_tf import keras_flavor
from wrpn_tf.training.distiller import Distiller
from wrpn_tf.training.label_checks import check_batch

keras = keras_flavor.KERAS.keras


class _FunctionLoss(keras.losses.Loss):
    """A function of labels and outputs as a loss: averaged over the batch with its weights."""

    def __init__(self, function: Callable[[Any, Any], Any]):
        super().__init__(name=getattr(function, "__name__", None))
        self._function = function

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self._function(y_true, y_pred)


class KerasDistiller(Distiller, keras.Model):
    """See `Distiller`, which makes it.

    The backend's own `train_step` and `test_step` run; they are overridden only to check the batch.
    The Apprentice loss is in `compute_loss`, which the trainers of all backends call, JAX's
    included.
    """

    def __init__(self, student: Any, teacher: Any, **options: Any):
        super().__init__(student, teacher, **options)
        self._untracked.metrics = [
            keras.metrics.Mean(name=f"{part}_loss") for part in self._untracked.weights
        ]

    @property
    def metrics(self) -> list[Any]:
        """The model's metrics, with those of the loss' parts and the regions."""
        hidden = self._untracked
        return [*super().metrics, *hidden.metrics, *hidden.regions.metrics]

    def train_step(self, *args: Any) -> Any:
        """Trains on one batch, after checking it; JAX passes its state before the batch."""
        *state, data = args
        return super().train_step(*state, self._checked(data))

    def test_step(self, *args: Any) -> Any:
        """Evaluates one batch, after checking it."""
        *state, data = args
        return super().test_step(*state, self._checked(data))

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Returns the loss of a batch, and records its parts and its regions."""
        hidden = self._untracked
        hidden.regions.update(x)
        batch_size = keras.ops.shape(y_pred)[0]
        total = super().compute_loss(training=training) if self.losses else 0.0
        terms = self._loss_terms(x, y, y_pred, training)
        for metric, (part, (targets, outputs)) in zip(hidden.metrics, terms.items(), strict=True):
            value = hidden.losses[part](targets, outputs, sample_weight)
            metric.update_state(value * _num_replicas(), sample_weight=batch_size)
            total = total + hidden.weights[part] * value
        return total

    def save_own_variables(self, store: Any) -> None:
        """Saves the states of the random generators (dropout), which Keras leaves out.

        With them an interrupted training goes on exactly as it would have.
        """
        for name, state in self._random_states().items():
            store[name] = state

    def load_own_variables(self, store: Any) -> None:
        """Restores the states of the random generators, if they were saved."""
        for name, state in self._random_states().items():
            if name in store:
                state.assign(store[name])

    def _random_states(self) -> dict[str, Any]:
        weights = {id(weight) for weight in self.weights}
        states = [variable for variable in self.variables if id(variable) not in weights]
        return {f"random_state_{index}": state for index, state in enumerate(states)}

    def _loss_arguments(self) -> dict[str, Any]:
        hidden = self._untracked
        hidden.losses = {
            part: loss if isinstance(loss, keras.losses.Loss) else _FunctionLoss(loss)
            for part, loss in hidden.losses.items()
        }
        return {}  # `compute_loss` sees to them.

    @property
    def _ops(self) -> types.ModuleType:
        return keras.ops

    def _checked(self, data: Any) -> Any:
        if keras.backend.backend() != "tensorflow":
            return data  # There are no assertions in a function that JAX compiles.
        batch = keras.utils.unpack_x_y_sample_weight(data)
        return keras.utils.pack_x_y_sample_weight(
            *check_batch(*batch, rule=self._untracked.label_rule)
        )


def _num_replicas() -> int:
    """How many replicas share a step: Keras divides a replica's losses by it."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync
