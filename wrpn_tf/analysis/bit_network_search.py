"""The search in one network: what each option costs, what it does, and which are the best."""

from __future__ import annotations

import itertools
import pathlib
from typing import Any

import numpy as np

from wrpn_tf.analysis.bit_budget import allocate, least_price, total_price, within
from wrpn_tf.analysis.bit_prices import prices
from wrpn_tf.analysis.bit_search_result import Candidate, Sensitivity
from wrpn_tf.analysis.bit_search_settings import SearchSettings
from wrpn_tf.analysis.bit_sensitivity import Prober, single_changes
from wrpn_tf.analysis.bit_space import BitSpace
from wrpn_tf.analysis.profile import ModelProfile

# For each knob, the position of its bits among those to choose from.
_Options = tuple[int, ...]


class NetworkSearch:
    """The search in a network of one width.

    Attributes:
        space: The network's knobs.
        width: Its width multiplier.

    Args:
        model: The float network.
        width: Its width multiplier.
        settings: What is searched.
        baseline: The float network that cost is relative to.
        data: As in `search`.

    Raises:
        TypeError, ValueError: As `search`, but for the budget.
    """

    def __init__(
        self, model: Any, width: float, settings: SearchSettings, baseline: ModelProfile, data: Any
    ) -> None:
        self.width = width
        self._settings = settings
        self.space = BitSpace(
            model,
            num_bits_weight=settings.bits_by_kind["weight"],
            num_bits_activation=settings.bits_by_kind["activation"],
            search_ends=settings.search_ends,
            weight_scale=settings.weight_scale,
        )
        self._price = prices(
            self.space,
            settings.quantity,
            cost_model=settings.cost_model,
            array=settings.array,
            baseline=baseline,
        )
        self._prober = Prober(
            self.space,
            data,
            measure=settings.measure,
            batch_size=settings.batch_size,
            checkpoint=self._checkpoint(),
            verbose=settings.verbose,
        )

    @property
    def least(self) -> float:
        """The least that the network can cost."""
        errors = [np.zeros(len(knob.bits)) for knob in self.space.knobs]
        return least_price(errors, self._price.terms) / self._price.unit

    @property
    def num_examples(self) -> int:
        """How many examples the data has."""
        return self._prober.num_examples

    def float_error(self) -> float:
        """Measures the float network."""
        return self._prober.errors([{}])[0]

    def sensitivities(self) -> tuple[Sensitivity, ...]:
        """Measures each option of each knob, alone."""
        changes = single_changes(self.space.knobs)
        float_error, *errors = self._prober.errors([{}, *changes])
        return tuple(
            Sensitivity(knob.kind, knob.path, bits, error - float_error)
            for change, error in zip(changes, errors, strict=True)
            for knob, bits in change.items()
        )

    def candidates(
        self, sensitivities: tuple[Sensitivity, ...], reference: float
    ) -> list[Candidate]:
        """Measures the choice of the least sum of errors, and uniform bits, as a whole.

        Args:
            sensitivities: Of this network.
            reference: The error that candidates' errors are above.
        """
        alone = {(row.kind, row.path, row.num_bits): row.error for row in sensitivities}
        tables = [
            np.array([alone.get((knob.kind, knob.path, bits), 0.0) for bits in knob.bits])
            for knob in self.space.knobs
        ]
        budget = self._settings.limit * self._price.unit
        tried = {"layer by layer": allocate(tables, self._price.terms, budget), **self._uniform()}
        bits = {name: self._bits(options) for name, options in tried.items()}
        assignments = [dict(zip(self.space.knobs, x, strict=True)) for x in bits.values()]
        float_error, *errors = self._prober.errors([{}, *assignments])
        return [
            Candidate(
                name=name,
                width_multiplier=self.width,
                bits=bits[name],
                price=total_price(self._price.terms, options) / self._price.unit,
                predicted=float_error
                - reference
                + sum(float(table[i]) for table, i in zip(tables, options, strict=True)),
                error=error - reference,
            )
            for (name, options), error in zip(tried.items(), errors, strict=True)
        ]

    def _bits(self, options: _Options) -> tuple[int, ...]:
        return tuple(knob.bits[i] for knob, i in zip(self.space.knobs, options, strict=True))

    def _uniform(self) -> dict[str, _Options]:
        """Uniform bits in the budget, unless others have no fewer bits of both kinds; by name."""
        choices = (reversed(bits) for bits in self._settings.bits_by_kind.values())
        budget = self._settings.limit * self._price.unit
        found: list[tuple[int, int]] = []
        named = {}
        for weight, activation in itertools.product(*choices):
            asked = {"weight": weight, "activation": activation}
            options = tuple(
                knob.bits.index(asked[knob.kind]) if len(knob.bits) > 1 else 0
                for knob in self.space.knobs
            )
            is_covered = any(w >= weight and a >= activation for w, a in found)
            if not is_covered and within(total_price(self._price.terms, options), budget):
                found.append((weight, activation))
                named[f"uniform {weight}b/{activation}b"] = options
        return named

    def _checkpoint(self) -> pathlib.Path | None:
        """Each width has a file of its own."""
        if self._settings.checkpoint is None:
            return None
        path = pathlib.Path(self._settings.checkpoint)
        return path if self.width == 1 else path.with_name(f"{path.name}.{self.width:g}x")
