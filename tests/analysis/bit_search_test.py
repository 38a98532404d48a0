"""Bits by layer under a budget: the choice is the best, and what it says of a network is so."""

from __future__ import annotations

import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import wrpn_tf
from wrpn_tf import keras_flavor
from wrpn_tf.analysis import ModelProfile, bit_sensitivity, relative_cost, search
from wrpn_tf.analysis.bit_budget import Term, allocate, least_price, total_price

BITS = {"num_bits_weight": (2, 8), "num_bits_activation": (2, 8), "verbose": False}


def small_model(flavor, **last):
    """Branches, a shared layer, a split one, and a kernel that reads through a pooling layer."""
    layers = flavor.keras.layers
    inputs = flavor.keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, padding="same", name="stem")(inputs)
    x = layers.ReLU(name="stem_relu")(layers.BatchNormalization()(x))
    shared = layers.Conv2D(4, 1, activation="relu", name="shared")
    y = layers.MaxPooling2D(2, name="pool")(shared(shared(x)))
    y = layers.SeparableConv2D(4, 3, padding="same", activation="relu", name="separable")(y)
    y = layers.Add(name="add")([y, layers.Conv2D(4, 1, strides=2, name="shortcut")(x)])
    y = layers.ReLU(name="sum_relu")(y)
    y = layers.Conv2DTranspose(4, 2, strides=2, activation="relu", name="transposed")(y)
    y = layers.GlobalAveragePooling2D(name="mean")(y)
    y = layers.Dense(5, activation="relu", name="hidden")(y)
    return flavor.keras.Model(inputs, layers.Dense(3, name="last", **last)(y), name="small")


def images(count=12, shape=(6, 6, 2)):
    return np.random.default_rng(0).normal(size=(count, *shape)).astype(np.float32)


def test_the_choice_is_the_best_of_all_within_the_budget():
    rng = np.random.default_rng(0)
    for _ in range(60):
        errors = [rng.normal(size=rng.integers(1, 4)) for _ in range(rng.integers(1, 6))]
        leaders = rng.integers(0, 2, len(errors)).astype(bool)
        terms = [Term((), np.asarray(3.0))]
        for k, table in enumerate(errors):
            terms.append(Term((k,), rng.integers(0, 10, len(table)).astype(float)))
            for other in np.flatnonzero(leaders & ~leaders[k] & (rng.random(len(errors)) < 0.5)):
                shape = (len(errors[other]), len(table))
                terms.append(Term((int(other), k), rng.integers(0, 10, shape).astype(float)))
        price = {
            options: total_price(terms, options)
            for options in itertools.product(*(range(len(table)) for table in errors))
        }
        budget = float(np.median(list(price.values())))
        chosen = allocate(errors, terms, budget)
        sums = {x: sum(e[i] for e, i in zip(errors, x, strict=True)) for x in price}
        best = min(total for options, total in sums.items() if price[options] <= budget)
        assert price[chosen] <= budget
        # Sums of the same numbers in another order.
        assert sums[chosen] == pytest.approx(best, abs=1e-12)
        assert least_price(errors, terms) == min(price.values())


@pytest.mark.parametrize(
    ("flavor_name", "quantity", "limit"),
    [("tf_keras", "cost", 0.2), ("keras", "bytes", 350), ("keras", "cycles", 4600)],
)
def test_the_network_costs_what_the_search_says(flavor_name, quantity, limit):
    model = small_model(keras_flavor.get_flavor(flavor_name), activation="softmax")
    result = search(model, {quantity: limit}, images(4), search_ends=True, **BITS)
    quantized = wrpn_tf.quantize_model(model, overrides=result.overrides)
    profile = ModelProfile(quantized)
    if quantity == "cost":
        real = relative_cost(profile, ModelProfile(model))
    elif quantity == "bytes":
        real = profile.num_bytes
    else:
        wrpn_tf.calibrate(quantized, images(), verbose=False)
        real = sum(x.trace.cycles for x in wrpn_tf.simulate(quantized, images(1)).layers)
    # Costs are sums of thousandths in another order; the others are whole numbers.
    assert result.best.price == pytest.approx(real, rel=1e-12)
    assert 0.8 * limit < real <= limit
    chosen = {*result.num_bits_weight.values(), *result.num_bits_activation.values()}
    assert chosen == {2, 8}


