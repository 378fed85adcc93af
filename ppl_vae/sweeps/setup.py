"""What the runs of a sweep have in common, and what one of them is made of: the same as in a single fit."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.data import Dataset
from ppl_vae.plugins import Backend
from ppl_vae.training.fit import prepare_engine
from ppl_vae.training.loss_options import resolve_base, resolve_loss_options
from ppl_vae.training.prepared import Prepared, prepare
from ppl_vae.training.programs import Loss, Program, build_loss, build_program, make_engine
from ppl_vae.training.records import check_files, run_record
from ppl_vae.training.settings import FitSettings, beta_by_site

__all__ = ["Asked", "Ready"]


@dataclass(frozen=True)
class Ready:
    """A run that is checked, and has not begun.

    Attributes:
        program: The built model and guide.
        loss: The loss.
        data: The data in the splits of the run's seed.
        settings: Settings with the run's seed.
        engine: Prepared for the first step.
    """

    program: Program
    loss: Loss
    data: Prepared
    settings: FitSettings
    engine: Any

    def record(self, betas: Mapping[str, float]) -> dict[str, Any]:
        """What the run records when it begins.

        Args:
            betas: Final beta of each site.
        """
        return run_record(self.program, self.loss, self.data, self.settings, betas, self.engine)

    def schedules(self, betas: Mapping[str, float]) -> dict[str, NDArray[np.float64]]:
        """Beta of every step by site, and weights of terms with a warm-up; see ``FitSettings.betas``.

        Args:
            betas: Final beta of each site.
        """
        terms = self.loss.object.objective.term_weights
        return self.settings.betas(betas, len(self.data.splits.train), terms)


@dataclass(frozen=True)
class Asked:
    """What was asked for, for every run alike.

    Attributes:
        program: Name of a variant, or path of a model file.
        dataset: The data set.
        backend: The backend, or None for the file's.
        loss: Name or path of a loss, or None for the variant's.
        base_loss: Loss that a wrapping loss wraps.
        loss_options: Options of ``build_loss``.
        settings: Settings of the fits; their seed is that of the first.
        options: Options of the variant's ``build``.
        base_options: Options of the base loss's ``build_loss``.
    """

    program: str
    dataset: Dataset
    backend: Backend | None
    loss: str | None
    base_loss: str | None
    loss_options: Mapping[str, Any]
    settings: FitSettings
    options: Mapping[str, Any]
    base_options: Mapping[str, Any] = field(default_factory=dict)

    def ready(self, seed: int) -> Ready:
        """Make what a single fit of that seed would begin with.

        Args:
            seed: Seed of weights, noise, order and splits.

        Raises:
            InputError: As of ``fit``.
        """
        settings, shape = replace(self.settings, seed=seed), self.dataset.data_shape
        condition = self.dataset.condition_shape
        program = build_program(
            *(self.program, shape),
            backend=self.backend,
            options=self.options,
            seed=seed,
            condition_shape=condition,
        )
        data = prepare(self.dataset, settings, program.options)
        name = self.loss or program.default_loss
        loss = build_loss(
            name,
            program.backend,
            resolve_loss_options(name, program.backend, self.loss_options, data),
            base=resolve_base(self.base_loss, program.backend, self.base_options, data),
            data_plate=program.data_plate,
            binarise=settings.binarise,
        )
        engine = make_engine(program, shape, seed=seed, device=settings.device)
        prepare_engine(engine, program, loss, data, settings, beta_by_site(1.0, engine.latents))
        check_files(program, loss)
        return Ready(program, loss, data, settings, engine)
