"""Package metadata; tool settings are in `pyproject.toml`."""

import pathlib
import re

from setuptools import find_packages, setup

_HERE = pathlib.Path(__file__).resolve().parent
_VERSION = re.search(
    r'^__version__ = "([^"]+)"$', (_HERE / "wrpn_tf" / "__init__.py").read_text(), re.MULTILINE
)[1]

# LiteRT, the runtime's new home: a second set of kernels for `tflite_export.verify`.
_LITERT = "ai-edge-litert>=2.0"

_EXTRAS = {
    "examples": ["absl-py", "matplotlib", "pyyaml", "scikit-image", "scikit-learn"],
    "litert": [_LITERT],
    "plots": ["matplotlib"],
    "lint": ["mypy", "ruff"],
    "tensorboard": ["tensorboard"],
    "test": [
        "absl-py",
        _LITERT,
        "hypothesis",
        "matplotlib",
        "pytest>=8",
        "pytest-xdist",
        "pyyaml",
        "scikit-image",
        "scikit-learn",
        "scipy",
        "tensorboard",
    ],
}
_EXTRAS["dev"] = sorted({requirement for extra in _EXTRAS.values() for requirement in extra})

setup(
    name="wrpn_tf",
    version=_VERSION,
    description=(
        "Wide reduced-precision networks for TensorFlow and Keras: "
        "widen, quantize, distil, export to TFLite, and prove what the file computes."
    ),
    long_description=(_HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=find_packages(include=["wrpn_tf", "wrpn_tf.*", "tflite_export", "tflite_export.*"]),
    package_data={"wrpn_tf": ["py.typed"], "tflite_export": ["py.typed"]},
    python_requires=">=3.10",
    install_requires=[
        "flatbuffers>=23.5",
        "h5py>=3.10",
        "keras>=3.0",
        "numpy>=1.26",
        # tfmot imports distutils, which Python 3.12 dropped and setuptools supplies.
        "setuptools; python_version >= '3.12'",
        "tensorflow-model-optimization>=0.8.0",
        "tensorflow>=2.16,<2.22",
        "tf_keras>=2.16,<2.22",
        "wrapt>=1.11",
    ],
    extras_require=_EXTRAS,
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
