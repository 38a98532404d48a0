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


def inception_resnet_v2(blocks: tuple[int, int, int]) -> keras.Model:
    """Returns Inception-ResNet-v2 as its paper has it; `keras.applications` has TF-slim's form.

    Where the paper's figures disagree on a width, it is that of the concatenation: 1152 for the
    second kind of block, 2144 for the third.

    Args:
        blocks: Blocks of each kind: (5, 10, 5) in the paper, (1, 1, 1) for each kind once.

    Source: Szegedy et al., arXiv 1602.07261, Figures 3, 7, 10 and 15-18.
    """
    image = keras.Input((299, 299, 3))
    join = keras.layers.Concatenate()
    x = _tower(image, (32, 3, 2, "valid"), (32, 3, 1, "valid"), (64, 3))
    x = join([_pool(x), _tower(x, (96, 3, 2, "valid"))])
    first = _tower(x, (64, 1), (96, 3, 1, "valid"))
    second = _tower(x, (64, 1), (64, (7, 1)), (64, (1, 7)), (96, 3, 1, "valid"))
    x = join([first, second])
    x = join([_tower(x, (192, 3, 2, "valid")), _pool(x)])
    for _ in range(blocks[0]):
        towers = ((32, 1),), ((32, 1), (32, 3)), ((32, 1), (48, 3), (64, 3))
        x = _inception_block(x, towers, 384)
    x = join(
        [
            _pool(x),
            _tower(x, (384, 3, 2, "valid")),
            _tower(x, (256, 1), (256, 3), (384, 3, 2, "valid")),
        ]
    )
    for _ in range(blocks[1]):
        x = _inception_block(x, (((192, 1),), ((128, 1), (160, (1, 7)), (192, (7, 1)))), 1152)
    x = join(
        [
            _pool(x),
            _tower(x, (256, 1), (384, 3, 2, "valid")),
            _tower(x, (256, 1), (288, 3, 2, "valid")),
            _tower(x, (256, 1), (288, 3), (320, 3, 2, "valid")),
        ]
    )
    for _ in range(blocks[2]):
        x = _inception_block(x, (((192, 1),), ((192, 1), (224, (1, 3)), (256, (3, 1)))), 2144)
    return _classified(image, x, "inception_resnet_v2")


def _inception_block(x: Any, towers: Any, filters: int) -> Any:
    joined = keras.layers.Concatenate()([_tower(x, *tower) for tower in towers])
    return keras.layers.Add()([x, _tower(joined, (filters, 1))])


def _tower(x: Any, *convolutions: Any) -> Any:
    """Returns convolutions (filters, kernel size, strides, padding) one after the other."""
    for filters, kernel_size, *rest in convolutions:
        strides, padding = rest or (1, "same")
        x = _conv(x, filters, kernel_size, None, strides, padding)
    return x


def _pool(x: Any) -> Any:
    return keras.layers.MaxPooling2D(3, 2)(x)


def _classified(image: Any, x: Any, name: str) -> keras.Model:
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(_CLASSES, name="predictions")(x), name=name)


def _conv(
    x: Any,
    filters: int,
    kernel_size: int | tuple[int, int],
    name: str | None,
    strides: int = 1,
    padding: str = "same",
) -> Any:
    # Zeros: nothing is computed with the weights.
    return keras.layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding=padding,
        use_bias=False,
        kernel_initializer="zeros",
        name=name,
    )(x)
