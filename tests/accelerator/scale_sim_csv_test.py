"""SCALE-Sim's GEMM topology files."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wrpn_tf.accelerator import Gemm, from_gemm_csv, to_gemm_csv


def test_text():
    text = to_gemm_csv([("conv", Gemm(M=1024, N=16, K=27)), ("dense", Gemm(M=1, N=10, K=64))])
    assert text == "Layer, M, N, K,\nconv, 1024, 16, 27,\ndense, 1, 10, 64,\n"


def test_passes_are_lines():
    text = to_gemm_csv([("conv", Gemm(M=4, N=5, K=6, passes=2))])
    assert text == "Layer, M, N, K,\nconv_1, 4, 5, 6,\nconv_2, 4, 5, 6,\n"


@pytest.mark.parametrize(
    ("name", "written"), [("a,b", "a_b"), ("a\nb c", "a_b_c"), ("", "layer"), ("x/y:1", "x/y:1")]
)
def test_names_that_would_break_the_file(name, written):
    assert from_gemm_csv(to_gemm_csv([(name, Gemm(1, 2, 3))])) == ((written, Gemm(1, 2, 3)),)


def test_file_of_scale_sim():
    """As in its topologies: spaces, a comma at the end or none, an empty line."""
    text = "Layer, M, N, K,\nQKT,  128, 64,32 ,\n\nAV,1,2,3\n"
    assert from_gemm_csv(text) == (("QKT", Gemm(128, 64, 32)), ("AV", Gemm(1, 2, 3)))


@pytest.mark.parametrize("header", ["Layer,M,N,K", "Layer Name, M, N, K,"])
def test_headers_of_scale_sim(header):
    assert from_gemm_csv(f"{header}\n1,256,128,2048\n") == (("1", Gemm(256, 128, 2048)),)


lengths = st.integers(1, 10**9)
products = st.builds(Gemm, M=lengths, N=lengths, K=lengths)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.text("abc_/0", min_size=1), products), max_size=5))
def test_what_is_written_is_read(gemms):
    assert from_gemm_csv(to_gemm_csv(gemms)) == tuple(gemms)


@pytest.mark.parametrize(
    "text",
    ["", "conv, 1, 2, 3,\n", "Layer, M, K, N,\nc, 1, 2, 3,\n", "Layer, M, N, K, Sparsity,\n"],
)
def test_missing_header_is_refused(text):
    with pytest.raises(ValueError, match="`text` must begin with the line 'Layer, M, N, K,'"):
        from_gemm_csv(text)


@pytest.mark.parametrize(
    "line", ["conv, 1, 2,", "conv, 1, 2, 3, 4,", "conv, 1, 0, 3,", "c, x, 1, 1"]
)
def test_line_that_is_no_product_is_refused(line):
    with pytest.raises(ValueError, match="a name and three numbers >= 1 in line 3"):
        from_gemm_csv(f"Layer, M, N, K,\nok, 1, 1, 1,\n{line}\n")
