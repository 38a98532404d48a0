"""A Distiller with regions: it applies them, adapts them, and reports them."""

from __future__ import annotations

import numpy as np
import pytest

import wrpn_tf
from wrpn_tf import Distiller, RegionPrecision
from wrpn_tf.quantization import region_maps, region_plan


@pytest.fixture
def models(flavor):
    """A quantized student and its float teacher."""
    L = flavor.layers
    inputs = L.Input((16, 16, 3))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(4, 3, padding="same")(inputs)))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(4, 3, padding="same")(x)))
    teacher = flavor.keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(x)))
    return wrpn_tf.quantize_model(teacher), teacher


@pytest.fixture
def data():
    """32 images of noise that fades to the right, and their classes."""
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(32, 16, 16, 3)) * np.linspace(1, 0.1, 16)[:, None]
    return x.astype(np.float32), rng.integers(0, 3, 32)


def test_bits_and_saving_are_reported_and_adapt(flavor, models, data):
    student, teacher = models
    setting = RegionPrecision("gradient", (8, 2), target_bits=6.0, value_range=(0, 1))
    trainer = Distiller(student, teacher, region_precision=setting)
    trainer.compile(flavor.keras.optimizers.SGD(0.01), metrics=["accuracy"])
    history = trainer.fit(*data, batch_size=32, epochs=25, verbose=0, validation_data=data).history
    assert history["val_mean_activation_bits"][-1] == pytest.approx(6.0, abs=0.15)
    logs = trainer.evaluate(*data, verbose=0, return_dict=True)
    bits = np.asarray(region_maps(trainer.student)(data[0])["mean_bits"]).mean()
    assert logs["mean_activation_bits"] == pytest.approx(bits, rel=1e-5)  # float32 means
    full = region_plan(trainer.student).mean_bits()
    assert logs["energy_saving"] == pytest.approx(1 - bits / full, rel=1e-5)
    assert full == 8
    # The student that was given has learned too: the weights are the same.
    dropped = wrpn_tf.drop_regions(trainer.student)
    np.testing.assert_array_equal(dropped(data[0]), student(data[0]))


def test_a_student_that_has_regions_is_reported_too(flavor, models, data):
    student, teacher = models
    student = wrpn_tf.apply_regions(student, RegionPrecision(bits=(8, 4)))
    trainer = Distiller(student, teacher)
    trainer.compile(flavor.keras.optimizers.SGD(0.01))
    logs = trainer.evaluate(*data, verbose=0, return_dict=True)
    assert 4 < logs["mean_activation_bits"] < 8


def test_without_regions_nothing_is_reported(flavor, models, data):
    trainer = Distiller(*models)
    trainer.compile(flavor.keras.optimizers.SGD(0.01))
    assert "energy_saving" not in trainer.evaluate(*data, verbose=0, return_dict=True)


def test_other_things_than_a_region_precision_are_refused(models):
    with pytest.raises(
        TypeError, match="`region_precision` must be a wrpn_tf.RegionPrecision, got"
    ):
        Distiller(*models, region_precision="entropy")
