"""In which Keras the tests build each network of `keras.applications`."""

from __future__ import annotations

from collections.abc import Iterable

# Large graphs, whose layers are of kinds that others have too. In tf_keras, where tfmot builds each
# layer several times, quantizing one took 20 to 80 seconds, widening all of them another 80.
KERAS_ONLY = ("DenseNet121", "InceptionResNetV2", "InceptionV3", "NASNetMobile")


def pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """Returns (Keras, network): every network in Keras 3, all but the largest in tf_keras too."""
    names = list(names)
    return [("keras", name) for name in names] + [
        ("tf_keras", name) for name in names if name not in KERAS_ONLY
    ]
