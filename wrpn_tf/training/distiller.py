"""Apprentice: a student that learns from the labels and from a teacher."""

from __future__ import annotations

import importlib
import types
from typing import Any

from wrpn_tf.model_graph import check_model
from wrpn_tf.quantization import apply_regions
from wrpn_tf.regions import RegionPrecision
from wrpn_tf.regions.region_precision import check_region_precision
from wrpn_tf.training import apprentice_loss, label_checks, losses, model_outputs
from wrpn_tf.training.binary_metrics import binary_metrics
from wrpn_tf.training.distiller_arguments import (
    check_models,
    check_options,
    dtype_policy,
    strategy_scope,
)
from wrpn_tf.training.distributions import BERNOULLI
from wrpn_tf.training.region_metrics import RegionMetrics

# A tenth of Adam's own default.
FINE_TUNING_LEARNING_RATE = 1e-4

_CLASSES = {
    "keras": ("wrpn_tf.training.keras_distiller", "KerasDistiller"),
    "tf_keras": ("wrpn_tf.training.tf_keras_distiller", "TFKerasDistiller"),
}


class Distiller:
    """A model that trains `student` on the labels and on the outputs of `teacher` (Apprentice).

    L = alpha H(y, p_T) + beta H(y, p_A) + gamma H(softmax(z_T / temperature), p_A) + regularisation

    y labels, p_T and p_A the softmax outputs of teacher and student, z_T the teacher's logits, H
    the cross entropy, averaged over the batch with its sample weights. Outputs that say yes or no
    have a sigmoid in place of the softmax and the binary cross entropy. `fit` and `evaluate` report
    L as `loss` and the unweighted cross entropies as `teacher_loss`, `student_loss`,
    `distillation_loss`. No gradient flows through z_T, which is a target.

    The result is a `keras.Model` or a `tf_keras.Model`, whichever the student is. Calling it,
    `predict`, and the metrics of `evaluate` are the student's. `save` and `export` write the
    student alone, which loads as an ordinary model; `save_weights` and checkpoints hold the
    student, the optimizer and, under scheme A only, the teacher.

    ```python
    trainer = Distiller(student, teacher)  # Scheme B.
    trainer.compile("adam", metrics=["accuracy"])
    trainer.fit(x, y)

    trainer = Distiller(student, untrained_teacher, scheme="A")

    student = wrpn_tf.quantize_model(float_model)
    trainer = Distiller(student, teacher, scheme="C")
    trainer.compile(metrics=["accuracy"])  # Adam at a low learning rate.
    ```

    Schemes:
        A: Teacher and student train together, with one optimizer. The teacher is in training mode
            and learns from alpha H(y, p_T) alone.
        B: The teacher is trained and frozen: inference mode, no gradients, no changes. The student
            starts from scratch.
        C: As B, but the student starts from float weights and is fine-tuned at a low learning rate.
            `wrpn_tf.quantize_model` copies the float model's weights into the student, so nothing
            else has to be done. The default optimizer is Adam at 1e-4, and an optimizer given by
            its name, which says no learning rate, is refused. Whether the student's weights are
            trained ones cannot be seen from the model and is not checked.

    Under B and C the term with alpha is a constant: it shifts `loss` and trains nothing.

    Data are checked for NaN, infinity and labels that fit no class: arrays all at once before the
    first step (ValueError), datasets in each step before they reach a weight
    (InvalidArgumentError). JAX and XLA drop the checks in a step. Where there is a GPU, Keras 3
    compiles with XLA by itself, unless `compile` gets `jit_compile=False`; on CPUs alone, and in
    tf_keras, only `jit_compile=True` does.

    `tf.distribute`: make the models in the strategy's scope. MirroredStrategy trains both Keras,
    MultiWorkerMirroredStrategy tf_keras only: under it Keras 3.15's own `fit` fails with any model.
    `BackupAndRestore` ends in the weights of an uninterrupted training if the data come in the same
    order; with dropout in Keras 3 only, as tf_keras keeps no state of its random operations.

    Args:
        student: Functional or Sequential classifier with one output: logits or softmax
            probabilities of classes over the last axis; or a single logit or sigmoid, which says
            yes or no; or several sigmoids (several labels for an example). An ordinary Keras
            model, quantized or not.
        teacher: The same, of the same Keras, with inputs and outputs of the same shapes. It is
            never changed under B and C. Of several yes and no one of the two models may give
            logits, the other must end in a sigmoid.
        scheme: `"A"`, `"B"` or `"C"`.
        alpha: Weight of the teacher's own loss, >= 0; under scheme A > 0.
        beta: Weight of the student's loss on the labels, >= 0.
        gamma: Weight of the distillation loss, >= 0. `beta` and `gamma` are not both 0.
        temperature: > 0. Divides z_T only, so 1 is the paper's loss; low-precision students lose
            accuracy at high temperatures.
        student_outputs: `"logits"`, `"probabilities"`, or `"auto"`: found out by running the
            student on four random examples, for yes and no by its last activation. What is said is
            checked in the same way.
        teacher_outputs: Likewise for the teacher; it may differ from the student's.
        region_precision: Trains a quantized student with fewer bits for the unimportant parts of
            each image: `distiller.student` is then `wrpn_tf.apply_regions(student,
            region_precision)`, which shares the student's weights. With regions, given here or
            before, `fit` and `evaluate` also report `mean_activation_bits`, each
            multiply-accumulate counted, and `energy_saving`, 1 - mean bits / the bits without
            regions: what a bit-serial data path saves.
        name: The model's name.

    Raises:
        TypeError: If an argument is of a wrong type, or a model belongs to neither Keras.
        ValueError: If an argument is out of range, a model is not built, subclassed, without
            weights, or has several outputs, or the two models do not fit each other.

    Source: Mishra & Marr, "Apprentice", arXiv 1711.05852.
    """

    def __new__(cls, student: Any = None, *args: Any, **kwargs: Any) -> Distiller:
        """Makes the class of the student's Keras."""
        if cls is Distiller:
            module, class_name = _CLASSES[check_model(student, "student").name]
            cls = getattr(importlib.import_module(module), class_name)
        return super().__new__(cls)

    def __init__(
        self,
        student: Any,
        teacher: Any,
        *,
        scheme: str = "B",
        alpha: float = 1.0,
        beta: float = 0.5,
        gamma: float = 0.5,
        temperature: float = 1.0,
        student_outputs: str = "auto",
        teacher_outputs: str = "auto",
        region_precision: RegionPrecision | None = None,
        name: str = "distiller",
    ):
        check_options(scheme, alpha, beta, gamma, temperature)
        check_region_precision(region_precision)
        if region_precision is not None:
            with strategy_scope(student):
                student = apply_regions(student, region_precision)
        flavor = check_models(student, teacher, scheme)
        distribution = model_outputs.output_distribution(student, teacher)
        output_kind = model_outputs.output_kind
        kinds = {
            "student_kind": output_kind(student, student_outputs, "student", distribution),
            "teacher_kind": output_kind(teacher, teacher_outputs, "teacher", distribution),
        }
        trained = (student, teacher) if scheme == "A" else (student,)
        # The policy makes `compile` scale the loss of a float16 student. Its layers cast their own
        # inputs; casting images to 16 bits before them would lose bits.
        with strategy_scope(student):
            super().__init__(name=name, dtype=dtype_policy(*trained), autocast=False)
        self.student = student
        if scheme == "A":
            self._trained_teacher = teacher
        # What neither Keras may see: it would be saved and counted among the model's weights.
        self._untracked = types.SimpleNamespace(
            flavor=flavor,
            teacher=teacher,
            label_rule=None,
            weights={"teacher": alpha, "student": beta, "distillation": gamma},
            distribution=distribution,
            kinds=kinds,
            regions=RegionMetrics(student),
            options={
                "scheme": scheme,
                "alpha": alpha,
                "beta": beta,
                "gamma": gamma,
                "temperature": temperature,
                "student_outputs": student_outputs,
                "teacher_outputs": teacher_outputs,
                "region_precision": region_precision,
                "name": name,
            },
        )
        self.built = True

    @property
    def teacher(self) -> Any:
        """The teacher."""
        return self._untracked.teacher

    def __dir__(self) -> list[str]:
        # Both Keras save whatever model `dir` leads to.
        return [name for name in super().__dir__() if name != "teacher"]

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns the student's outputs."""
        return self.student(inputs, training=training)

    def compile(self, optimizer: Any = None, loss: Any = None, **kwargs: Any) -> None:
        """Configures the training, as `Model.compile` does.

        Args:
            optimizer: As for any model. None: `"rmsprop"`, Keras' default; under scheme C Adam with
                the learning rate 1e-4. Under scheme C a name is refused, as it says no learning
                rate.
            loss: H. None: the cross entropy that the outputs and the labels ask for (indices,
                one-hot or soft; for yes and no 0, 1 or between). The name of a cross entropy, as
                `"sparse_categorical_crossentropy"` or `"binary_focal_crossentropy"`, and Keras' own
                function mean the one for the student's kind of outputs; a loss object must say
                `from_logits` rightly. Any other loss of labels and outputs takes the place of H in
                the teacher's and the student's terms, and labels are then not checked for range.
            **kwargs: As for `Model.compile`: `metrics`, `weighted_metrics`, `steps_per_execution`,
                `jit_compile`, `run_eagerly`... Metrics see the student's outputs. Of yes and no,
                the names `"accuracy"`, `"auc"` and `"binary_crossentropy"` mean those for the
                student's kind of outputs, each output by itself.

        Raises:
            ValueError: If the loss does not fit the student's outputs or is for several outputs, or
                the optimizer does not fit the scheme.
        """
        if kwargs.get("loss_weights") is not None:
            raise ValueError(
                f"`loss_weights` must be None, got {kwargs['loss_weights']!r}: the parts of the "
                "loss are weighed by the Distiller's `alpha`, `beta` and `gamma`."
            )
        hidden = self._untracked
        kind, shape = hidden.kinds["student_kind"], tuple(self.student.outputs[0].shape)
        distribution, flavor = hidden.distribution, hidden.flavor
        of_labels, hidden.label_rule = losses.label_loss(loss, kind, distribution, shape, flavor)
        of_targets = losses.distillation_loss(of_labels, kind, distribution, flavor)
        hidden.losses = {"teacher": of_labels, "student": of_labels, "distillation": of_targets}
        with strategy_scope(self.student):
            if distribution is BERNOULLI:
                for name in ("metrics", "weighted_metrics"):
                    kwargs[name] = binary_metrics(kwargs.get(name), kind, flavor)
            super().compile(self._optimizer(optimizer), **self._loss_arguments(), **kwargs)

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Trains, as `Model.fit` does; data in memory are checked before the first step.

        Raises:
            ValueError: If `x`, `y`, `sample_weight` or the arrays of `validation_data` hold NaN or
                infinity, or labels that fit no class.
        """
        self._check_arrays(x, y, kwargs.get("sample_weight"))
        validation_data = kwargs.get("validation_data")
        if isinstance(validation_data, list | tuple):
            self._check_arrays(*validation_data, prefix="validation ")
        return super().fit(x, y, *args, **kwargs)

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Saves the student alone; arguments as for `Model.save`."""
        self.student.save(*args, **kwargs)

    def export(self, *args: Any, **kwargs: Any) -> None:
        """Exports the student alone; arguments as for `Model.export`."""
        self.student.export(*args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's keyword arguments: `Distiller(student, teacher, **config)`.

        The two models are not in it: a configuration holds no weights, and a teacher without its
        weights teaches nonsense.
        """
        return dict(self._untracked.options)

    def get_compile_config(self) -> dict[str, Any]:
        """Refuses: both Keras ask for it before they write a file, from which no model could load.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            "A Distiller cannot be saved whole, as its teacher is not saved with it. Save the "
            "student: `distiller.save(path)` or `distiller.student.save(path)`."
        )

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Distiller:
        """Returns a Distiller of `config`, to which `student` and `teacher` have been added.

        Raises:
            ValueError: If they have not.
        """
        missing = [name for name in ("student", "teacher") if name not in config]
        if missing:
            raise ValueError(
                f"`config` must hold {' and '.join(missing)}, got {sorted(config)}: a "
                "configuration holds no trained models. Call `Distiller(student, teacher, "
                "**config)`, and save a student with `distiller.save` or `student.save`."
            )
        return Distiller(**config)

    def _loss_terms(
        self, x: Any, y: Any, student_outputs: Any, training: bool
    ) -> dict[str, tuple[Any, Any]]:
        """Runs the teacher, and returns the (targets, predictions) of the three parts of L."""
        hidden = self._untracked
        if hidden.options["scheme"] == "A":
            teacher_outputs = self.teacher(x, training=training)
        else:
            teacher_outputs = self._ops.stop_gradient(self.teacher(x, training=False))
        return apprentice_loss.loss_terms(
            y,
            teacher_outputs,
            student_outputs,
            temperature=hidden.options["temperature"],
            distribution=hidden.distribution,
            ops=self._ops,
            **hidden.kinds,
        )

    def _loss_arguments(self) -> dict[str, Any]:
        """What `Model.compile` is told about the losses."""
        raise NotImplementedError

    def _optimizer(self, optimizer: Any) -> Any:
        scheme = self._untracked.options["scheme"]
        if scheme != "C":
            return "rmsprop" if optimizer is None else optimizer
        if isinstance(optimizer, str):
            raise ValueError(
                '`optimizer` must carry the low learning rate of scheme "C", got the name '
                f"{optimizer!r}. Pass an optimizer object, or None for Adam at "
                f"{FINE_TUNING_LEARNING_RATE}."
            )
        if optimizer is None:
            return self._untracked.flavor.keras.optimizers.Adam(FINE_TUNING_LEARNING_RATE)
        return optimizer

    def _check_arrays(
        self, x: Any, y: Any = None, sample_weight: Any = None, prefix: str = ""
    ) -> None:
        if self._untracked.label_rule is not None:
            label_checks.check_arrays(x, y, sample_weight, self._untracked.label_rule, prefix)


def trained_network(model: Any) -> Any:
    """Returns a Distiller's student, and any other model as it is."""
    return model.student if isinstance(model, Distiller) else model
