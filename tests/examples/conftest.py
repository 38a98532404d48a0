"""What the tests of `examples/experiments` share."""

from __future__ import annotations

import pathlib
import sys

import pytest

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"
_FOLDERS = (EXAMPLES / "experiments", EXAMPLES)


@pytest.fixture
def experiment_modules(monkeypatch):
    """The experiments' modules find each other as they do when they run as scripts."""
    for folder in _FOLDERS:
        monkeypatch.syspath_prepend(str(folder))
    yield
    for path in (path for folder in _FOLDERS for path in folder.glob("*.py")):
        sys.modules.pop(path.stem, None)


@pytest.fixture
def runs(experiment_modules):
    """The runs of the experiment on CIFAR-10."""
    import cifar10_config

    return cifar10_config.read(EXAMPLES / "experiments" / "cifar10.yaml")
