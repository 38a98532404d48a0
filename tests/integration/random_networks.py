"""Random small networks of the layers that the exporter takes, as Hypothesis draws them."""

from __future__ import annotations

from hypothesis import strategies as st

FUNCTIONS = ("sigmoid", "tanh", "swish", "elu", "softplus")
PADDINGS = st.sampled_from(("same", "valid"))
FILTERS = st.sampled_from((3, 4, 6))


def _activation(draw, L, x):
    kind = draw(st.sampled_from(("none", "relu", "relu", "leaky", "prelu", *FUNCTIONS)))
    if kind == "none":
        return x
    if kind == "relu":
        return L.ReLU()(x)
    if kind == "prelu":
        axes = draw(st.sampled_from(([1, 2], [1, 2, 3]))) if len(x.shape) > 2 else None
        return L.PReLU(alpha_initializer="random_normal", shared_axes=axes)(x)
    return L.LeakyReLU(0.1)(x) if kind == "leaky" else L.Activation(kind)(x)


def _norm(draw, L, x):
    return L.BatchNormalization()(x) if draw(st.booleans()) else x


def _conv(draw, L, x, earlier):
    size = draw(st.tuples(*[st.sampled_from((1, 2, 3))] * 2))
    padding = draw(PADDINGS) if min(x.shape[1:3]) >= max(size) else "same"
    strides, dilation = draw(st.sampled_from(((1, 1), (2, 1), (3, 1), (1, 2))))
    if dilation > 1:
        padding = "same"
    conv = L.Conv2D(
        draw(FILTERS),
        size,
        strides=strides,
        dilation_rate=dilation,
        padding=padding,
        use_bias=draw(st.booleans()),
    )
    return _activation(draw, L, _norm(draw, L, conv(x)))


def _depthwise(draw, L, x, earlier):
    layer = L.DepthwiseConv2D(
        draw(st.sampled_from((2, 3))),
        strides=draw(st.sampled_from((1, 1, 3))),
        padding="same",
        depth_multiplier=draw(st.integers(1, 2)),
        use_bias=draw(st.booleans()),
    )
    return _activation(draw, L, _norm(draw, L, layer(x)))


def _separable(draw, L, x, earlier):
    layer = L.SeparableConv2D(draw(FILTERS), 3, padding="same", use_bias=draw(st.booleans()))
    return _activation(draw, L, _norm(draw, L, layer(x)))


def _transposed(draw, L, x, earlier):
    if max(x.shape[1:3]) > 8:
        return x
    size = draw(st.sampled_from((2, 3)))
    layer = L.Conv2DTranspose(draw(FILTERS), size, strides=2, padding=draw(PADDINGS))
    return _activation(draw, L, _norm(draw, L, layer(x)))


def _merge(draw, L, x, earlier):
    branch = _norm(draw, L, L.Conv2D(x.shape[-1], 1, use_bias=draw(st.booleans()))(x))
    fitting = st.sampled_from([tensor for tensor in earlier if tensor.shape == x.shape])
    kind = draw(st.sampled_from((L.Add, L.Add, L.Average, L.Subtract, L.Maximum, L.Minimum)))
    others = draw(st.lists(fitting, min_size=1, max_size=1 if kind is L.Subtract else 2))
    return _activation(draw, L, kind()([branch, *others]))


def _concatenate(draw, L, x, earlier):
    branch = L.Conv2D(draw(FILTERS), 1, activation=draw(st.sampled_from((None, "relu", "relu6"))))(
        x
    )
    fitting = [tensor for tensor in earlier if tensor.shape[1:3] == x.shape[1:3]]
    joined = L.Concatenate()([branch, draw(st.sampled_from(fitting))])
    return _activation(draw, L, _norm(draw, L, joined))


def _gate(draw, L, x, earlier):
    mean = L.GlobalAveragePooling2D(keepdims=True)(x)
    activation = draw(st.sampled_from(("sigmoid", "hard_sigmoid", "linear")))
    return L.Multiply()([x, L.Conv2D(x.shape[-1], 1, activation=activation)(mean)])


def _pool(draw, L, x, earlier):
    size = draw(st.sampled_from((2, 3)))
    padding = draw(PADDINGS) if min(x.shape[1:3]) >= size else "same"
    pool = draw(st.sampled_from((L.MaxPooling2D, L.AveragePooling2D)))
    return pool(size, strides=draw(st.integers(1, 2)), padding=padding)(x)


def _resize(draw, L, x, earlier):
    if max(x.shape[1:3]) > 8:
        return L.Cropping2D(1)(x)
    return L.UpSampling2D(2, interpolation=draw(st.sampled_from(("nearest", "bilinear"))))(x)


def _pad(draw, L, x, earlier):
    return L.ZeroPadding2D(draw(st.sampled_from((1, ((0, 1), (2, 0))))))(x)


def _zero_shortcut(draw, L, x, earlier):
    """Fewer pixels and more channels, beside a shortcut of every other pixel and zeros."""
    zeros = draw(st.sampled_from(((1, 2), (0, 1))))
    y = L.Conv2D(x.shape[-1] + sum(zeros), 3, strides=2, padding="same")(x)
    pad = L.ZeroPadding2D(((0, 0), zeros), data_format="channels_first")
    return _activation(draw, L, L.Add()([_norm(draw, L, y), pad(x[:, ::2, ::2])]))


def _shuffle(draw, L, x, earlier):
    """Cuts channels in two, computes with one part, and mixes them, as ShuffleNet does."""
    if x.shape[-1] == 1:
        return x
    cut = draw(st.integers(1, x.shape[-1] - 1))
    changed = L.Conv2D(x.shape[-1] - cut, 1, activation=draw(st.sampled_from((None, "relu"))))
    joined = L.Concatenate()([x[..., :cut], changed(x[..., cut:])])
    height, width, channels = x.shape[1:]
    groups = draw(st.sampled_from([n for n in (1, 2, 3) if channels % n == 0]))
    x = L.Reshape((height, width, groups, channels // groups))(joined)
    return L.Reshape((height, width, channels))(L.Permute((1, 2, 4, 3))(x))


_BLOCKS = (
    _conv,
    _depthwise,
    _separable,
    _shuffle,
    _zero_shortcut,
    _transposed,
    _merge,
    _concatenate,
    _gate,
    _pool,
    _resize,
    _pad,
)


def random_network(draw, flavor):
    """A float network of one to six blocks, some of which read what stands before the last one.

    Not a strategy: these may not touch the random state that Keras initialises weights from.
    """
    L = flavor.layers
    flavor.keras.utils.set_random_seed(draw(st.integers(0, 999)))
    size = st.sampled_from((5, 8, 9))
    inputs = x = flavor.keras.Input((draw(size), draw(size), draw(st.sampled_from((1, 3, 4)))))
    earlier = []
    for block in draw(st.lists(st.sampled_from(_BLOCKS), min_size=1, max_size=6)):
        earlier.append(x)
        x = block(draw, L, x, earlier)
    pool = draw(st.sampled_from((L.Flatten, L.GlobalAveragePooling2D, L.GlobalMaxPooling2D)))
    activation = draw(st.sampled_from((None, "softmax", "sigmoid")))
    return flavor.keras.Model(inputs, L.Dense(4, activation=activation)(pool()(x)))
