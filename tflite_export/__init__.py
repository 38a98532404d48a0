"""Writes quantized models as `.tflite` files: not there yet, this release holds only the name."""

__all__: list[str] = []
