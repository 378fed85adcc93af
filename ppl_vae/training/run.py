"""A fitted run: its numbers, and the model to use it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.data import Splits, load
from ppl_vae.data.checks import check_seed
from ppl_vae.errors import InputError
from ppl_vae.files import read_arrays, write_atomically, write_json
from ppl_vae.likelihoods.support import LIKELIHOODS, check_support
from ppl_vae.plugins import Backend, Plugin
from ppl_vae.training.engine import Device, Engine
from ppl_vae.training.prepared import SPLITS, Prepared, evenly_spaced, prepare
from ppl_vae.training.programs import Program, build_program, make_engine, twin
from ppl_vae.training.run_folder import RunFolder
from ppl_vae.training.settings import settings_from

__all__ = ["FINAL", "SPLITS_FILE", "Run"]

# Checkpoint of the selected parameters, by the names that both backends share.
FINAL = "final"
SPLITS_FILE = "splits.safetensors"


class Run:
    """A fitted model in its run folder; ``fit`` returns one, ``Run.open`` reads one.

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
        if FINAL not in folder.checkpoints() or "result" not in record:
            raise InputError(
                f"run must be finished, but {path} is {record.get('status', 'of unknown status')}; "
                f"continue it by `ppl-vae resume {path}`"
            )
        shape = tuple(record["data"]["data_shape"])
        seed = record["settings"]["seed"]
        built = rebuild_program(folder, backend=backend, program=program)
        engine = make_engine(built, shape, seed=seed, device=device)
        engine.load_parameters(folder.read_checkpoint(FINAL)[0])
        prepared = None if data is None else prepare_from_record(folder, data)
        return cls(folder, built, engine, prepared)

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

    def sample(self, num_draws: int, *, seed: int = 0, noise: bool = False) -> NDArray[Any]:
        """Draws from the model.

        Args:
            num_draws: How many, at least 1.
            seed: Seed of the draws.
            noise: Draw x itself; otherwise its mean given the latents.

        Returns:
            Draws, (num_draws, *data_shape).
        """
        if num_draws < 1:
            raise InputError(f"num_draws must be at least 1, but it is {num_draws}; ask for one draw or more")
        check_seed(seed)
        # JAX keys take 32 bits.
        generated = self.engine.generate(num_draws, seed=int(np.random.SeedSequence(seed).generate_state(1)[0]))
        return generated.x if noise else generated.mean

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
        options = {"num_draws": num_draws, "num_steps": num_steps, "seed": seed}
        return complete(self.engine, self._with_density(filled), holes, report=report, **options)

    def to_arviz(self, *, split: str = "test", num_draws: int = 100, max_data: int = 200, seed: int = 0) -> Any:
        """Posterior, prior and diagnostics of a split as an ArviZ container.

        Args:
            split: "train", "validation" or "test".
            num_draws: Posterior draws per datum.
            max_data: At most so many data, evenly spaced.
            seed: Seed of the draws.

        Returns:
            ``InferenceData`` under ArviZ 0.23, an xarray ``DataTree`` under 1.x.
        """
        from ppl_vae.diagnostics.store import to_arviz

        check_seed(seed)
        x, labels = self.data.split(split), self.data.labels(split)
        some = evenly_spaced(len(x), max_data)
        return to_arviz(
            self.engine,
            x[some],
            labels=None if labels is None else labels[some],
            label_names=self.data.dataset.label_names,
            num_draws=num_draws,
            seed=seed,
            attrs={"variant": self.program.name, "backend": self.program.backend, "split": split},
        )

    def diagnose(self, *, split: str = "test", num_draws: int = 1000, seed: int = 0) -> Any:
        """Say what the run is worth on a split; writes ``diagnosis.json`` and ``posterior.nc``.

        Args:
            split: "train", "validation" or "test".
            num_draws: Importance draws per datum.
            seed: Seed of the draws.

        Returns:
            A ``Summary``; ``summary.table()`` is for people, ``summary.to_dict()`` for programs.
        """
        from ppl_vae.diagnostics.summary import summarise

        check_seed(seed)
        summary = summarise(
            self.engine,
            self.data.split(split),
            labels=self.data.labels(split),
            # A probe must not be scored on what it was fitted to.
            train_x=None if split == "train" else self.data.split("train"),
            train_labels=None if split == "train" else self.data.labels("train"),
            num_draws=num_draws,
            seed=seed,
        )
        with self.folder.lock():
            write_json(self.path / "diagnosis.json", {"split": split, **summary.to_dict()})
            self.write_store(split=split, num_draws=num_draws, seed=seed)
        return summary

    def write_store(self, *, split: str = "test", num_draws: int = 100, seed: int = 0) -> None:
        """Write ``posterior.nc`` of a split; see ``to_arviz``."""
        from ppl_vae.diagnostics.store import write_store

        store = self.to_arviz(split=split, num_draws=num_draws, seed=seed)
        write_atomically(self.path / "posterior.nc", lambda path: write_store(path, store))

    def _with_density(self, x: Any) -> NDArray[np.float32]:
        """Data of the run's shape, for which its likelihood has a density."""
        array, likelihood = self._checked(x), self.program.options.get("likelihood")
        # Any real numbers have a Gaussian density; that a data set varies matters for a fit only.
        if likelihood in LIKELIHOODS and likelihood != "gaussian":
            check_support(likelihood, array)
        return array

    def _checked(self, x: Any) -> NDArray[np.float32]:
        array = load(x).x[:]
        shape = tuple(self.record["data"]["data_shape"])
        if array.shape[1:] != shape:
            raise InputError(
                f"x must have shape (n, {', '.join(map(str, shape))}), but it is {array.shape}; reshape it"
            )
        return array


