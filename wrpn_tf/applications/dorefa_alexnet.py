"""The AlexNet of the WRPN paper: tensorpack's DoReFa example without groups.

Sources: Mishra et al., "WRPN: Wide Reduced-Precision Networks" (arXiv 1709.01134), Tables 1-3;
Zhou et al., "DoReFa-Net" (arXiv 1606.06160); the layout is that of tensorpack's
`examples/DoReFa-Net/alexnet-dorefa.py`, without its two-way groups: only so do the paper's compute
costs come out (3049.6 M multiply-accumulates at 224x224, and 3.918 times that at twice the width).
"""

from __future__ import annotations

import os
from typing import Any

from wrpn_tf.applications.construction import close_network, open_network, pooled, predictions

# conv0 leaves floor((44 - 12) / 4) + 1 = 9; pools leave 5, 3 and 1.
_MIN_SIZE = 44
# name, filters, kernel size, padding of the max pooling after it (None: no pooling)
_CONVOLUTIONS = (
    ("1", 256, 5, "same"),
    ("2", 384, 3, "same"),
    ("3", 384, 3, None),
    ("4", 256, 3, "valid"),
)
_DENSE_UNITS = 4096


def AlexNet(
    *,
    include_top: bool = True,
    weights: str | os.PathLike[str] | None = None,
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    name: str = "alexnet",
    keras_flavor: str = "keras",
) -> Any:
    """Builds the float AlexNet of the DoReFa and WRPN experiments, without groups.

    | layer | at 224x224x3 |
    |---|---|
    | conv0 12x12, stride 4, "valid"; ReLU, no BatchNormalization | 54x54x96 |
    | conv1 5x5; bn1, ReLU, max pool 3x3/2 "same" | 27x27x256 |
    | conv2 3x3; bn2, ReLU, max pool 3x3/2 "same" | 14x14x384 |
    | conv3 3x3; bn3, ReLU | 14x14x384 |
    | conv4 3x3; bn4, ReLU, max pool 3x3/2 "valid" | 6x6x256 |
    | fc0; bn, ReLU; fc1; bn, ReLU | 4096 |
    | predictions, with bias | `classes` |

    No layer before the classifier has a bias. BatchNormalization: momentum 0.9, epsilon 1e-4.
    Two things differ from tensorpack's script, neither in what can be computed: it pools before it
    rectifies (max pooling and ReLU commute, and so does any rising quantizer; this order lets an
    exporter fuse the ReLU into the convolution), and its fc0 has a bias, which the
    BatchNormalization after it cancels. Inputs are images in [0, 1].

    Args:
        include_top: whether flattening, the dense layers and the classifier are part of the model.
        weights: None, or the path of a `.weights.h5` file written by `save_weights` of the
            same network, in either flavor.
        input_shape: (height, width, channels), height and width >= 44, or None for any
            with `include_top=False`.
        pooling: for `include_top=False`: None, "avg" or "max" over height and width.
        classes: outputs of the classifier, used with `include_top=True`.
        classifier_activation: "softmax", or None for logits.
        name: the model's name.
        keras_flavor: "keras" (Keras 3) or "tf_keras".

    Returns:
        A Functional model of the chosen flavor.

    Raises:
        TypeError: If `classes` or a side of `input_shape` is no integer.
        ValueError: If an argument is out of its range; the message names it.
    """
    flavor, image = open_network(
        keras_flavor=keras_flavor,
        weights=weights,
        input_shape=input_shape,
        min_size=_MIN_SIZE,
        classes=classes,
        pooling=pooling,
    )
    if include_top and None in input_shape:
        raise ValueError(
            "`input_shape` must be fixed with include_top=True, as the dense layers' widths depend "
            f"on it, got {tuple(input_shape)}."
        )
    layers = flavor.keras.layers
    x = _conv(layers, 96, 12, "conv0", strides=4, padding="valid")(image)
    x = layers.ReLU(name="relu0")(x)
    for index, filters, kernel_size, pool_padding in _CONVOLUTIONS:
        x = _conv(layers, filters, kernel_size, f"conv{index}")(x)
        x = _rectified(layers, x, index)
        if pool_padding:
            x = layers.MaxPooling2D(3, 2, padding=pool_padding, name=f"pool{index}")(x)
    if include_top:
        x = layers.Flatten(name="flatten")(x)
        for index in ("fc0", "fc1"):
            x = layers.Dense(
                _DENSE_UNITS, use_bias=False, kernel_initializer="he_normal", name=index
            )(x)
            x = _rectified(layers, x, f"_{index}")
        x = predictions(flavor, x, classes, classifier_activation)
    else:
        x = pooled(flavor, x, pooling)
    return close_network(flavor, image, x, name=name, weights=weights)


def _conv(
    layers: Any, filters: int, kernel_size: int, name: str, strides: int = 1, padding: str = "same"
) -> Any:
    return layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding=padding,
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )


def _rectified(layers: Any, x: Any, suffix: str) -> Any:
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-4, name=f"bn{suffix}")(x)
    return layers.ReLU(name=f"relu{suffix}")(x)
