"""What quantization leaves alone, what it names, and what it refuses."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import tensorflow as tf

from wrpn_tf import calibrate, quantize_model
from wrpn_tf.keras_flavor import KERAS, TF_KERAS
from wrpn_tf.model_graph import model_graph
from wrpn_tf.quantization import inner_layer


def nodes(model):
    return {layer.name: len(layer._inbound_nodes) for layer in model.layers}


def test_the_users_model_is_not_changed(conv_net, images):
    model = conv_net()
    before = (model.get_config(), nodes(model), model.get_weights(), np.array(model(images)))
    quantized = quantize_model(model)
    quantized(images, training=True)
    for layer in quantized.layers:
        for variable in layer.weights:
            variable.assign(np.zeros(variable.shape))
    after = (model.get_config(), nodes(model), model.get_weights(), np.array(model(images)))
    assert after[:2] == before[:2]
    for a, b in zip(before[2], after[2], strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(before[3], after[3])


def test_the_copy_starts_from_the_models_weights(conv_net, images):
    model = conv_net()
    quantized = quantize_model(
        model,
        first_layer="float",
        last_layer="float",
        overrides={".*": {"num_bits_weight": "float", "num_bits_activation": "float"}},
    )
    np.testing.assert_allclose(quantized(images), model(images), rtol=1e-5, atol=1e-6)


def test_eight_bits_are_close_to_float(conv_net, images):
    model = conv_net()
    quantized = quantize_model(model, num_bits_weight=8, weight_scale="max_per_channel")
    calibrate(quantized, images, method="max", verbose=False)
    outputs = np.array(model(images))
    # Eight roundings of 1/255 of a range each.
    np.testing.assert_allclose(quantized(images), outputs, atol=8 / 255 * np.abs(outputs).max())


def test_names_inputs_and_outputs_stay(flavor):
    L = flavor.layers
    inputs = {"b": flavor.keras.Input((4,), name="b"), "a": flavor.keras.Input((6,), name="a")}
    x = L.Concatenate()([L.Dense(3)(inputs["a"]), L.Dense(3)(inputs["b"])])
    model = flavor.keras.Model(inputs, {"y": L.Dense(2)(x), "x": L.Dense(1)(x)}, name="net")
    quantized = quantize_model(model)
    values = {"a": np.ones((2, 6), np.float32), "b": np.ones((2, 4), np.float32)}
    outputs = quantized(values)
    assert quantized.name == "net"
    assert {key: tuple(value.shape) for key, value in outputs.items()} == {"y": (2, 2), "x": (2, 1)}
    assert all(np.abs(outputs[key] - model(values)[key]).max() < 0.1 for key in outputs)


def test_sequential_models(flavor, images):
    L = flavor.layers
    model = flavor.keras.Sequential(
        [flavor.keras.Input((8, 8, 3)), L.Conv2D(4, 3), L.ReLU(), L.Flatten(), L.Dense(2)]
    )
    assert quantize_model(model)(images).shape == (5, 2)


def test_unknown_batch_and_spatial_sizes(flavor, images):
    L = flavor.layers
    inputs = flavor.keras.Input((None, None, 3))
    x = L.GlobalAveragePooling2D()(L.Conv2D(4, 3, activation="relu")(inputs))
    quantized = quantize_model(flavor.keras.Model(inputs, L.Dense(2)(x)))
    assert quantized(images[:1]).shape == (1, 2)


def test_frozen_layers_stay_frozen(flavor, conv_net, images):
    model = conv_net()
    for name in ("stem", "bn0", "relu0", "conv1"):
        model.get_layer(name).trainable = False
    quantized = quantize_model(model)
    trainable = {id(v) for v in quantized.trainable_variables}
    for layer in model_graph(quantized).layers().values():
        name = layer.name.removeprefix("quant_")
        for variable in layer.weights:
            frozen = name in ("stem", "bn0", "relu0", "conv1")
            if frozen:
                assert id(variable) not in trainable, variable.name
    kept = {v.name.split("/")[-1] for v in quantized.trainable_variables}
    assert any("gamma" in name for name in kept)
    before = {id(v): v.numpy() for v in quantized.weights}
    quantized.compile("sgd", "mse")
    quantized.fit(images, np.ones((len(images), 3), np.float32), verbose=0)
    for name in ("quant_stem", "bn0", "quant_conv1"):
        for variable in quantized.get_layer(name).weights:
            if "optimizer_step" not in variable.name:  # tfmot counts steps in it
                np.testing.assert_array_equal(variable, before[id(variable)], variable.name)


def test_freezing_leaves_the_order_of_weights(flavor, conv_net):
    model = quantize_model(conv_net())
    before = [id(weight) for layer in model.layers for weight in layer.weights]
    model.trainable = False
    assert not model.trainable_weights
    assert [id(weight) for layer in model.layers for weight in layer.weights] == before
    model.trainable = True
    assert model.trainable_weights


def test_a_base_called_in_inference_keeps_its_statistics_where_it_did_in_float():
    keras, L = TF_KERAS.keras, TF_KERAS.layers  # In Keras 3 `fit` overrides how a base is called.
    inputs = keras.Input((4,))
    base = keras.Model(inputs, L.BatchNormalization(name="norm")(L.Dense(3)(inputs)))
    inputs = keras.Input((4,))
    model = quantize_model(keras.Model(inputs, L.Dense(2)(base(inputs, training=False))))
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(1, 1, (32, 4)).astype(np.float32)
    model.fit(x, np.ones((32, 2), np.float32), verbose=0)
    (norm,) = (
        inner_layer(layer)
        for layer in model.layers
        if isinstance(inner_layer(layer), L.BatchNormalization)
    )
    np.testing.assert_array_equal(norm.moving_mean, 0)
    assert np.abs(norm.beta.numpy()).max() > 0


def test_float_layers_are_named_in_one_warning(flavor):
    L = flavor.layers
    inputs = flavor.keras.Input((6, 4))
    x = L.LayerNormalization(name="norm_1")(L.Dense(4)(inputs))
    x = L.LSTM(3, name="lstm")(L.LayerNormalization(name="norm_2")(x))
    model = flavor.keras.Model(inputs, L.Dense(2)(x))
    with pytest.warns(UserWarning, match="layers stay float") as caught:
        quantized = quantize_model(model)
    # The first use of tf_keras imports tfmot, which warns of its own.
    ours = [(str(w.message), w.filename) for w in caught if "stay float" in str(w.message)]
    message = (
        "3 layers stay float, being of classes that are not quantized (LSTM, LayerNormalization): "
        "norm_1, norm_2, lstm."
    )
    assert ours == [(message, __file__)]
    assert np.isfinite(quantized(np.ones((2, 6, 4), np.float32))).all()


def test_nothing_is_warned_of_where_all_is_quantized(conv_net):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        quantize_model(conv_net())
    assert [str(w.message) for w in caught if issubclass(w.category, UserWarning)] == []


def test_a_quantized_model_is_refused(conv_net):
    with pytest.raises(
        ValueError, match="must be a float model, got one that is quantized already"
    ):
        quantize_model(quantize_model(conv_net()))


def test_a_model_without_kernels_is_refused(flavor):
    inputs = flavor.keras.Input((4,))
    model = flavor.keras.Model(inputs, flavor.layers.BatchNormalization()(inputs), name="bare")
    with pytest.raises(ValueError, match="must have a layer with kernels .* got 'bare' with none"):
        quantize_model(model)


def test_a_model_whose_training_diverged_is_refused(conv_net):
    model = conv_net()
    model.set_weights([np.full_like(value, np.nan) for value in model.get_weights()])
    with pytest.raises(ValueError, match="`model` must have finite weights, got NaN or infinity"):
        quantize_model(model)


def test_a_sum_by_its_operator_is_read(flavor):
    inputs = flavor.keras.Input((4,))
    x = flavor.layers.Dense(4)(inputs)
    quantized = quantize_model(flavor.keras.Model(inputs, x + inputs))
    calibrate(quantized, np.ones((2, 4), np.float32), verbose=False)
    assert np.isfinite(quantized.predict(np.ones((2, 4), np.float32), verbose=0)).all()


@pytest.mark.parametrize("kind", ["Add", "Maximum", "Minimum", "Multiply"])
def test_sums_products_and_extremes_of_many_tensors_go_two_by_two(flavor, kind):
    L = flavor.layers

    def by_pairs(first, *others):
        for other in others:
            first = getattr(L, kind)()([first, other])
        return first

    def quantized(combine):
        flavor.keras.utils.set_random_seed(1)
        inputs = flavor.keras.Input((6,))
        a, b = (L.Dense(4, activation="relu")(inputs) for _ in range(2))
        model = flavor.keras.Model(inputs, L.Dense(2)(combine(a, b, L.Dense(4)(inputs), a)))
        return quantize_model(model)

    one_layer = quantized(lambda *tensors: getattr(L, kind)(name="fuse")(tensors))
    pairwise = quantized(by_pairs)
    images = np.random.default_rng(0).normal(size=(32, 6)).astype(np.float32)
    for model in (one_layer, pairwise):
        calibrate(model, images, verbose=False)
    values = one_layer.predict(images, verbose=0)
    assert np.ptp(values) > 0
    np.testing.assert_array_equal(values, pairwise.predict(images, verbose=0))
    names = [layer.name for layer in one_layer.layers if "fuse" in layer.name]
    assert names == ["quant_fuse_first2", "quant_fuse_first3", "quant_fuse"]


def test_an_average_is_a_sum_divided(flavor):
    L = flavor.layers

    def quantized(combine):
        flavor.keras.utils.set_random_seed(1)
        inputs = flavor.keras.Input((6,))
        tensors = [L.Dense(4, activation="relu")(inputs) for _ in range(3)]
        return quantize_model(flavor.keras.Model(inputs, L.Dense(2)(combine(tensors))))

    images = np.random.default_rng(0).normal(size=(32, 6)).astype(np.float32)
    average = quantized(L.Average(name="mean"))
    by_hand = quantized(lambda x: L.Add()([L.Add()([x[0], x[1]]), x[2]]) * (1 / 3))
    for model in (average, by_hand):
        calibrate(model, images, verbose=False)
    values = average.predict(images, verbose=0)
    assert np.ptp(values) > 0
    np.testing.assert_array_equal(values, by_hand.predict(images, verbose=0))
    names = {layer.name for layer in average.layers}
    assert {"quant_mean_sum2", "quant_mean_sum3"} <= names


@pytest.mark.parametrize("kind", ["Add", "Average"])
def test_a_layer_that_combines_many_tensors_may_be_called_twice(flavor, kind):
    L = flavor.layers
    inputs = flavor.keras.Input((6,))
    a, b, c = (L.Dense(4, activation="relu")(inputs) for _ in range(3))
    shared = getattr(L, kind)(name="fuse")
    model = flavor.keras.Model(inputs, L.Dense(2)(shared([shared([a, b, c]), b, c])))
    images = np.random.default_rng(0).normal(size=(32, 6)).astype(np.float32)
    quantized = quantize_model(model, num_bits_weight=8, weight_scale="max")
    calibrate(quantized, images, method="max", verbose=False)
    expected, got = model.predict(images, verbose=0), quantized.predict(images, verbose=0)
    # Eight roundings to 8 bits, each of half a level of at most 1/100 of the range.
    np.testing.assert_allclose(got, expected, rtol=0, atol=0.04 * np.ptp(expected))


def _split(flavor, x, sizes):
    if flavor is KERAS:
        return flavor.keras.ops.split(x, np.cumsum(sizes)[:-1].tolist(), axis=-1)
    return tf.split(x, sizes, axis=-1)


def _sliced(flavor, x, sizes):
    ends = np.cumsum(sizes).tolist()
    return [x[:, end - size : end] for size, end in zip(sizes, ends, strict=True)]


def test_a_split_becomes_slices(flavor):
    def model(cut):
        flavor.keras.utils.set_random_seed(1)
        L = flavor.layers
        inputs = flavor.keras.Input((6,))
        pieces = cut(flavor, L.Dense(6)(inputs)[:, :6], [2, 3, 1])
        branches = [
            L.Dense(2, activation="relu", name=f"branch_{i}")(x) for i, x in enumerate(pieces)
        ]
        return flavor.keras.Model(inputs, L.Dense(2)(L.Concatenate()(branches)))

    images = np.random.default_rng(0).normal(size=(32, 6)).astype(np.float32)
    results = []
    for cut in (_split, _sliced):
        source = model(cut)
        flavor.keras.backend.clear_session()  # As after loading: names are given anew.
        quantized = quantize_model(source, overrides={"branch_[12]": {"num_bits_weight": 4}})
        calibrate(quantized, images, verbose=False)
        results.append(quantized.predict(images, verbose=0))
    assert np.ptp(results[0]) > 0
    np.testing.assert_array_equal(*results)


def test_a_subclassed_model_is_refused_with_what_to_do(flavor):
    class Net(flavor.keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = flavor.layers.Dense(2)

        def call(self, inputs):
            return self.dense(inputs)

    net = Net()
    net(np.ones((1, 3), np.float32))
    with pytest.raises(
        ValueError, match=r"subclassed model Net, .* Express it as `keras.Model\(in"
    ):
        quantize_model(net)


def test_an_unbuilt_model_is_refused(flavor):
    model = flavor.keras.Sequential([flavor.layers.Dense(2)])
    with pytest.raises(ValueError, match="must be built"):
        quantize_model(model)


@pytest.mark.parametrize("thing", [None, "model", 3])
def test_what_is_no_model_is_refused(thing):
    with pytest.raises(TypeError, match="`model` must be a Keras 3 or tf_keras model, got"):
        quantize_model(thing)


def test_a_layer_is_refused(flavor):
    with pytest.raises(TypeError, match="`model` must be a model, got the layer Dense"):
        quantize_model(flavor.layers.Dense(2))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_trains_with_latent_weights_in_float32(policy, images):
    keras = KERAS.keras
    L = keras.layers
    keras.config.set_dtype_policy(policy)
    try:
        inputs = keras.Input((8, 8, 3))
        x = L.ReLU()(L.BatchNormalization()(L.Conv2D(4, 3, name="conv")(inputs)))
        outputs = L.Dense(2, dtype="float32")(L.GlobalAveragePooling2D()(x))
        quantized = quantize_model(keras.Model(inputs, outputs))
    finally:
        keras.config.set_dtype_policy("float32")
    seen = []
    layer = quantized.get_layer("quant_conv")
    quantizer = layer.quantize_config.weight_quantizers["kernel"]
    original = type(quantizer).__call__

    def spy(self, inputs, *args, **kwargs):
        seen.append(str(inputs.dtype))
        return original(self, inputs, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(quantizer), "__call__", spy)
        quantized.compile("sgd", "mse", jit_compile=False)
        history = quantized.fit(images, np.zeros((5, 2)), epochs=3, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert {"float32" in dtype for dtype in seen} == {True}
    assert all(v.dtype == "float32" for v in quantized.variables if "seed" not in v.path)
    assert layer.layer.compute_dtype == policy.removeprefix("mixed_")
