"""Regions in a network: what reads what, that nothing else changes, and every way to run it."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import wrpn_tf
from wrpn_tf import RegionPrecision, apply_regions, drop_regions
from wrpn_tf.keras_flavor import KERAS
from wrpn_tf.model_graph import model_graph
from wrpn_tf.quantization import output_quantizer, region_maps, region_plan


@pytest.fixture(scope="module")
def images():
    """Noise on the left, faint noise on the right; the last one is constant."""
    values = np.random.default_rng(0).uniform(size=(6, 16, 16, 3)).astype(np.float32)
    values[:, :, 8:] *= 0.05
    values[-1] = 0.5
    return values


@pytest.fixture(scope="module")
def made():
    """The networks of this module, by flavor: `apply_regions` leaves them as they are."""
    return {}


@pytest.fixture
def quantized(flavor, images, made):
    """The network of `residual`; tests share it, so none may train it."""
    if flavor.name not in made:
        made[flavor.name] = residual(flavor, images)
    return made[flavor.name]


def residual(flavor, images):
    """A residual block, pooling, a stride, and a linear bottleneck, whose values have signs."""
    L = flavor.layers

    def conv_bn(x, filters, **options):
        x = L.Conv2D(filters, 3, padding="same", use_bias=False, **options)(x)
        return L.BatchNormalization()(x)

    inputs = L.Input((16, 16, 3))
    x = shortcut = L.ReLU(name="stem")(conv_bn(inputs, 4))
    x = L.ReLU(name="inner")(conv_bn(x, 4))
    x = L.ReLU(name="sum")(L.Add()([conv_bn(x, 4), shortcut]))
    x = L.MaxPooling2D()(x)
    x = L.BatchNormalization(name="bottleneck")(L.Conv2D(8, 1, use_bias=False)(x))
    x = L.ReLU(name="strided")(conv_bn(x, 8, strides=2))
    x = L.Dense(5)(L.GlobalAveragePooling2D()(x))
    model = wrpn_tf.quantize_model(flavor.keras.Model(inputs, x))
    wrpn_tf.calibrate(model, images, verbose=False)
    return model


SETTINGS = {
    "two levels": RegionPrecision("entropy", (8, 4)),
    "three levels": RegionPrecision("center", (8, 4, 0), kept=(0.3, 0.6)),
    "input too": RegionPrecision("gradient", (8, 2), threshold=0.02, input_bits=(8, 0)),
}


def outputs_of(model, images):
    """Every output of every layer, run layer by layer."""
    graph = model_graph(model)
    tensors = {graph.inputs[0]: tf.constant(images)}
    for call in graph.calls:
        results = call.invoke(call.layer, tensors)
        tensors.update(zip(call.outputs, graph.flatten(results), strict=True))
    return graph, tensors


def test_convolutions_read_few_bits_where_nothing_matters_and_sums_all(quantized, images):
    model = apply_regions(quantized, RegionPrecision("entropy", (8, 4, 0), kept=(0.25, 0.5)))
    graph, tensors = outputs_of(model, images)
    names = {"stem": 0, "inner": 0, "sum": 0, "bottleneck": 0}
    ranks = [np.asarray(x) for x in region_maps(model)(images)["ranks"]]
    for call in graph.calls:
        name = call.name.removeprefix("region_").removeprefix("quant_")
        if name not in names:
            continue
        fine, coarse = (np.asarray(tensors[key]) for key in call.outputs)
        readers = {
            key: {x.name.split("_")[1 if "quant" in x.name else 0] for x in graph.consumers[key]}
            for key in call.outputs
        }
        assert readers[call.outputs[1]] <= {"conv2d", "max"}
        names[name] = len(graph.consumers[call.outputs[0]])
        quantizer, variables = output_quantizer(call.layer)
        rank = next(r for r in ranks if r.shape[1] == fine.shape[1])
        expected = quantizer.to_int(fine, variables)
        coarsened = [quantizer.grid.coarsen(expected, bits) for bits in (0, 4)] + [expected]
        np.testing.assert_array_equal(
            quantizer.to_int(coarse, variables), np.choose(rank.astype(int), coarsened)
        )
    assert names == {"stem": 1, "inner": 0, "sum": 0, "bottleneck": 0}  # the sum reads the stem


@pytest.mark.parametrize("pool", [2, 3])
def test_what_is_pooled_has_no_more_bits_than_it_is_counted_with(flavor, images, pool):
    L = flavor.layers
    inputs = L.Input((16, 16, 3))
    x = L.ReLU(name="before")(L.BatchNormalization()(L.Conv2D(4, 3, padding="same")(inputs)))
    x = L.ZeroPadding2D(1)(L.MaxPooling2D(pool, 2, padding="same", name="pool")(x))
    x = L.GlobalAveragePooling2D()(L.Conv2D(4, 3, name="reader")(x))
    quantized = wrpn_tf.quantize_model(flavor.keras.Model(inputs, x))
    wrpn_tf.calibrate(quantized, images, verbose=False)
    metric = wrpn_tf.regions.Entropy(tile=1, window=3)
    model = apply_regions(quantized, RegionPrecision(metric, (8, 4), kept=0.3))
    graph, tensors = outputs_of(model, images)
    before = next(x for x in graph.calls if x.name.endswith("before"))
    reader = next(x for x in graph.calls if x.name.endswith("reader"))
    quantizer, variables = output_quantizer(before.layer)
    integers = quantizer.to_int(np.asarray(tensors[reader.inputs[0]]), variables)
    plan = region_plan(model)
    ranks = np.asarray(region_maps(model)(images)["ranks"][plan.reads[0].map_index])
    assert ranks.shape[1:3] == (10, 10)
    unimportant = integers[ranks[..., 0] == 0]
    assert len(unimportant)
    np.testing.assert_array_equal(unimportant % 17, 0)


def test_where_all_is_important_nothing_changes(quantized, images):
    model = apply_regions(quantized, RegionPrecision("entropy", (8, 0), threshold=-1.0))
    np.testing.assert_array_equal(model(images), quantized(images))
    # A constant image has entropy 0 everywhere, and ties are kept.
    halved = apply_regions(quantized, RegionPrecision("entropy", (8, 0), kept=0.5))
    np.testing.assert_array_equal(halved(images)[-1], quantized(images)[-1])
    assert np.any(np.asarray(halved(images) != quantized(images)))


@pytest.mark.parametrize(
    ("flavor", "name"),
    [("keras", "two levels"), ("keras", "input too"), ("tf_keras", "three levels")],
    indirect=["flavor"],
)
def test_every_way_to_run_gives_the_same(flavor, quantized, images, tmp_path, name):
    model = apply_regions(quantized, SETTINGS[name])
    expected = np.asarray(model(images, training=False))
    np.testing.assert_array_equal(model.predict(images, batch_size=6, verbose=0), expected)
    compiled = tf.function(lambda x: model(x, training=False))
    signature = tf.TensorSpec([None, 16, 16, 3], tf.float32)
    np.testing.assert_array_equal(compiled.get_concrete_function(signature)(images), expected)
    # One image alone has the map that it has among others.
    alone = np.asarray(region_maps(model)(images[2:3])["mean_bits"])
    np.testing.assert_array_equal(alone, region_maps(model)(images)["mean_bits"][2:3])
    file = tmp_path / "model.keras"
    model.save(file)
    loaded = flavor.keras.models.load_model(file)
    np.testing.assert_array_equal(loaded.predict(images, batch_size=6, verbose=0), expected)


def test_a_served_model_gives_the_same(flavor, quantized, images, tmp_path):
    model = apply_regions(quantized, SETTINGS["three levels"])
    folder = str(tmp_path / "served")
    if flavor is KERAS:
        model.export(folder, verbose=False)
        loaded = tf.saved_model.load(folder)
        served = loaded.serve(images)
    else:
        model.save(folder, save_format="tf")
        loaded = tf.saved_model.load(folder)
        served = loaded(images, training=False)
    np.testing.assert_array_equal(served, model(images, training=False))


def test_dropping_gives_the_quantized_model_back(flavor, images):
    quantized = residual(flavor, images)
    model = apply_regions(quantized, SETTINGS["input too"])
    dropped = drop_regions(model)
    np.testing.assert_array_equal(dropped(images), quantized(images))
    assert [layer.name for layer in dropped.layers] == [layer.name for layer in quantized.layers]
    # They share weights: training one trains all.
    model.compile(flavor.keras.optimizers.SGD(0.1), "mse")
    model.fit(images, np.ones((6, 5)), verbose=0)
    np.testing.assert_array_equal(dropped(images), quantized(images))


def test_the_argument_of_quantize_model_is_apply_regions(flavor, images):
    L = flavor.layers
    inputs = L.Input((16, 16, 3))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(4, 3)(inputs)))
    x = L.GlobalAveragePooling2D()(L.Conv2D(4, 3)(x))
    model = flavor.keras.Model(inputs, x)
    setting = SETTINGS["two levels"]
    recipe = wrpn_tf.widen_and_quantize(model, width_multiplier=1, region_precision=setting)
    quantized = wrpn_tf.quantize_model(model, region_precision=setting)
    applied = apply_regions(wrpn_tf.quantize_model(model), setting)
    for each in (quantized, applied, recipe):
        wrpn_tf.calibrate(each, images, verbose=False)
    np.testing.assert_array_equal(quantized(images), applied(images))
    np.testing.assert_array_equal(recipe(images), applied(images))


def test_bits_fall_with_depth_and_by_name(quantized):
    setting = RegionPrecision(
        bits=(8, 4), final_bits=(8, 1), overrides={"inner": (4, 2)}, input_bits=(8, 2)
    )
    found = {
        read.source: read.bits for read in region_plan(apply_regions(quantized, setting)).reads
    }
    by_name = {name.removeprefix("quant_"): bits for name, bits in found.items()}
    by_name["input"] = by_name.pop(next(name for name in by_name if "input" in name))
    # 8, 4, 2, 1 are three steps; of the third tensor's 1 2/3 steps past 4 bits, two are taken. One
    # bit cannot hold the bottleneck's signs.
    assert by_name == {
        "input": (2, 8),
        "stem": (4, 8),
        "inner": (2, 4),
        "sum": (2, 8),
        "bottleneck": (2, 8),
    }


def test_all_layers_with_kernels_are_in_the_plan(quantized):
    plan = region_plan(apply_regions(quantized, SETTINGS["two levels"]))
    assert [read.macs_per_use for read in plan.reads] == [4 * 4, 4 * 4, 4 * 8, 8 * 8]
    assert plan.macs == sum(
        [16 * 16 * 9 * 3 * 4, 2 * 16 * 16 * 9 * 4 * 4, 8 * 8 * 4 * 8, 4 * 4 * 9 * 8 * 8, 8 * 5]
    )
    # The pooled sum is read at its own resolution.
    assert {x.size for x in plan.resolutions} == {(16, 16), (8, 8)}


def test_a_model_of_ones_own_can_say_what_matters(flavor, quantized, images, tmp_path):
    L = flavor.layers
    inputs = L.Input((16, 16, 3))
    predictor = flavor.keras.Model(inputs, L.Conv2D(1, 4, 4, activation="relu")(inputs))
    model = apply_regions(quantized, RegionPrecision(predictor, (8, 2)))
    weights = {weight.shape for weight in model.trainable_weights}
    assert tuple(predictor.weights[0].shape) not in {tuple(shape) for shape in weights}
    file = tmp_path / "model.keras"
    model.save(file)
    loaded = flavor.keras.models.load_model(file)
    np.testing.assert_array_equal(loaded(images), model(images))


def no_map(images):
    return tf.reduce_mean(images, axis=(1, 2, 3))


def odd_map(images):
    return tf.zeros_like(images[:, :3, :, 0])


def nan_map(images):
    return tf.math.log(-images[..., 0] - 1)


@keras.utils.register_keras_serializable("test")
@tf_keras.utils.register_keras_serializable("test")
def brightness(images):
    return tf.reduce_mean(images, -1)


def test_a_registered_function_is_found_again(flavor, quantized, images, tmp_path):
    model = apply_regions(quantized, RegionPrecision(brightness, (8, 2)))
    file = tmp_path / "model.keras"
    model.save(file)
    loaded = flavor.keras.models.load_model(file)
    np.testing.assert_array_equal(loaded(images), model(images))
    unregistered = apply_regions(quantized, RegionPrecision(nan_map, (8, 2)))
    with pytest.raises(ValueError, match="`metric` must be registered to be saved, got nan_map"):
        unregistered.save(file)


def test_maps_move_with_the_image_in_training(flavor):
    L = flavor.layers

    def net(*preprocessing, shape=(8, 8, 3)):
        parts = [L.Conv2D(2, 3, activation="relu", padding="same"), L.Conv2D(2, 3), L.Flatten()]
        layers = [L.Input(shape), *preprocessing, *parts, L.Dense(2)]
        return wrpn_tf.quantize_model(flavor.keras.Sequential(layers))

    precision = RegionPrecision(brightness, (8, 2), value_range=(0.0, 1.0))
    flip = L.RandomFlip("horizontal", seed=1)
    model = apply_regions(net(flip, L.Rescaling(2.0)), precision)
    images = np.random.default_rng(0).uniform(size=(16, 8, 8, 3)).astype(np.float32)
    expected = np.asarray(region_maps(model)(images, training=False)["importance"])
    found = np.asarray(region_maps(model)(images, training=True)["importance"])
    kept = [np.array_equal(a, b) for a, b in zip(found, expected, strict=True)]
    flipped = [np.array_equal(a[:, ::-1], b) for a, b in zip(found, expected, strict=True)]
    assert [*map(sum, zip(kept, flipped, strict=True))] == [1] * 16
    assert any(kept)
    assert any(flipped)

    any_size = net(L.Resizing(16, 16), L.Rescaling(2.0), shape=(None, None, 3))
    resized = apply_regions(any_size, precision)
    assert region_maps(resized)(images)["importance"].shape[1:3] == (16, 16)

    with pytest.warns(UserWarning, match="in front of .*zoom.*, and do not move") as warned:
        apply_regions(net(flip, L.Rescaling(2.0), L.RandomZoom(0.1, name="zoom")), precision)
    assert warned[0].filename == __file__
    assert "flip" not in str(warned[0].message)


@pytest.mark.parametrize(
    ("metric", "error", "message"),
    [
        (no_map, ValueError, r"`metric` must return importance of shape \[batch, rows, columns\]"),
        (odd_map, ValueError, "one value for each square tile of the 16x16 image, got .* 3x16"),
        (nan_map, tf.errors.InvalidArgumentError, "`metric` must return finite importance"),
    ],
)
def test_metrics_that_give_no_map_are_refused(quantized, images, metric, error, message):
    with pytest.raises(error, match=message):
        apply_regions(quantized, RegionPrecision(metric))(images)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (RegionPrecision(overrides={"sten": (8, 2)}), "'sten' matches no layer .* names: stem"),
        (RegionPrecision(target_bits=3.0), r"`target_bits` must be between 4\.\d+ .* got 3.0"),
        (RegionPrecision(wrpn_tf.regions.Entropy(tile=32, window=33)), "`tile` must be at most"),
    ],
)
def test_settings_that_do_not_fit_the_model_are_refused(quantized, setting, message):
    with pytest.raises(ValueError, match=message):
        apply_regions(quantized, setting)


def test_models_that_do_not_fit_are_refused(flavor, quantized):
    setting = SETTINGS["two levels"]
    L = flavor.layers
    with pytest.raises(
        TypeError, match="`region_precision` must be a wrpn_tf.RegionPrecision, got"
    ):
        apply_regions(quantized, "entropy")
    with pytest.raises(ValueError, match="`model` must have no regions yet"):
        apply_regions(apply_regions(quantized, setting), setting)
    with pytest.raises(ValueError, match="`model` must have regions, got"):
        drop_regions(quantized)
    for shape, message in (
        ((16, 16, 5), "with 1 or 3 channels"),
        ((None, None, 3), "known height and width"),
        ((8, 3), "one input that is an image"),
    ):
        inputs = L.Input(shape)
        kind = L.Conv1D if len(shape) == 2 else L.Conv2D
        model = wrpn_tf.quantize_model(flavor.keras.Model(inputs, kind(2, 1)(inputs)))
        with pytest.raises(ValueError, match=message):
            apply_regions(model, setting)
    inputs = L.Input((16, 16, 3))
    model = flavor.keras.Model(inputs, L.Conv2D(2, 1)(L.ReLU()(L.Conv2D(2, 1)(inputs))))
    with pytest.raises(ValueError, match="`model` must have a convolution that reads a rounded"):
        apply_regions(model, setting)
    x = L.ReLU()(L.Conv2D(2, 1)(L.ReLU()(L.Conv2D(2, 1)(inputs))))
    model = flavor.keras.Model(inputs, L.Conv2D(2, 1)(x))
    three = wrpn_tf.quantize_model(model, num_bits_activation=3)
    with pytest.raises(ValueError, match="`bits` must divide the 3 bits of layer .* got 2"):
        apply_regions(three, RegionPrecision(bits=(8, 2)))
