"""The pre-activation ResNet-34 of the WRPN paper.

Sources: He et al., "Identity Mappings in Deep Residual Networks" (arXiv 1603.05027), section 4 and
appendix; Mishra et al., "WRPN: Wide Reduced-Precision Networks" (arXiv 1709.01134), Table 4:
ResNet-34 in pre-activation form with 1x1 projection shortcuts.
"""

from __future__ import annotations

import os
from typing import Any

from wrpn_tf.applications.construction import close_network, open_network, pooled, predictions

# filters, blocks
_STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))
_MIN_SIZE = 32  # the last stage sees 1/32 of the image's sides


def PreActResNet34(
    *,
    include_top: bool = True,
    weights: str | os.PathLike[str] | None = None,
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    name: str = "preact_resnet34",
    keras_flavor: str = "keras",
) -> Any:
    """Builds the float pre-activation ResNet-34 for ImageNet.

    A 7x7 stem with stride 2, BatchNormalization, ReLU and max pooling; stages of 3, 4, 6 and 3
    basic blocks with 64, 128, 256 and 512 filters; BatchNormalization, ReLU, global average pooling
    and the classifier. A block is BN, ReLU, 3x3, BN, ReLU, 3x3, and an addition. The first block
    takes the stem's activation as its own; the first blocks of stages 2 to 4 send their activated
    input through a strided 1x1 convolution as the shortcut. 3663.8 M multiply-accumulates at
    224x224.

    Convolutions have no bias; all paddings are "same".

    Args:
        include_top: whether the pooling and the classifier are part of the model.
        weights: None, or the path of a `.weights.h5` file written by `save_weights` of the
            same network, in either flavor.
        input_shape: (height, width, channels); height and width >= 32, or None for any.
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
    layers = flavor.keras.layers
    x = _conv(layers, _STAGES[0][0], 7, "stem_conv", strides=2)(image)
    x = _activated(layers, x, "stem_bn", "stem_relu")
    x = layers.MaxPooling2D(3, 2, padding="same", name="stem_pool")(x)
    for stage, (filters, blocks) in enumerate(_STAGES, start=1):
        for index in range(blocks):
            x = _block(layers, x, filters, stage, index)
    x = _activated(layers, x, "final_bn", "final_relu")
    if include_top:
        x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
        x = predictions(flavor, x, classes, classifier_activation)
    else:
        x = pooled(flavor, x, pooling)
    return close_network(flavor, image, x, name=name, weights=weights)


def _block(layers: Any, x: Any, filters: int, stage: int, index: int) -> Any:
    """Returns the sum of a shortcut and two pre-activated 3x3 convolutions."""
    name = f"stage{stage}_block{index}"
    strides = 2 if stage > 1 and index == 0 else 1
    shortcut = x
    if stage > 1 or index > 0:
        x = _activated(layers, x, f"{name}_bn1", f"{name}_relu1")
    if strides > 1:
        shortcut = _conv(layers, filters, 1, f"{name}_shortcut", strides=strides)(x)
    x = _conv(layers, filters, 3, f"{name}_conv1", strides=strides)(x)
    x = _activated(layers, x, f"{name}_bn2", f"{name}_relu2")
    x = _conv(layers, filters, 3, f"{name}_conv2")(x)
    return layers.Add(name=f"{name}_add")([shortcut, x])


def _activated(layers: Any, x: Any, bn: str, relu: str) -> Any:
    """Returns ReLU(BatchNormalization(x)); `bn` and `relu` are the layers' names."""
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=bn)(x)
    return layers.ReLU(name=relu)(x)


def _conv(layers: Any, filters: int, kernel_size: int, name: str, strides: int = 1) -> Any:
    return layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )
