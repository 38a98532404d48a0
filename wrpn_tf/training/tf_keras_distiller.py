"""The Distiller of tf_keras students."""

from __future__ import annotations

import types
from typing import Any

import tensorflow as tf

from wrpn_tf import keras_flavor
from wrpn_tf.training.distiller import Distiller
from wrpn_tf.training.label_checks import check_batch

tf_keras = keras_flavor.TF_KERAS.keras


class TFKerasDistiller(Distiller, tf_keras.Model):
    """See `Distiller`, which makes it.

    The three parts of the loss go to tf_keras as the losses of three outputs: it weighs them, adds
    the regularisation, divides by the number of replicas, and reports each. `train_step` and
    `test_step` are tf_keras' own but for the checks, and for telling `compute_loss` which of the
    two it is in.
    """

    @property
    def metrics(self) -> list[Any]:
        """The model's metrics, those of the regions at the end."""
        return [*super().metrics, *self._untracked.regions.metrics]

    def train_step(self, data: Any) -> dict[str, Any]:
        """Trains on one batch, after checking it."""
        x, y, sample_weight = self._checked(data)
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x, y, y_pred, sample_weight, training=True)
        self.optimizer.minimize(loss, self.trainable_variables, tape=tape)
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def test_step(self, data: Any) -> dict[str, Any]:
        """Evaluates one batch, after checking it."""
        x, y, sample_weight = self._checked(data)
        y_pred = self(x, training=False)
        self.compute_loss(x, y, y_pred, sample_weight, training=False)
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Returns the loss of a batch, and records it, its parts and its regions."""
        self._untracked.regions.update(x)
        terms = self._loss_terms(x, y, y_pred, training)
        targets = {part: term[0] for part, term in terms.items()}
        outputs = {part: term[1] for part, term in terms.items()}
        return super().compute_loss(x, targets, outputs, sample_weight)

    def _loss_arguments(self) -> dict[str, Any]:
        hidden = self._untracked
        return {"loss": hidden.losses, "loss_weights": hidden.weights}

    @property
    def _ops(self) -> types.ModuleType:
        return tf_keras.backend

    def _checked(self, data: Any) -> tuple[Any, Any, Any]:
        batch = tf_keras.utils.unpack_x_y_sample_weight(data)
        return check_batch(*batch, rule=self._untracked.label_rule)
