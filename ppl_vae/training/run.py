"""A fitted run: its numbers, and the model to use it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.data import Conditioned, Dataset, condition_of, load
from ppl_vae.data.checks import check_seed
from ppl_vae.errors import InputError
from ppl_vae.files import write_atomically
from ppl_vae.likelihoods.support import LIKELIHOODS, REAL_VALUED, check_support
from ppl_vae.plugins import Backend
from ppl_vae.training.engine import Device, Engine, Prior, chunks, conditions_for
from ppl_vae.training.entropy_option import entropy_in_nats
from ppl_vae.training.prepared import Prepared, evenly_spaced
from ppl_vae.training.programs import Program, make_engine
from ppl_vae.training.reopen import FINAL, open_folder, prepare_from_record, rebuild_program
from ppl_vae.training.run_folder import RunFolder

__all__ = ["Run"]


class Run:
    """A fitted model in its run folder; ``fit`` returns one, ``Run.open`` reads one.

    Data for a conditional model are ``data.Conditioned(x, condition)``.

    Args:
        folder: The run folder.
        program: The built model and guide.
        engine: Holds the fitted parameters.
        data: The data set, or None until ``prepared`` loads it by its recorded source.
    """

    def __init__(self, folder: RunFolder, program: Program, engine: Engine, data: Prepared | None = None) -> None:
        self.folder, self.program, self.engine = folder, program, engine
        self._data = data

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        backend: Backend | None = None,
        device: Device = "auto",
        program: Any = None,
        data: Any = None,
    ) -> "Run":
        """Open a finished run, in either backend.

        Args:
            path: The run folder.
            backend: Backend to use the run in, or None for the one it was made in.
            device: Where to run.
            program: The model object, for a run that was made from an object.
            data: The data, for a run that was made from an array.

        Raises:
            InputError: The folder is no finished run, or its model file was changed.
        """
        folder = open_folder(path)
        record = folder.record
        if record["status"] == "finished" and FINAL not in folder.checkpoints():
            raise InputError(
                f"{path}/checkpoint-{FINAL}.safetensors must hold the weights of the run, but it does not exist; "
                "restore it, or fit the run again"
            )
        if FINAL not in folder.checkpoints() or "result" not in record:
            raise InputError(
                f"run must be finished, but {path} is {record.get('status', 'of unknown status')}; "
                f"continue it by `ppl-vae resume {path}`"
            )
        shape = tuple(record["data"]["data_shape"])
        built = rebuild_program(folder, backend=backend, program=program)
        engine = make_engine(built, shape, seed=record["settings"]["seed"], device=device)
        engine.load_parameters(folder.read_checkpoint(FINAL)[0])
        return cls(folder, built, engine, None if data is None else prepare_from_record(folder, data))

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.folder.path

    @property
    def record(self) -> dict[str, Any]:
        """What ``run.json`` says: model, loss, data, settings, versions, result."""
        return self.folder.record

    @property
    def metrics(self) -> dict[str, Any]:
        """The result by quantity and split, such as ``metrics["elbo"]["test"]``, in nats per datum."""
        return self.record["result"]

    def history(self) -> Iterator[dict[str, Any]]:
        """Records of the training, one for each block of steps."""
        return self.folder.read_metrics()

    @property
    def data(self) -> Prepared:
        """The data as they were fitted; loaded from the recorded source on first use."""
        if self._data is None:
            self._data = prepare_from_record(self.folder)
        return self._data

    @property
    def default_condition(self) -> NDArray[Any] | None:
        """What draws are given where nothing else is said: the conditions of the test data, or None."""
        return None if self.engine.condition_shape is None else condition_of(self.data.split("test"))

    def encode(self, x: Any) -> dict[str, NDArray[Any]]:
        """Posterior means by latent site.

        Args:
            x: Data, (n, *data_shape).

        Returns:
            By site an array (n, *event); sites below others are given those at their means.
        """
        from ppl_vae.diagnostics.weights import posterior_means

        return posterior_means(self.engine, self._checked(x))

    def reconstruct(self, x: Any) -> NDArray[Any]:
        """Mean of x given the posterior means of the latents.

        Args:
            x: Data, (n, *data_shape).

        Returns:
            Reconstructions, (n, *data_shape).
        """
        from ppl_vae.diagnostics.weights import inspect_draws

        found = inspect_draws(self.engine, self._checked(x), ("mean",), num_draws=1, seed=0, latents="mean")
        return found["mean"][0]

    def sample(
        self,
        num_draws: int,
        *,
        seed: int = 0,
        noise: bool = False,
        condition: Any = None,
        prior: Prior = "model",
    ) -> NDArray[Any]:
        """Draws from the model, or from the alternative model that a program such as that of ``t3vae`` has.

        Args:
            num_draws: How many, at least 1.
            seed: Seed of the draws.
            noise: Draw x itself; otherwise its mean given the latents.
            condition: What a conditional model is given, (m, *condition_shape), repeated as often as needed; by
                default the conditions of the test data.
            prior: "alternative" for the program's ``alternative_model``, with the entropy that its loss was given.

        Returns:
            Draws, (num_draws, *data_shape).

        Raises:
            InputError: An argument breaks its rule, or the program has no such method.
        """
        if num_draws < 1:
            raise InputError(f"num_draws must be at least 1, but it is {num_draws}; ask for one draw or more")
        check_seed(seed)
        condition = self.default_condition if condition is None else condition
        given = conditions_for(num_draws, condition, self.engine.condition_shape)
        options: Any = {} if prior == "model" else {"prior": prior, "entropy": self._entropy()}
        parts = chunks(num_draws, 1024)  # the decoder's activations are many times as large as x
        # JAX keys take 32 bits.
        seeds = np.random.SeedSequence(seed).generate_state(len(parts)).tolist()
        drawn = [
            self.engine.generate(p.stop - p.start, seed=s, condition=given[0][p] if given else None, **options)
            for p, s in zip(parts, seeds, strict=True)
        ]
        return np.concatenate([part.x if noise else part.mean for part in drawn])

    def log_px(self, x: Any, *, num_draws: int = 1000, seed: int = 0) -> Any:
        """Importance-weighted estimate of log p(x) per datum, in nats.

        Args:
            x: Data, (n, *data_shape).
            num_draws: Draws per datum.
            seed: Seed of the draws.

        Returns:
            A ``LogPx`` with value, standard error and Pareto k-hat per datum.

        Raises:
            InputError: ``x`` has another shape, or the Bernoulli likelihood has no density for it.
        """
        from ppl_vae.diagnostics.weights import log_px

        array = self._with_density(x)
        check_seed(seed)
        return log_px(self.engine, array, num_draws=num_draws, seed=seed)

    def scores(self, x: Any, *, num_draws: int = 100, seed: int = 0) -> Any:
        """Anomaly scores per datum: log p(x), ELBO, distortion and rates, in nats.

        Args:
            x: Data, (n, *data_shape).
            num_draws: Draws per datum.
            seed: Seed of the draws.

        Returns:
            ``Scores``, arrays of shape (n,); errors as of ``log_px``.
        """
        from ppl_vae.posterior.scores import score

        check_seed(seed)
        return score(self.engine, self._with_density(x), num_draws=num_draws, seed=seed)

    def complete(
        self,
        x: Any,
        *,
        missing: Any = None,
        num_draws: int = 8,
        num_steps: int = 500,
        seed: int = 0,
        report: Any = None,
    ) -> Any:
        """Draw missing entries of x given the observed ones; see ``posterior.completion`` for the method.

        Args:
            x: Data, (n, *data_shape); entries that are nan are missing.
            missing: What else is: 1 or True where an entry is missing, in the shape of ``x`` or of one datum, or
                a pattern of ``posterior.missing_pattern``, such as "bottom".
            num_draws: Draws per datum, each from a chain of its own.
            num_steps: Steps of each chain.
            seed: Seed of the draws and of a random pattern.
            report: Called with the share of the work that is done.

        Returns:
            A ``Completion``: draws, mean and standard deviation, and how well the chains did.
        """
        from ppl_vae.posterior.completion import complete
        from ppl_vae.posterior.missing import split_missing

        check_seed(seed)
        filled, holes = split_missing(x, missing, seed=seed)
        condition = condition_of(x)
        filled = filled if condition is None else Conditioned(filled, condition)
        options = {"num_draws": num_draws, "num_steps": num_steps, "seed": seed}
        return complete(self.engine, self._with_density(filled), holes, report=report, **options)

    def to_arviz(
        self,
        *,
        split: str = "test",
        num_draws: int = 100,
        num_predictive_draws: int = 10,
        num_prior_draws: int | None = None,
        max_data: int = 200,
        seed: int = 0,
        label_names: Sequence[str] | None = None,
        attrs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Posterior, prior and diagnostics of a split as an ArviZ container.

        Args:
            split: "train", "validation" or "test".
            num_draws: Posterior draws per datum.
            num_predictive_draws: Of these, how many are followed by draws of x.
            num_prior_draws: Prior draws; by default as many as of the posterior.
            max_data: At most so many data, evenly spaced.
            seed: Seed of the draws.
            label_names: Names of the classes; by default those of the data set.
            attrs: What every group should say beside variant, backend, split and seed.

        Returns:
            ``InferenceData`` under ArviZ 0.23, an xarray ``DataTree`` under 1.x.
        """
        from ppl_vae.diagnostics.store import to_arviz

        x, labels = self.data.split(split), self.data.labels(split)
        some = evenly_spaced(len(x), max_data)
        return to_arviz(
            self.engine,
            x[some],
            labels=None if labels is None else labels[some],
            label_names=self.data.dataset.label_names if label_names is None else label_names,
            num_draws=num_draws,
            num_predictive_draws=num_predictive_draws,
            num_prior_draws=num_prior_draws,
            seed=seed,
            attrs={"variant": self.program.name, "backend": self.program.backend, "split": split, **(attrs or {})},
        )

    def diagnose(
        self,
        *,
        only: Sequence[str] | None = None,
        budget: float | None = None,
        split: str = "test",
        num_draws: int = 1000,
        seed: int = 0,
        transform: str = "",
        again: bool = False,
        report: Callable[[str, float], None] | None = None,
    ) -> Any:
        """Say whether the run can be trusted: a verdict, its evidence and its cause for each question.

        Each answer is written to ``diagnosis/`` in the run folder as soon as it is found, and read from there by
        later calls of equal weights, program, data, split, seed and ``num_draws``, unless the package changed. An
        answer that an error stands behind, such as a full disk, is not kept.

        Args:
            only: Names of questions, and "summary" for the numbers of ``summarise``; None asks all.
            budget: Seconds to spend, on cheap questions first; what is expected not to fit is not asked, and what
                was begun is finished.
            split: "train", "validation" or "test".
            num_draws: Importance draws per datum of the summary.
            seed: Seed of the draws.
            transform: A transformation for the summary; see ``find_transform``.
            again: Answer anew what was answered before.
            report: Called with what is being asked and the share of the work that is done.

        Returns:
            A ``Diagnosis``; ``diagnosis.table()`` is for people, ``diagnosis.to_dict()`` for programs.
        """
        from ppl_vae.diagnostics.questions.runner import ask

        given: Any = {"split": split, "num_draws": num_draws, "seed": seed, "transform": transform}
        return ask(self, only=only, budget=budget, again=again, report=report, **given)

    def summarise(self, *, split: str = "test", num_draws: int = 1000, seed: int = 0, transform: str = "") -> Any:
        """Measure what the run is worth on a split; writes ``diagnosis.json`` and ``posterior.nc``.

        Args:
            split: "train", "validation" or "test".
            num_draws: Importance draws per datum.
            seed: Seed of the draws.
            transform: A transformation, to say how little the code changes under it; see ``find_transform``.

        Returns:
            A ``Summary``; ``summary.table()`` is for people, ``summary.to_dict()`` for programs.
        """
        from ppl_vae.diagnostics.questions.runner import summarise_run

        return summarise_run(self, split=split, num_draws=num_draws, seed=seed, transform=transform)

    def score(self, **options: Any) -> Any:
        """Score the run's images in the features of a classifier; see ``diagnostics.sample_quality.score_run``.

        Args:
            options: Options of ``score_run``, such as ``classifier_data`` and ``num_draws``.

        Returns:
            A ``SampleQuality``; ``quality.table()`` is for people, ``quality.to_dict()`` for programs.
        """
        from ppl_vae.diagnostics.sample_quality import score_run

        return score_run(self, **options)

    def write_store(
        self,
        *,
        split: str = "test",
        num_draws: int = 100,
        seed: int = 0,
        attrs: Mapping[str, Any] | None = None,
    ) -> None:
        """Write ``posterior.nc`` of a split; see ``to_arviz``."""
        from ppl_vae.diagnostics.store import write_store

        store = self.to_arviz(split=split, num_draws=num_draws, seed=seed, attrs=attrs)
        write_atomically(self.path / "posterior.nc", lambda path: write_store(path, store))

    def _entropy(self) -> float:
        """Differential entropy of the data in nats that the loss was given; 0 for a loss without."""
        loss = self.record["loss"]
        if loss["file"] is None:
            raise InputError(
                f"loss must be recorded with its entropy for draws from the alternative prior, but {self.path} "
                f"was made with an object of class {loss['name']}; use engine.generate(prior=..., entropy=...)"
            )
        options = {**(loss.get("base") or {"options": {}})["options"], **loss["options"]}
        return entropy_in_nats(options.get("entropy", "off"))

    def _with_density(self, x: Any) -> NDArray[np.float32]:
        """Data of the run's shape, for which its likelihood has a density."""
        array, likelihood = self._checked(x), self.program.options.get("likelihood")
        # That real numbers vary matters for a fit only.
        if likelihood in LIKELIHOODS and likelihood not in REAL_VALUED:
            check_support(likelihood, array)
        return array

    def _checked(self, x: Any) -> NDArray[np.float32]:
        loaded = load(x)
        array, condition = loaded.in_memory(), loaded.condition if isinstance(x, Dataset) else condition_of(x)
        shape = tuple(self.record["data"]["data_shape"])
        if array.shape[1:] != shape:
            raise InputError(
                f"x must have shape (n, {', '.join(map(str, shape))}), but it is {array.shape}; reshape it"
            )
        return array if condition is None else Conditioned(array, condition)
