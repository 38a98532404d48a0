"""One engine: the product without a multiplier, and the 32-bit accumulator."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wrpn_tf.accelerator import ProcessingElement, processing_element, ternary_product


def test_product_of_every_operand():
    activations, weights = np.meshgrid(np.arange(256), np.arange(-1, 2))
    product = ternary_product(activations.astype(np.int32), weights.astype(np.int32))
    assert product.dtype == np.int32
    np.testing.assert_array_equal(product, activations * weights)


def test_product_has_no_multiplier():
    source = inspect.getsource(ternary_product)
    assert "*" not in source.split('"""')[-1]


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 255), st.sampled_from([-1, 0, 1])), max_size=50))
def test_accumulator_is_the_sum_of_the_products(operands):
    engine = ProcessingElement()
    for step, operand in enumerate(operands, start=1):
        expected = sum(activation * weight for activation, weight in operands[:step])
        assert engine.step(*operand) == expected
        assert engine.accumulator == expected


def test_clear():
    engine = ProcessingElement()
    engine.step(255, 1)
    engine.clear()
    assert engine.accumulator == 0


@pytest.mark.parametrize("activation", [-1, 256])
def test_activation_out_of_range_is_refused(activation):
    with pytest.raises(ValueError, match=rf"`activation` must be in 0..255, got {activation}"):
        ProcessingElement().step(activation, 1)


@pytest.mark.parametrize("weight", [-2, 2])
def test_weight_out_of_range_is_refused(weight):
    with pytest.raises(ValueError, match=f"`weight` must be in -1..1, got {weight}"):
        ProcessingElement().step(0, weight)


@pytest.mark.parametrize("operands", [(1.5, 1), (1, 0.0), (True, 1)])
def test_operand_that_is_no_int_is_refused(operands):
    with pytest.raises(TypeError, match="` must be an int, got "):
        ProcessingElement().step(*operands)


@pytest.mark.parametrize(("weight", "limit"), [(1, 1000), (-1, -1000)])
def test_accumulator_never_wraps(monkeypatch, weight, limit):
    monkeypatch.setattr(processing_element, "ACCUMULATOR_MAX", 1000)
    monkeypatch.setattr(processing_element, "ACCUMULATOR_MIN", -1000)
    engine = ProcessingElement()
    for _ in range(4):
        engine.step(250, weight)
    assert engine.accumulator == limit
    with pytest.raises(OverflowError, match="outside int32"):
        engine.step(1, weight)
    assert engine.accumulator == limit
