"""The activations that are alive at the same time in inference: what a runtime's arena must hold.

WRPN's formula counts two maps, what a layer reads and what it makes. A shortcut around that layer,
or other branches, are alive as well, and here they count.
"""

from __future__ import annotations

from wrpn_tf.analysis.memory import Tensors, check_known
from wrpn_tf.analysis.model_summary import check_batch_size
from wrpn_tf.analysis.profile import ModelProfile


def peak_activation_bytes(profile: ModelProfile, *, batch_size: int = 1) -> int:
    """Returns the bytes of the tensors alive at once, at most, in inference, layer after layer.

    A tensor lives from the layer that makes it to the last that reads it; inputs and outputs of the
    model live throughout, as in TFLite. Layers that keep the number of values and are the only
    readers (normalizations, activations, reshapes) work in place. A tensor takes the bits at which
    it is stored, densely packed: below 8 bits, less than in runtimes that give each value a byte.
    Scratch memory of kernels is not in it.

    Args:
        profile: A model's profile, of any bits.
        batch_size: Examples per batch.

    Raises:
        TypeError: If `profile` is no `ModelProfile` or `batch_size` no integer.
        ValueError: If `batch_size` is below 1, a size is unknown, or a layer with weights is not
            understood.
    """
    check_batch_size(batch_size)
    check_known(profile)
    tensors = Tensors(profile)
    steps = len(profile.layers)
    sizes: dict[int, int] = {}
    lives: dict[int, tuple[int, int]] = {}  # step that makes it, last step that reads it
    stored_in: dict[int, int] = {}  # tensor -> the one whose memory it takes over
    for key, shape in profile.inputs.items():
        sizes[key] = tensors.feature_map("", key, shape).num_bytes(batch_size)
        stored_in[key], lives[key] = key, (0, steps)
    for step, layer in enumerate(profile.layers):
        for key in layer.inputs:
            owner = stored_in[key]
            lives[owner] = (lives[owner][0], max(step, lives[owner][1]))
        in_place = tensors.is_in_place(layer)
        for key, shape in zip(layer.outputs, layer.output_shapes, strict=True):
            if in_place:
                stored_in[key] = stored_in[layer.inputs[0]]
            else:
                sizes[key] = tensors.feature_map(layer.path, key, shape).num_bytes(batch_size)
                stored_in[key], lives[key] = key, (step, step)
    for key in profile.outputs:
        owner = stored_in[key]
        lives[owner] = (lives[owner][0], steps)
    return max(
        sum(sizes[key] for key, (made, last) in lives.items() if made <= step <= last)
        for step in range(max(steps, 1))
    )