def test_products_of_bits_are_priced_together():
    model = small_model(keras_flavor.KERAS)
    result = search(model, {"cost": 0.045}, images(4), cost_model="product", **BITS)
    quantized = wrpn_tf.quantize_model(model, overrides=result.overrides)
    cost = relative_cost(ModelProfile(quantized), ModelProfile(model), model="product")
    # Sums of multiples of 1/1024, divided once; in another order.
    assert result.best.price == pytest.approx(cost, rel=1e-12)
    assert 0.04 < cost <= 0.045


def test_errors_are_those_of_a_network_with_nothing_else_quantized(flavor):
    model = small_model(flavor)
    x = images()
    result = search(model, {"cost": 0.2}, x, measure="mse", batch_size=7, **BITS)
    for kind, path, bits in (("weight", "shortcut", 2), ("activation", "stem_relu", 2)):
        quantized = wrpn_tf.quantize_model(
            model,
            first_layer="float",
            last_layer="float",
            overrides={
                ".*": "float",
                ".*(shared|hidden|transposed|separable.*|shortcut)": {"num_bits_activation": 8},
                path: {f"num_bits_{kind}": bits},
            },
        )
        wrpn_tf.calibrate(quantized, x, verbose=False)
        error = np.mean((quantized.predict(x, verbose=0) - model.predict(x, verbose=0)) ** 2)
        (found,) = (
            row.error
            for row in result.sensitivities
            if (row.kind, row.path, row.num_bits) == (kind, path, bits)
        )
        # The reference rounds the other kernels' outputs to 8 bits.
        assert found == pytest.approx(error, rel=0.15), path


def binary_model(flavor, units, activation):
    layers = flavor.keras.layers
    model = flavor.keras.Sequential(
        [
            flavor.keras.Input((6,)),
            layers.Dense(8, activation="relu", name="first"),
            layers.Dense(8, activation="relu", name="middle"),
            layers.Dense(units, activation=activation, name="last"),
        ]
    )
    generator = np.random.default_rng(1)
    model.set_weights([generator.normal(size=w.shape) for w in model.get_weights()])
    return model


@pytest.mark.parametrize(("units", "activation"), [(1, None), (1, "sigmoid"), (3, "sigmoid")])
@pytest.mark.parametrize("measure", ["kl", "loss"])
def test_outputs_that_say_yes_or_no_are_measured(flavor, units, activation, measure):
    model = binary_model(flavor, units, activation)
    x = images(12, (6,))
    labels = np.random.default_rng(2).integers(0, 2, (12, units))
    # Integers with the axis of the outputs, numbers without it: what Keras takes, too.
    given = labels if units > 1 else labels[:, 0].astype(np.float32)
    data = (x, given) if measure == "loss" else x
    result = search(model, {"cost": 0.2}, data, measure=measure, batch_size=7, **BITS)

    quantized = wrpn_tf.quantize_model(model, first_layer="float", last_layer="float")
    (layer,) = (x for x in quantized.layers if x.name.endswith("middle"))
    kernel, quantizer = wrpn_tf.quantization.weight_quantizers(layer)["kernel"]
    ternary = np.asarray(quantizer.to_int(kernel)) * np.asarray(quantizer.scale(kernel))
    changed = flavor.keras.models.clone_model(model)
    changed.set_weights([*model.get_weights()[:2], ternary, *model.get_weights()[3:]])

    def probabilities(network):
        outputs = np.float64(network.predict(x, verbose=0))
        return outputs if activation else 1 / (1 + np.exp(-outputs))

    p, reference = probabilities(changed), probabilities(model)
    if measure == "loss":
        expected = np.log(np.where(labels == 1, reference / p, (1 - reference) / (1 - p)))
    else:
        expected = reference * np.log(reference / p)
        expected += (1 - reference) * np.log((1 - reference) / (1 - p))
    (found,) = (
        row.error
        for row in result.sensitivities
        if (row.kind, row.path, row.num_bits) == ("weight", "middle", 2)
    )
    # Probabilities near 0 and 1 in float32.
    assert found == pytest.approx(expected.mean(), rel=1e-4)


def test_bits_go_where_they_matter():
    layers = keras.layers
    inputs = keras.Input((8,))
    x = layers.Dense(8, activation="relu", name="first")(inputs)
    loud, quiet = (layers.Dense(8, name=name)(x) for name in ("loud", "quiet"))
    scaled = layers.Rescaling(0.01)(quiet)
    outputs = layers.Dense(4, name="last")(layers.ReLU()(layers.Add()([loud, scaled])))
    model = keras.Model(inputs, outputs)
    everything = ModelProfile(wrpn_tf.quantize_model(model, num_bits_weight=5)).num_bytes
    result = search(
        model,
        {"bytes": everything},
        images(32, (8,)),
        num_bits_weight=range(2, 9),
        measure="mse",
        verbose=False,
    )
    assert result.num_bits_weight == {"first": 8, "loud": 8, "quiet": 2, "last": 8}
    uniform = next(x for x in result.candidates if x.name == "uniform 5b/8b")
    assert result.best.price == uniform.price == everything
    assert result.best.error < uniform.error / 10


