"""The residual networks for CIFAR, of basic blocks (6n + 2 layers) or of bottlenecks (9n + 2).

Sources: He et al., "Deep Residual Learning for Image Recognition" (arXiv 1512.03385), section 4.2;
He et al., "Identity Mappings in Deep Residual Networks" (arXiv 1603.05027), for 9n + 2 layers;
Mishra & Marr, "WRPN & Apprentice" (arXiv 1803.00227), Tables 1-4: ResNet-44, ResNet-56, ResNet-101.
"""

from __future__ import annotations

import os
from typing import Any

from wrpn_tf.applications.construction import close_network, open_network, pooled, predictions

_FILTERS = (16, 32, 64)
_EXPANSION = 4  # of a bottleneck's last convolution
_LAYERS_PER_BLOCK = {"basic": 2, "bottleneck": 3}
_SHORTCUTS = ("projection", "zero_padding")
_MIN_SIZE = 4  # the third stage sees a quarter of the image's sides


def CIFARResNet(
    depth: int,
    *,
    block: str = "basic",
    shortcut: str = "projection",
    include_top: bool = True,
    weights: str | os.PathLike[str] | None = None,
    input_shape: tuple[int | None, int | None, int] = (32, 32, 3),
    pooling: str | None = None,
    classes: int = 10,
    classifier_activation: Any = "softmax",
    name: str | None = None,
    keras_flavor: str = "keras",
) -> Any:
    """Builds a float ResNet for small images, of any depth.

    A 3x3 stem, three stages of `n` blocks at 1, 1/2 and 1/4 of the image's sides with 16, 32 and 64
    filters, global average pooling and a classifier. Convolutions have no bias and are followed by
    BatchNormalization (momentum 0.9); the ReLU of a block's end stands after the addition.

    Where the width changes, the shortcut is a 1x1 convolution with BatchNormalization (option B of
    He et al.), which has weights to quantize, or every other pixel with channels of zeros around it
    (option A, of which their CIFAR figures are), which has none.

    Args:
        depth: layers with weights on the longest path: 6n + 2 for `block="basic"` (two 3x3
            convolutions), 9n + 2 for `block="bottleneck"` (1x1, 3x3, and 1x1 with 4 times as many
            filters).
        block: "basic" or "bottleneck".
        shortcut: "projection" (option B) or "zero_padding" (option A).
        include_top: whether the pooling and the classifier are part of the model.
        weights: None, or the path of a `.weights.h5` file written by `save_weights` of the
            same network, in either flavor.
        input_shape: (height, width, channels); height and width >= 4, or None for any.
        pooling: for `include_top=False`: None, "avg" or "max" over height and width.
        classes: outputs of the classifier, used with `include_top=True`.
        classifier_activation: "softmax", or None for logits.
        name: the model's name, "resnet<depth>" by default.
        keras_flavor: "keras" (Keras 3) or "tf_keras".

    Returns:
        A Functional model of the chosen flavor. Layer names are stable: "stem_conv",
        "stage1_block0_conv1", "stage2_block0_shortcut", "predictions".

    Raises:
        TypeError: If `depth` or `classes` is no integer.
        ValueError: If an argument is out of its range; the message names it.
    """
    blocks = _blocks_per_stage(depth, block)
    if shortcut not in _SHORTCUTS:
        raise ValueError(f'`shortcut` must be "projection" or "zero_padding", got {shortcut!r}.')
    flavor, image = open_network(
        keras_flavor=keras_flavor,
        weights=weights,
        input_shape=input_shape,
        min_size=_MIN_SIZE,
        classes=classes,
        pooling=pooling,
    )
    layers = flavor.keras.layers
    x = _conv_bn(layers, image, _FILTERS[0], 3, 1, "stem_conv", "stem_bn")
    x = layers.ReLU(name="stem_relu")(x)
    add_block = {"basic": _basic_block, "bottleneck": _bottleneck_block}[block]
    make_shortcut = {"projection": _projection, "zero_padding": _zero_padding}[shortcut]
    for stage, filters in enumerate(_FILTERS, start=1):
        out_channels = filters * _EXPANSION if block == "bottleneck" else filters
        for index in range(blocks):
            strides = 2 if stage > 1 and index == 0 else 1
            stem = f"stage{stage}_block{index}"
            short = x
            if x.shape[-1] != out_channels or strides > 1:
                short = make_shortcut(layers, x, out_channels, strides, f"{stem}_shortcut")
            x = add_block(layers, x, short, filters, strides, stem)
    if include_top:
        x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
        x = predictions(flavor, x, classes, classifier_activation)
    else:
        x = pooled(flavor, x, pooling)
    return close_network(flavor, image, x, name=name or f"resnet{depth}", weights=weights)


def ResNet8(**options: Any) -> Any:
    """`CIFARResNet(8, **options)`: n = 1, the smallest of the family; for quick experiments."""
    return CIFARResNet(8, **options)


def ResNet14(**options: Any) -> Any:
    """`CIFARResNet(14, **options)`: n = 2."""
    return CIFARResNet(14, **options)


