"""A small network trained on scikit-learn's digits, quantized in several ways."""

from __future__ import annotations

import numpy as np


def load_digits():
    """Images in [0, 1], float32 [images, 8, 8, 1], and labels."""
    from sklearn import datasets

    images, labels = datasets.load_digits(return_X_y=True)
    return (images / 16).reshape(-1, 8, 8, 1).astype(np.float32), labels.astype(np.int32)


def build(flavor, seed=0):
    """A stem, a residual block, a depthwise separable block, pools and a head."""
    flavor.keras.utils.set_random_seed(seed)
    L = flavor.layers

    def norm(x, name, relu=True):
        x = L.BatchNormalization(momentum=0.9, name=f"{name}_norm")(x)
        return L.ReLU(name=f"{name}_relu")(x) if relu else x

    image = x = flavor.keras.Input((8, 8, 1), name="image")
    x = norm(L.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(x), "stem")
    short = x
    x = norm(L.Conv2D(8, 3, padding="same", use_bias=False, name="conv1")(x), "conv1")
    x = norm(L.Conv2D(8, 3, padding="same", use_bias=False, name="conv2")(x), "conv2", relu=False)
    x = L.ReLU(name="sum_relu")(L.Add(name="sum")([x, short]))
    x = L.MaxPooling2D(name="max_pool")(x)
    x = norm(L.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x), "depthwise")
    x = norm(L.Conv2D(16, 1, use_bias=False, name="pointwise")(x), "pointwise")
    x = L.GlobalAveragePooling2D(name="mean")(x)
    return flavor.keras.Model(image, L.Dense(10, name="logits")(x), name="digits")


def train(model, flavor, images, labels, epochs, learning_rate, batch_size=50):
    """Trains with a learning rate that a cosine takes to 0, so that batch norm settles."""
    num_steps = epochs * -(-len(images) // batch_size)
    schedule = flavor.keras.optimizers.schedules.CosineDecay(learning_rate, num_steps)
    loss = flavor.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    options = {} if flavor.name == "tf_keras" else {"jit_compile": False}
    model.compile(flavor.keras.optimizers.Adam(schedule), loss, **options)
    model.fit(images, labels, batch_size=batch_size, epochs=epochs, verbose=0)
