"""What widening refuses, one case each."""

from __future__ import annotations

import pytest

from tests.widening import networks
from wrpn_tf.widening import plan_widths, widen_model


@pytest.mark.parametrize("multiplier", [0, -1.0, True, "2", None, float("nan"), float("inf")])
def test_multiplier_must_be_a_positive_number(flavor, multiplier):
    with pytest.raises(ValueError, match="`width_multiplier` must be a finite number > 0, got"):
        plan_widths(networks.residual(flavor), width_multiplier=multiplier)


@pytest.mark.parametrize("fraction", [0, 1.01, -0.3, True, "all", float("nan")])
def test_fraction_must_be_in_its_range(flavor, fraction):
    with pytest.raises(ValueError, match=r"`layer_fraction` must be in \(0, 1\], got"):
        plan_widths(networks.residual(flavor), layer_fraction=fraction)


@pytest.mark.parametrize("divisor", [0, 8.0, True])
def test_divisor_must_be_a_positive_integer(flavor, divisor):
    with pytest.raises(ValueError, match="`divisor` must be an integer >= 1, got"):
        plan_widths(networks.residual(flavor), divisor=divisor)


def test_multiplier_must_leave_filters(flavor):
    with pytest.raises(ValueError, match=r"at least one filter, got 0.01 for layer 'stem' with 10"):
        plan_widths(networks.residual(flavor), width_multiplier=0.01)


def test_multiplier_must_change_something(flavor):
    # 10 * 1.05 = 10.5 and 7 * 1.05 = 7.35 round to 8 and 7, no more than there are.
    with pytest.raises(ValueError, match="must change a width, got `width_multiplier=1.05`"):
        plan_widths(networks.residual(flavor), width_multiplier=1.05)


def test_fraction_must_reach_a_layer_that_can_change(flavor):
    layers = flavor.layers
    inputs = flavor.keras.Input((3,))
    x = layers.Add()([inputs, layers.Dense(3)(inputs)])
    model = flavor.keras.Model(inputs, layers.Dense(2)(layers.Dense(4)(x)))
    with pytest.raises(ValueError, match="must change a width, .*`layer_fraction=0.3`"):
        plan_widths(model, layer_fraction=0.3)


def test_overrides_must_be_a_dictionary(flavor):
    with pytest.raises(TypeError, match="`overrides` must be a dictionary .* got list"):
        plan_widths(networks.residual(flavor), overrides=["stem"])


def test_override_must_match_a_layer(flavor):
    with pytest.raises(ValueError, match=r"got 'steam', which matches none. Near names: stem"):
        plan_widths(networks.residual(flavor), overrides={"steam": 2})


def test_override_must_not_only_match_fixed_layers(flavor):
    with pytest.raises(ValueError, match=r"'logits', because it reaches the model's output"):
        plan_widths(networks.residual(flavor), overrides={"logits": 2})


def test_override_must_be_a_regular_expression(flavor):
    with pytest.raises(ValueError, match=r"regular expressions as keys, got '\(stem'"):
        plan_widths(networks.residual(flavor), overrides={"(stem": 2})


def test_override_multiplier_must_be_a_positive_number(flavor):
    with pytest.raises(ValueError, match=r"`overrides\['stem'\]` must be a finite number > 0"):
        plan_widths(networks.residual(flavor), overrides={"stem": True})


def test_overrides_must_agree_within_a_group(flavor):
    with pytest.raises(ValueError, match=r"same multiplier, got 2 for 'stem' and 3 for 'last'"):
        plan_widths(networks.residual(flavor), overrides={"stem": 2, "last": 3})


def test_model_must_have_more_than_its_output_layer(flavor):
    inputs = flavor.keras.Input((3,))
    model = flavor.keras.Model(inputs, flavor.layers.Dense(2, name="only")(inputs))
    with pytest.raises(ValueError, match="got none. 'only': it reaches the model's output"):
        plan_widths(model)


def test_model_must_make_channels(flavor):
    inputs = flavor.keras.Input((3,))
    model = flavor.keras.Model(inputs, flavor.layers.BatchNormalization()(inputs))
    with pytest.raises(ValueError, match="No layer makes channels"):
        plan_widths(model)


