"""What `import wrpn_tf` does and leaves alone, seen from fresh processes."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import keras
import pytest

import wrpn_tf
from wrpn_tf import registration

_FRAMEWORKS = ("tensorflow", "keras", "tf_keras", "tensorflow_model_optimization", "jax", "torch")


def run_python(source: str, **environment: str) -> str:
    """Runs `source` in a process of its own and returns what it printed."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TF_USE")}
    result = subprocess.run(
        [sys.executable, "-c", source],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_import_is_silent_and_loads_no_framework():
    out = run_python(
        "import os, sys\n"
        "before = dict(os.environ)\n"
        "import wrpn_tf\n"
        "assert dict(os.environ) == before\n"
        f"loaded = [name for name in {_FRAMEWORKS} if name in sys.modules]\n"
        "assert not loaded, loaded"
    )
    assert out == ""


def test_grid_needs_no_framework():
    run_python(
        "import sys, wrpn_tf.grid\n"
        f"loaded = [name for name in {_FRAMEWORKS} if name in sys.modules]\n"
        "assert not loaded, loaded"
    )


@pytest.mark.parametrize(("legacy", "expected"), [("0", "keras"), ("1", "tf_keras")])
def test_tf_keras_attribute_stays_what_it_was(legacy, expected):
    out = run_python(
        "import os, wrpn_tf\n"
        "for name in wrpn_tf.__all__:\n"
        "    getattr(wrpn_tf, name)\n"
        "import tensorflow as tf\n"
        "print(tf.keras.Model.__module__.partition('.')[0], os.environ['TF_USE_LEGACY_KERAS'])",
        TF_USE_LEGACY_KERAS=legacy,
    )
    assert out.split() == [expected, legacy]


def test_keras_3_user_does_not_load_tf_keras():
    run_python(
        "import sys, keras, wrpn_tf\n"
        "for name in wrpn_tf.__all__:\n"
        "    getattr(wrpn_tf, name)\n"
        "model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])\n"
        "wrpn_tf.quantize_model(model)\n"
        "for name in ('tf_keras', 'tensorflow_model_optimization'):\n"
        "    assert name not in sys.modules, name"
    )


def test_public_names_resolve_and_are_listed():
    assert wrpn_tf.__all__ == sorted(wrpn_tf.__all__)
    assert [name for name in dir(wrpn_tf) if not name.startswith("_")] == wrpn_tf.__all__
    for name in wrpn_tf.__all__:
        assert getattr(wrpn_tf, name) is not None


def test_type_checkers_are_told_that_there_are_types():
    assert (pathlib.Path(wrpn_tf.__file__).parent / "py.typed").is_file()


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'wrpn_tf' has no attribute 'quantise_model'"):
        _ = wrpn_tf.quantise_model


def test_deferred_class_gives_way_to_the_class():
    register = {}
    deferred = registration.DeferredClass("wrpn_tf>Dense", "keras", register)
    register["wrpn_tf>Dense"] = keras.layers.Dense
    assert deferred.resolve() is keras.layers.Dense
    assert deferred.from_config({"units": 3}).units == 3


def test_deferred_class_that_its_module_does_not_register_is_an_error():
    register = {}
    register["a>B"] = registration.DeferredClass("a>B", "fractions", register)
    with pytest.raises(RuntimeError, match="fractions registers no 'a>B' with Keras"):
        register["a>B"].resolve()


_EVERY_CLASS = """
import importlib, pkgutil, {keras}
import wrpn_tf
from wrpn_tf import registration
register = {keras}.saving.get_custom_objects()
deferred = {{name: register[name] for name in registration.REGISTERED_CLASSES[{keras!r}]}}
assert all(type(entry) is registration.DeferredClass for entry in deferred.values()), deferred
for name, entry in deferred.items():
    assert entry.resolve() is register[name]
for module in pkgutil.walk_packages(wrpn_tf.__path__, "wrpn_tf."):
    importlib.import_module(module.name)
print(sorted(name for name in register.keys() - deferred if name.startswith("wrpn_tf>")))
"""


@pytest.mark.parametrize("name", ["keras", "tf_keras"])
def test_register_of_deferred_classes_is_complete_and_true(name):
    assert run_python(_EVERY_CLASS.format(keras=name)).strip() == "[]"
