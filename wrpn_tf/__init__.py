"""Wide reduced-precision networks for Keras 3 and tf_keras.

Importing the package loads neither TensorFlow nor Keras; a name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from wrpn_tf import registration

if TYPE_CHECKING:  # What editors and type checkers read; `__getattr__` does the same at run time.
    from wrpn_tf import (
        accelerator,
        analysis,
        applications,
        grid,
        quantization,
        regions,
        simulation,
        training,
        widening,
    )
    from wrpn_tf.analysis import plan, report, search, summary
    from wrpn_tf.quantization import (
        apply_regions,
        calibrate,
        calibrate_regions,
        drop_regions,
        quantize_model,
    )
    from wrpn_tf.recipe import widen_and_quantize
    from wrpn_tf.regions import RegionPrecision
    from wrpn_tf.simulation import simulate
    from wrpn_tf.training import Distiller, reestimate_batch_norm
    from wrpn_tf.widening import plan_widths, widen_model

__version__ = "0.1.0"

__all__ = [
    "Distiller",
    "RegionPrecision",
    "accelerator",
    "analysis",
    "applications",
    "apply_regions",
    "calibrate",
    "calibrate_regions",
    "drop_regions",
    "grid",
    "plan",
    "plan_widths",
    "quantization",
    "quantize_model",
    "reestimate_batch_norm",
    "regions",
    "report",
    "search",
    "simulate",
    "simulation",
    "summary",
    "training",
    "widen_and_quantize",
    "widen_model",
    "widening",
]

_DEFINED_IN = {
    "Distiller": "training",
    "RegionPrecision": "regions",
    "apply_regions": "quantization",
    "calibrate": "quantization",
    "calibrate_regions": "quantization",
    "drop_regions": "quantization",
    "plan": "analysis",
    "plan_widths": "widening",
    "quantize_model": "quantization",
    "reestimate_batch_norm": "training",
    "report": "analysis",
    "search": "analysis",
    "simulate": "simulation",
    "summary": "analysis",
    "widen_and_quantize": "recipe",
    "widen_model": "widening",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_DEFINED_IN.get(name, name)}")
    value = getattr(module, name) if name in _DEFINED_IN else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})


registration.announce_classes()