def test_a_wider_network_is_chosen_where_it_is_better():
    layers = keras.layers
    models = {}
    for width in (1.0, 2.0):
        models[width] = keras.Sequential(
            [keras.Input((4,)), layers.Dense(int(16 * width), "relu"), layers.Dense(3, name="last")]
        )
    x = images(20, (4,))
    labels = models[2.0].predict(x, verbose=0).argmax(axis=-1)  # only the wide one knows them
    whole = ModelProfile(wrpn_tf.quantize_model(models[2.0])).num_bytes
    settings = {"measure": "loss", "wider": {2.0: models[2.0]}, "search_ends": True, **BITS}
    for budget, width in ((whole, 2.0), (whole // 2, 1.0)):
        result = search(models[1.0], {"bytes": budget}, (x, labels), **settings)
        assert result.width_multiplier == result.best.width_multiplier == width
        quantized = wrpn_tf.quantize_model(models[width], overrides=result.overrides)
        assert ModelProfile(quantized).num_bytes == result.best.price <= budget
    with pytest.raises(ValueError, match='^`measure` must be "loss" to compare networks'):
        search(models[1.0], {"bytes": whole}, x, wider={2.0: models[2.0]}, **BITS)


def test_the_model_stays_as_it_is(flavor):
    model = small_model(flavor)
    before = [weight.copy() for weight in model.get_weights()]
    search(model, {"cost": 0.2}, images(3), **BITS)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("measure", ["kl", "loss"])
def test_batches_are_joined(measure):
    model = small_model(keras_flavor.KERAS)
    x, y = images(), np.arange(12) % 3
    data = tf.data.Dataset.from_tensor_slices((x, y, np.ones(12))).batch(5)
    found = search(model, {"cost": 0.18}, data, measure=measure, **BITS)
    assert found == search(model, {"cost": 0.18}, (x, y), measure=measure, **BITS)
    if measure == "kl":
        assert found == search(model, {"cost": 0.18}, iter((x[:3], x[3:])), **BITS)
        assert found == search(model, {"cost": 0.18}, data.map(lambda x, *_: x), **BITS)


class _KilledError(Exception):
    pass


def test_a_killed_search_goes_on_where_it_was(tmp_path, monkeypatch):
    model = small_model(keras_flavor.KERAS)
    settings = {"measure": "loss", "batch_size": 7, **BITS}
    data = (images(), np.arange(12) % 3)
    whole = search(model, {"cost": 0.18}, data, **settings)
    path = tmp_path / "search.jsonl"
    passes = []
    error_of = bit_sensitivity.Prober._error

    def count_and_kill(self, *arguments):
        if len(passes) == 20:
            raise _KilledError
        passes.append(arguments)
        return error_of(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(bit_sensitivity.Prober, "_error", count_and_kill)
        with pytest.raises(_KilledError):
            search(model, {"cost": 0.18}, data, checkpoint=path, **settings)
    with path.open("a") as file:
        file.write('[4, "weight sha')  # what a kill leaves of a row
    resumed = search(model, {"cost": 0.18}, data, checkpoint=path, **settings)
    assert resumed == whole
    rows = [tuple(json.loads(line)[:2]) for line in path.read_text().splitlines()[1:]]
    assert len(rows) == len(set(rows)) > 20
    with monkeypatch.context() as patch:
        patch.setattr(bit_sensitivity.Prober, "_error", None)  # nothing is measured again
        assert search(model, {"cost": 0.18}, data, checkpoint=path, **settings) == whole


@pytest.mark.parametrize("other", ["model", "data", "measure", "batch_size"])
def test_a_checkpoint_of_something_else_is_refused_by_name(tmp_path, other):
    layers = keras.layers
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3), layers.Dense(3)])
    arguments = {"model": model, "data": images(4, (2,)), "measure": "kl", "batch_size": 4}
    path = tmp_path / "search.jsonl"
    search(budget={"bytes": 1000}, checkpoint=path, **arguments, **BITS)
    changed = {
        "model": keras.Sequential([keras.Input((2,)), layers.Dense(3), layers.Dense(3)]),
        "data": images(5, (2,)),
        "measure": "mse",
        "batch_size": 3,
    }
    arguments[other] = changed[other]
    with pytest.raises(ValueError, match=rf"^`checkpoint` must be of the same {other}, got"):
        search(budget={"bytes": 1000}, checkpoint=path, **arguments, **BITS)


