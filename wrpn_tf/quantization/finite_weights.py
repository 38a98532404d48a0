"""A model whose training has diverged is refused where its weights are read."""

from __future__ import annotations

from typing import Any

import numpy as np

from wrpn_tf.model_graph import ModelGraph

_LISTED = 5  # layers that the message names


def check_finite_weights(graph: ModelGraph) -> None:
    """Checks that no weight of a model is NaN or infinite.

    Raises:
        ValueError: If one is; names the layers.
    """
    paths = [path for path, layer in graph.layers().items() if not _is_finite(layer)]
    if paths:
        more = f" and {len(paths) - _LISTED} more" if len(paths) > _LISTED else ""
        raise ValueError(
            f"`model` must have finite weights, got NaN or infinity in {len(paths)} of "
            f"{len(graph.layers())} layers: {', '.join(paths[:_LISTED])}{more}. Training that "
            "diverges leaves such: train again with a smaller learning rate."
        )


def _is_finite(layer: Any) -> bool:
    # An operation of Keras 3, as of `x + y`, is no layer; a layer that looks words up holds these.
    values = layer.get_weights() if hasattr(layer, "get_weights") else ()
    numeric = (value for value in values if np.issubdtype(np.asarray(value).dtype, np.number))
    return all(np.isfinite(value).all() for value in numeric)
