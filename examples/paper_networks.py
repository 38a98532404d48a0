"""Networks of the papers' tables that are in neither `wrpn_tf` nor `keras.applications`.

They are there to be counted: batch normalizations and ReLUs are left out, for they have no
multiply-accumulates and no feature maps of their own.
"""

from __future__ import annotations

from typing import Any

import keras

_IMAGE = (224, 224, 3)
_CLASSES = 1000


def bottleneck_resnet(name: str, blocks: tuple[int, int, int, int]) -> keras.Model:
    """Returns the ImageNet ResNet of bottlenecks, strided in the 3x3 convolution.

    `keras.applications` strides in the 1x1 before it, as the first ResNet paper does; WRPN's
    Figure 1 fits only this form.

    Args:
        name: The model's name.
        blocks: Bottlenecks per stage: (3, 4, 6, 3) for ResNet-50, (3, 4, 23, 3) for ResNet-101.
    """
    image = keras.Input(_IMAGE)
    x = _conv(image, 64, 7, "stem", strides=2)
    x = keras.layers.MaxPooling2D(3, 2, padding="same")(x)
    for stage, count in enumerate(blocks):
        filters = 64 * 2**stage
        for block in range(count):
            strides = 2 if stage and not block else 1
            shortcut = x
            name_ = f"stage{stage + 1}_block{block}"
            if not block:
                shortcut = _conv(x, 4 * filters, 1, f"{name_}_shortcut", strides=strides)
            x = _conv(x, filters, 1, f"{name_}_conv1")
            x = _conv(x, filters, 3, f"{name_}_conv2", strides=strides)
            x = _conv(x, 4 * filters, 1, f"{name_}_conv3")
            x = keras.layers.Add()([shortcut, x])
    return _classified(image, x, name)


def projected_resnet34() -> keras.Model:
    """Returns the pre-activation ResNet-34 with a 1x1 convolution beside its first block as well.

    WRPN's costs of the wide ResNet-34 need it: there, the first convolution keeps its 64 filters
    and the first stage has more, which the usual identity beside the first block cannot join.
    """
    image = keras.Input(_IMAGE)
    x = _conv(image, 64, 7, "stem_conv", strides=2)
    x = keras.layers.MaxPooling2D(3, 2, padding="same")(x)
    for stage, (filters, count) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for block in range(count):
            strides = 2 if stage and not block else 1
            name = f"stage{stage + 1}_block{block}"
            shortcut = x
            if not block:
                shortcut = _conv(x, filters, 1, f"{name}_shortcut", strides=strides)
            x = _conv(x, filters, 3, f"{name}_conv1", strides=strides)
            x = _conv(x, filters, 3, f"{name}_conv2")
            x = keras.layers.Add()([shortcut, x])
    return _classified(image, x, "projected_resnet34")


def _classified(image: Any, x: Any, name: str) -> keras.Model:
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(_CLASSES, name="predictions")(x), name=name)


def _conv(x: Any, filters: int, kernel_size: int, name: str, strides: int = 1) -> Any:
    # Zeros: nothing is computed with the weights.
    return keras.layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding="same",
        use_bias=False,
        kernel_initializer="zeros",
        name=name,
    )(x)