def test_the_least_budget_is_named_and_can_be_met():
    model = small_model(keras_flavor.KERAS)
    with pytest.raises(ValueError, match=r"^`budget` must be at least \{'bytes': \d+\}") as error:
        search(model, {"bytes": 100}, images(2), **BITS)
    least = int(str(error.value).partition("'bytes': ")[2].partition("}")[0])
    result = search(model, {"bytes": least}, images(2), **BITS)
    assert result.best.price == least
    assert {*result.num_bits_weight.values()} == {2, 8}  # the ends keep 8


def test_the_table_has_all_layers_and_at_most_100_columns():
    model = small_model(keras_flavor.KERAS)
    result = search(model, {"cost": 0.2}, images(4), **BITS)
    lines = str(result).splitlines()
    assert max(map(len, lines)) <= 100
    for path in (*result.num_bits_weight, *result.num_bits_activation):
        assert any(line.startswith(f"{path} ") and "*" in line for line in lines), path
    assert json.loads(json.dumps(result.to_dict()))["best"]["name"] == result.best.name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": {"time": 1}}, "`budget` must be a dictionary with one of 'cost', 'bytes'"),
        ({"budget": {"cost": 1, "bytes": 1}}, "`budget` must be a dictionary with one of"),
        ({"budget": {"cost": -1}}, r"`budget\['cost'\]` must be a finite number > 0, got -1"),
        ({"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        ({"wider": {"2": None}}, "`wider` must be a dictionary {width multiplier: network}"),
        ({"num_bits_weight": ()}, "`num_bits_weight` must be a sequence of bits"),
        ({"num_bits_weight": (2, 9)}, r"`num_bits_weight` must be in 1\.\.8, got 9"),
        ({"num_bits_activation": (1,)}, r"`num_bits_activation` must be in 2\.\.8, got 1"),
        ({"checkpoint": "no_folder/file"}, "`checkpoint` must be in a folder that exists"),
        ({"measure": "accuracy"}, "`measure` must be one of 'kl', 'loss', 'mse'"),
        ({"cost_model": "max"}, "`cost_model` must be one of 'sum', 'product'"),
        ({"data": images(3, (5,))}, r"`data` must have inputs of shape \(None, 2\), at least one"),
        ({"data": images(0, (2,))}, r"`data` must have inputs of shape .* got \(0, 2\)"),
        (
            {"data": tf.data.Dataset.from_tensors(images(3, (2,))).repeat()},
            r"`data` must end, got a dataset that repeats for ever\. `dataset\.take\(4\)`",
        ),
        ({"data": iter(())}, "`data` must have at least one batch, got an empty dataset"),
        (
            {"data": iter([images(3, (2,)), images(3, (4,))])},
            r"`data` must have batches that can be joined .* got shapes \(3, 2\), \(3, 4\)",
        ),
        ({"data": np.full((3, 2), np.nan)}, "`data` must have finite inputs"),
        ({"measure": "loss"}, r"`data` must be a pair \(inputs, labels\) for measure=\"loss\""),
        (
            {"measure": "loss", "data": (images(3, (2,)), np.arange(4))},
            r"`data` must have class indices of shape \(3,\)",
        ),
        (
            {"measure": "loss", "data": (images(3, (2,)), np.arange(1, 4))},
            r"`data` must have labels in 0\.\.2, got 1\.\.3",
        ),
        (
            {"measure": "loss", "data": (images(3, (2,)), np.full(3, 0.5))},
            r"`data` must have class indices of shape \(3,\) .* got float64 of shape \(3,\)",
        ),
    ],
)
def test_bad_arguments_are_named(changes, message):
    layers = keras.layers
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3), layers.Dense(3)])
    arguments = {"budget": {"cost": 1}, "data": images(3, (2,)), **BITS, **changes}
    with pytest.raises(ValueError, match=f"^{message}"):
        search(model, **arguments)


def test_a_layer_of_unknown_cost_is_named():
    inputs = keras.Input((4, 8))
    x = keras.layers.LSTM(4, name="memory")(keras.layers.Dense(8)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    with pytest.raises(ValueError, match=r"^`model` must have known multiply-acc.*memory"):
        search(model, {"cost": 0.5}, images(2, (4, 8)), **BITS)
