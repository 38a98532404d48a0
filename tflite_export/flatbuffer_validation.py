"""What an integer model must fulfil for a file to mean the same."""

from __future__ import annotations

import numpy as np

from tflite_export import integer_model as im

# The reference kernel of SOFTMAX ends the process below.
_SMALLEST_LOGIT_SCALE = 2.0**-26
# TFLite's int8 SOFTMAX and LOGISTIC have this output and no other.
_PROBABILITY_GRID = (np.float32(1 / 256), 0, 255)


def check_model(model: im.IntegerModel) -> None:
    """Checks a model's references, grids and the shapes of its kernels.

    Raises:
        ValueError: Naming the tensor or operation that contradicts another.
    """
    for name, tensor in model.tensors.items():
        _check_tensor(name, tensor)
    known = set(model.inputs)
    for operation in model.operations:
        missing = [name for name in operation.inputs if name not in known]
        if missing:
            raise ValueError(f"{operation.name!r} reads {missing} before they are computed.")
        if operation.output in known or operation.output not in model.tensors:
            raise ValueError(
                f"{operation.name!r}: the output {operation.output!r} must be one of the model's "
                "tensors that nothing else computes."
            )
        known.add(operation.output)
        sources = [model.tensors[name] for name in operation.inputs]
        _check_grids(operation, sources, model.tensors[operation.output])
        if isinstance(operation, im.Lookup):
            _check_table(operation, sources[0], model.tensors[operation.output])
        if isinstance(operation, (im.Conv2D, im.FullyConnected)):
            _check_kernel(operation, sources[0], model.tensors[operation.output])
    missing = sorted({*model.inputs, *model.outputs} - (known & model.tensors.keys()))
    if missing or not model.inputs or not model.outputs:
        raise ValueError(f"inputs and outputs must be tensors of the model, missing: {missing}.")


def _check_tensor(name: str, tensor: im.Tensor) -> None:
    if name != tensor.name:
        raise ValueError(f"tensor {tensor.name!r} stands under the name {name!r}.")
    if not tensor.low <= 0 <= tensor.high or not 1 <= tensor.high - tensor.low <= 255:
        raise ValueError(
            f"tensor {name!r} must have low <= 0 <= high and 2..256 levels, got "
            f"{tensor.low}..{tensor.high}."
        )
    if not (np.isfinite(tensor.scale) and tensor.scale > 0):
        raise ValueError(f"tensor {name!r} must have a positive scale, got {tensor.scale}.")


def _check_grids(operation: im.Operation, sources: list[im.Tensor], output: im.Tensor) -> None:
    if isinstance(operation, im.Move):
        for source in sources:
            if source.grid != output.grid:
                raise ValueError(
                    f"{operation.name!r} moves levels, so that {source.name!r} and {output.name!r} "
                    f"must have one grid, got {source.grid} and {output.grid}."
                )
    if isinstance(operation, im.Shift):
        scale, low, high = sources[0].grid
        wanted = (scale, low + operation.amount, high + operation.amount)
        if output.grid != wanted:
            raise ValueError(
                f"{operation.name!r} moves levels by {operation.amount}, so that {output.name!r} "
                f"must have the grid {wanted}, got {output.grid}."
            )
    if isinstance(operation, im.Probabilities) and output.grid != _PROBABILITY_GRID:
        raise ValueError(
            f"{operation.name!r}: {output.name!r} must have the grid {_PROBABILITY_GRID} of "
            f"probabilities, got {output.grid}."
        )
    if isinstance(operation, im.Softmax) and sources[0].scale <= _SMALLEST_LOGIT_SCALE:
        raise ValueError(
            f"{operation.name!r}: the scale of {sources[0].name!r} must exceed "
            f"{_SMALLEST_LOGIT_SCALE:.2g}, as kernels demand of a softmax's input, got "
            f"{sources[0].scale:.2g}. Was the network trained?"
        )


def _check_table(operation: im.Lookup, source: im.Tensor, output: im.Tensor) -> None:
    table, count = operation.table, source.high - source.low + 1
    is_within = output.low <= int(table.min()) and int(table.max()) <= output.high
    if table.shape != (count,) or not is_within:
        raise ValueError(
            f"{operation.name!r}: `table` must have {count} levels in {output.low}..{output.high}, "
            f"got {table.shape} in {table.min()}..{table.max()}."
        )


def _check_kernel(
    operation: im.Conv2D | im.FullyConnected, source: im.Tensor, output: im.Tensor
) -> None:
    kernel = operation.kernel
    shape = kernel.integers.shape
    channels, out = source.shape[-1], output.shape[-1]
    if isinstance(operation, im.FullyConnected):
        fits = shape == (out, channels)
    elif isinstance(operation, im.DepthwiseConv2D):
        fits = len(shape) == 4 and shape[0] == 1 and shape[3] == out and out % channels == 0
    elif isinstance(operation, im.TransposeConv):
        fits = len(shape) == 4 and shape[0] == out and shape[3] == channels
    else:
        fits = len(shape) == 4 and shape[0] == out and channels % shape[3] == 0
        fits = fits and out % (channels // shape[3]) == 0
    if not fits:
        raise ValueError(
            f"{operation.name!r}: the kernel's shape {shape} does not fit {channels} channels in "
            f"and {out} out."
        )
    for field in ("multiplier", "scale", "bias"):
        if getattr(kernel, field).shape != (out,):
            raise ValueError(
                f"{operation.name!r}: `{field}` must have the shape {(out,)}, got "
                f"{getattr(kernel, field).shape}."
            )
    spread, span = kernel.spread, source.high - source.low
    if spread < 1 or spread & (spread - 1) or span * spread > 255:
        raise ValueError(
            f"{operation.name!r}: `spread` must be a power of two that leaves {source.name!r} at "
            f"most 256 levels, got {spread} for {source.low}..{source.high}."
        )
    if not (np.isfinite(kernel.scale).all() and (kernel.scale > 0).all()):
        raise ValueError(f"{operation.name!r}: `scale` must be positive and finite.")