def test_model_must_not_be_quantized(flavor):
    class QuantizeWrapper(flavor.layers.Wrapper):
        """As the wrappers of quantized layers are called."""

        def call(self, inputs):
            return self.layer(inputs)

    x = inputs = flavor.keras.Input((3,))
    x = QuantizeWrapper(flavor.layers.Dense(4), name="wrapped")(x)
    model = flavor.keras.Model(inputs, flavor.layers.Dense(2)(x))
    with pytest.raises(ValueError, match=r"already quantized: layer 'wrapped'.*before quantizing"):
        widen_model(model)


def test_model_must_not_be_subclassed(flavor):
    class Subclassed(flavor.keras.Model):
        """A model without a graph."""

        def call(self, inputs):
            return inputs

    with pytest.raises(ValueError, match="`model` must be a Functional or Sequential model"):
        widen_model(Subclassed())


def test_model_must_be_a_model():
    with pytest.raises(TypeError, match="`model` must be a Keras 3 or tf_keras model, got str"):
        plan_widths("resnet")


def test_noise_needs_function_preservation(flavor):
    with pytest.raises(ValueError, match="`noise` must be 0 without `preserve_function=True`"):
        widen_model(networks.residual(flavor), noise=0.1)


@pytest.mark.parametrize("noise", [-0.1, True, float("nan")])
def test_noise_must_not_be_negative(flavor, noise):
    with pytest.raises(ValueError, match="`noise` must be a finite number >= 0, got"):
        widen_model(networks.residual(flavor), preserve_function=True, noise=noise)


def test_preserve_function_must_be_a_bool(flavor):
    with pytest.raises(TypeError, match="`preserve_function` must be True or False, got 'yes'"):
        widen_model(networks.residual(flavor), preserve_function="yes")


@pytest.mark.parametrize(("seed", "error"), [(-1, ValueError), (1.5, TypeError), ("a", TypeError)])
def test_seed_must_be_a_natural_number(flavor, seed, error):
    with pytest.raises(error, match="`seed` must be .*, got"):
        widen_model(networks.residual(flavor), preserve_function=True, noise=0.1, seed=seed)


def test_function_cannot_be_preserved_with_fewer_filters(flavor):
    with pytest.raises(ValueError, match="multipliers >= 1, got one below for layer 'stem': 10"):
        widen_model(networks.residual(flavor), width_multiplier=0.5, preserve_function=True)


def test_function_cannot_be_preserved_with_uneven_statistics(flavor):
    with pytest.raises(ValueError, match=r"equally often .* got \[1, 2\] copies at layer"):
        widen_model(networks.normalized(flavor), width_multiplier=1.5, preserve_function=True)


def test_function_cannot_be_preserved_through_a_layer_that_mixes_channels(flavor):
    inputs = flavor.keras.Input((3,))
    x = flavor.layers.Dense(4)(inputs)
    x = flavor.layers.Lambda(_cumulate, name="cumulate")(x)
    model = flavor.keras.Model(inputs, flavor.layers.Dense(2)(x))
    with pytest.raises(ValueError, match=r"got layer 'cumulate' \(Lambda\), which does not"):
        widen_model(model, preserve_function=True)


def _cumulate(x):
    import tensorflow as tf

    return tf.cumsum(x, axis=-1)


def test_a_layer_that_gives_a_fixed_width_is_named(flavor):
    class Pad(flavor.layers.Layer):
        """Always gives four channels."""

        def call(self, inputs):
            return inputs[..., :4]

        def compute_output_shape(self, input_shape):
            return (*input_shape[:-1], 4)

    inputs = flavor.keras.Input((3,))
    x = Pad(name="pad")(flavor.layers.Dense(4)(inputs))
    model = flavor.keras.Model(inputs, flavor.layers.Dense(2)(x))
    with pytest.raises(ValueError, match=r"layer 'pad', which gives \(None, 4\) instead of"):
        widen_model(model)
