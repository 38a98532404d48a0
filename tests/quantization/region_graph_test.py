"""The network inside a network with regions: the quantized one, call by call."""

from __future__ import annotations

import numpy as np

from wrpn_tf import RegionPrecision, apply_regions, calibrate, quantize_model
from wrpn_tf.model_graph import model_graph
from wrpn_tf.quantization.region_graph import kernel_reads, network_graph

IMAGES = np.random.default_rng(0).uniform(0, 1, (2, 16, 16, 3)).astype(np.float32)


def quantized_net(flavor):
    """What is pooled is read at both precisions; a convolution reads by region, or not, or both."""
    L = flavor.layers
    image = flavor.keras.Input((16, 16, 3), name="image")
    x = L.Conv2D(4, 3, padding="same", activation="relu", name="stem")(image)
    x = L.MaxPooling2D(name="pool")(x)
    conv = L.Conv2D(4, 3, padding="same", activation="relu", name="conv")
    mean = L.AveragePooling2D(2, 1, padding="same", name="average")(x)
    x = L.Add(name="sum")([x, conv(conv(x)), conv(L.Activation("linear", name="same")(mean))])
    x = L.DepthwiseConv2D(3, activation="relu", name="depthwise")(x)
    x = L.Conv2D(4, 1, activation="relu", name="point")(x)
    x = L.Dense(3, name="head")(L.GlobalAveragePooling2D(name="mean")(x))
    quantized = quantize_model(flavor.keras.Model(image, x, name="net"))
    calibrate(quantized, IMAGES, verbose=False)
    return quantized


def run(graph):
    """The graph's output, call by call."""
    tensors = {graph.inputs[0]: IMAGES}
    for call in graph.calls:
        results = graph.flatten(call.invoke(call.layer, tensors))
        tensors.update(zip(call.outputs, results, strict=True))
    return np.asarray(tensors[graph.outputs[0]])


def test_it_is_the_quantized_network(flavor):
    quantized = quantized_net(flavor)
    regional = model_graph(apply_regions(quantized, RegionPrecision("gradient", (8, 2))))
    plain, network = model_graph(quantized), network_graph(regional)
    assert [(x.name, x.layer) for x in network.calls] == [(x.name, x.layer) for x in plain.calls]
    np.testing.assert_array_equal(run(network), run(plain))
    assert (run(regional) != run(plain)).any()
    assert network_graph(plain) is plain


def test_every_kernel_reads_what_the_plan_says(flavor):
    quantized = quantized_net(flavor)
    model = model_graph(apply_regions(quantized, RegionPrecision("gradient", (8, 2))))
    reads = [(read.name, getattr(read, "source", None)) for read in kernel_reads(model).values()]
    assert reads == [
        ("quant_stem", None),
        ("quant_conv", "quant_stem"),
        ("quant_conv", None),
        ("quant_conv", "quant_average"),
        ("quant_depthwise", "quant_sum"),
        ("quant_point", "quant_depthwise"),
        ("quant_head", None),
    ]
    assert kernel_reads(model_graph(quantized)) == {}