def ResNet20(**options: Any) -> Any:
    """`CIFARResNet(20, **options)`: n = 3."""
    return CIFARResNet(20, **options)


def ResNet32(**options: Any) -> Any:
    """`CIFARResNet(32, **options)`: n = 5."""
    return CIFARResNet(32, **options)


def ResNet44(**options: Any) -> Any:
    """`CIFARResNet(44, **options)`: n = 7; a student of the paper's Tables 1-4."""
    return CIFARResNet(44, **options)


def ResNet56(**options: Any) -> Any:
    """`CIFARResNet(56, **options)`: n = 9; a student of the paper's Tables 1-4."""
    return CIFARResNet(56, **options)


def ResNet101(**options: Any) -> Any:
    """`CIFARResNet(101, block="bottleneck", **options)`: our reading of the papers' teacher.

    The Apprentice experiments name a ResNet-101 on CIFAR-10 and do not say how it is built. No net
    of basic blocks has 101 layers: 6n + 2 gives 98 or 104. He et al.'s bottleneck form has
    9n + 2 layers (164 and 1001 in their paper), and 9 * 11 + 2 = 101; their ResNet-101 for ImageNet
    is a bottleneck net, too. So this net has 11 bottlenecks per stage: 101 layers with weights, and
    the projections of the three first blocks. For a basic-block teacher of about that depth use
    `CIFARResNet(98)`, `CIFARResNet(104)` or He et al.'s own `CIFARResNet(110)`.
    """
    return CIFARResNet(101, block="bottleneck", **options)


def _blocks_per_stage(depth: int, block: str) -> int:
    """Returns n of depth = 3 * (layers per block) * n + 2."""
    if block not in _LAYERS_PER_BLOCK:
        raise ValueError(f'`block` must be "basic" or "bottleneck", got {block!r}.')
    if isinstance(depth, bool) or not isinstance(depth, int):
        raise TypeError(f"`depth` must be an integer, got {depth!r}.")
    layers_per_n = len(_FILTERS) * _LAYERS_PER_BLOCK[block]
    blocks, rest = divmod(depth - 2, layers_per_n)
    if blocks < 1 or rest:
        raise ValueError(
            f'`depth` must be {layers_per_n}n + 2 with n >= 1 for block="{block}", got {depth}.'
        )
    return blocks


def _basic_block(layers: Any, x: Any, short: Any, filters: int, strides: int, name: str) -> Any:
    """Returns the output of two 3x3 convolutions beside a shortcut."""
    x = _conv_bn(layers, x, filters, 3, strides, f"{name}_conv1", f"{name}_bn1")
    x = layers.ReLU(name=f"{name}_relu1")(x)
    x = _conv_bn(layers, x, filters, 3, 1, f"{name}_conv2", f"{name}_bn2")
    x = layers.Add(name=f"{name}_add")([short, x])
    return layers.ReLU(name=f"{name}_relu2")(x)


def _bottleneck_block(
    layers: Any, x: Any, short: Any, filters: int, strides: int, name: str
) -> Any:
    """Returns the output of 1x1, 3x3 (strided), 1x1 beside a shortcut."""
    x = _conv_bn(layers, x, filters, 1, 1, f"{name}_conv1", f"{name}_bn1")
    x = layers.ReLU(name=f"{name}_relu1")(x)
    x = _conv_bn(layers, x, filters, 3, strides, f"{name}_conv2", f"{name}_bn2")
    x = layers.ReLU(name=f"{name}_relu2")(x)
    x = _conv_bn(layers, x, _EXPANSION * filters, 1, 1, f"{name}_conv3", f"{name}_bn3")
    x = layers.Add(name=f"{name}_add")([short, x])
    return layers.ReLU(name=f"{name}_relu3")(x)


def _projection(layers: Any, x: Any, out_channels: int, strides: int, name: str) -> Any:
    """Option B: a 1x1 convolution."""
    return _conv_bn(layers, x, out_channels, 1, strides, name, f"{name}_bn")


def _zero_padding(layers: Any, x: Any, out_channels: int, strides: int, name: str) -> Any:
    """Option A: one pixel of each window, and channels of zeros, half of them before its own."""
    missing = out_channels - x.shape[-1]
    zeros = (missing // 2, missing - missing // 2)
    if strides > 1:
        x = layers.MaxPooling2D(1, strides, name=name)(x)
    # Width and channels are the last axes, as height and width are with channels first.
    pad = layers.ZeroPadding2D(((0, 0), zeros), data_format="channels_first", name=f"{name}_zeros")
    return pad(x)


def _conv_bn(
    layers: Any, x: Any, filters: int, kernel_size: int, strides: int, conv: str, bn: str
) -> Any:
    """Returns BatchNormalization(Conv2D(x)); `conv` and `bn` are the layers' names."""
    x = layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=conv,
    )(x)
    # Momentum 0.9 as in He et al.'s training; Keras' 0.99 lags behind in runs of a few epochs.
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=bn)(x)
