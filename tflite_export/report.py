"""What a verification found: layer by layer, source by source, and a verdict."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tflite_export.proof import OperationProof
from tflite_export.report_table import table_lines
from tflite_export.verification_findings import KERAS, Agreement, Comparison, LayerComparison


@dataclasses.dataclass(frozen=True)
class VerificationReport:
    """What `verify` found.

    Attributes:
        num_images: How many images were run.
        sources: What was compared with the accelerator, in the order of the columns: `"Keras"`,
            our formulas (`"formula ref"`, ...), interpreters (`"tf.lite xnn"`, ...).
        file_differences: Where the file is not what the model gives; empty if nowhere.
        proofs: Of every operation, without data.
        layers: In the network's order.
        missing: Tensors that a source should have made and did not, as "source: tensor".
        top1: Source -> agreement, over all outputs.
        probabilities: Of a softmax or sigmoid at the end, against the first runtime's. Each kernel
            has its own table of exponentials, so these are no part of `exact`: the logits are.
        not_run: Runtime -> why it does not run this file.
    """

    num_images: int
    sources: tuple[str, ...]
    file_differences: tuple[str, ...]
    proofs: tuple[OperationProof, ...]
    layers: tuple[LayerComparison, ...]
    missing: tuple[str, ...]
    top1: Mapping[str, Agreement]
    probabilities: Mapping[str, Comparison]
    not_run: Mapping[str, str]

    @property
    def exact(self) -> bool:
        """Whether all that computes in integers gives the accelerator's levels, and provably so.

        The file is the model's, each operation is proved, no tensor is missing, and no level
        differs at any layer, logits included. Keras, which computes in float32, has `keras_exact`.
        """
        return (
            bool(self.num_images and self.layers)
            and not self.file_differences
            and all(proof.holds for proof in self.proofs)
            and not self.missing
            and self.first_difference is None
        )

    @property
    def keras_exact(self) -> bool:
        """Whether Keras' levels are the accelerator's at every layer."""
        return not any(
            layer.sources[KERAS].differing for layer in self.layers if KERAS in layer.sources
        )

    @property
    def first_difference(self) -> tuple[str, str] | None:
        """The first layer at which an integer source differs, and that source; None if none."""
        for layer in self.layers:
            for source, comparison in layer.sources.items():
                if source != KERAS and comparison.differing:
                    return layer.name, source
        return None

    def __str__(self) -> str:
        return "\n".join(table_lines(self))

    def to_dict(self) -> dict[str, Any]:
        """Returns everything, the verdicts included, in types that JSON has."""
        result = dataclasses.asdict(self)
        result.update(exact=self.exact, keras_exact=self.keras_exact)
        first = self.first_difference
        result["first_difference"] = None if first is None else list(first)
        plain: dict[str, Any] = _plain(result)
        return plain


def _plain(value: Any) -> Any:
    """The same in dictionaries, lists and what else JSON has."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(entry) for entry in value]
    return value.item() if isinstance(value, np.generic) else value