def open_folder(path: str | Path) -> RunFolder:
    """Open the folder of a run that a fit wrote.

    Args:
        path: The run folder.

    Raises:
        InputError: It is no run folder, or its record is not that of a fit.
    """
    folder = RunFolder.open(path)
    missing = {"status", "model", "loss", "data", "settings", "betas", "versions"} - folder.record.keys()
    if missing:
        raise InputError(
            f"run must be a folder that `ppl-vae fit` wrote, but {folder.path}/run.json lacks "
            f"{', '.join(sorted(missing))}; pass another folder"
        )
    return folder


def rebuild_program(folder: RunFolder, *, backend: Backend | None = None, program: Any = None) -> Program:
    """Build a run's model again, from the copy of its file.

    Args:
        folder: The run folder.
        backend: Backend to build it in, or None for the run's own.
        program: The model object, for a run that was made from an object.
    """
    record = folder.record
    model, shape = record["model"], tuple(record["data"]["data_shape"])
    seed = record["settings"]["seed"]
    if model["file"] is None:
        if program is None:
            raise InputError(
                f"program must be given, for {folder.path} was made from an object of class {model['name']}; "
                "open it in Python by Run.open(path, program=...)"
            )
        return build_program(program, shape, backend=model["backend"], options={}, seed=seed)
    plugin = recorded_plugin(folder, "models", model)
    if backend is not None:
        plugin = twin(plugin, backend, Path(model["path"]))
    return build_program(plugin, shape, backend=None, options=model["options"], seed=seed)


def recorded_plugin(folder: RunFolder, kind: Any, record: Mapping[str, Any]) -> Plugin:
    """The copy of a plug-in file that a run keeps.

    Args:
        folder: The run folder.
        kind: "models" or "inference".
        record: What the run recorded of it.

    Raises:
        InputError: The copy is missing or was changed.
    """
    backend = folder.record["model"]["backend"]
    plugin = Plugin(kind, record["name"], backend, folder.path / record["file"])
    if not plugin.path.is_file():
        raise InputError(f"{plugin.path} must exist, for the run was made with it, but it does not; restore it")
    if plugin.sha256 != record["sha256"]:
        raise InputError(
            f"{plugin.path} must be the file that the run was made with, but it was changed; restore it, "
            "or fit the changed file as a new run"
        )
    return plugin


def prepare_from_record(folder: RunFolder, data: Any = None) -> Prepared:
    """Load and prepare the data of a run again, in the splits that it was fitted with.

    Args:
        folder: The run folder.
        data: The data, where the record's source cannot be loaded.

    Raises:
        InputError: The source cannot be loaded, or holds other data than those fitted.
    """
    record = folder.record
    source = record["data"]["source"] if data is None else data
    if source is None:
        raise InputError(
            f"data must be given, for {folder.path} was made from an array; "
            "pass data=load(x, labels=...) to Run.open or resume in Python"
        )
    dataset = load(source)
    if dataset.fingerprint != record["data"]["fingerprint"]:
        raise InputError(
            f"data must be those of the run, labels included, but {dataset.source} has other contents; restore "
            "the file, pass data=load(x, labels=...) in Python, or fit the new data as a new run"
        )
    splits = read_arrays(folder.path / SPLITS_FILE)[0]
    return prepare(
        dataset,
        settings_from(record["settings"]),
        record["model"]["options"],
        splits=Splits(**{name: splits[name] for name in SPLITS}),
    )
