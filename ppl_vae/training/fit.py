"""Fits a model to data, and continues a fit that was cut off."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ppl_vae.data import Conditioned, condition_of, load, rows_per_block
from ppl_vae.errors import InputError
from ppl_vae.files import write_atomically
from ppl_vae.objective.split import check_betas
from ppl_vae.plugins import Backend, find
from ppl_vae.training.arrangement import arrange
from ppl_vae.training.engine import Arrays, StepOptions
from ppl_vae.training.initial import Init, check_init, initialise
from ppl_vae.training.loop import Progress, TrainingLoop
from ppl_vae.training.loss_options import ResolvedOptions, resolve_base, resolve_loss_options, with_options
from ppl_vae.training.prepared import Prepared, prepare
from ppl_vae.training.programs import Loss, Program, build_loss, build_program, make_engine, program_errors
from ppl_vae.training.rate_targets import capacity_notes, check_measured, check_targets, miss_notes, reached_rates
from ppl_vae.training.records import changed_environment, check_files, keep_files, run_record
from ppl_vae.training.reopen import (
    FINAL,
    open_folder,
    prepare_from_record,
    rebuild_program,
    recorded_plugin,
)
from ppl_vae.training.results import evaluate_splits
from ppl_vae.training.run import Run
from ppl_vae.training.run_folder import RunFolder
from ppl_vae.training.settings import FitSettings, beta_by_site, final_betas, settings_from

__all__ = ["Report", "finish_run", "fit", "prepare_engine", "resume"]

# Called with the newest record and the share of the run that is done.
Report = Callable[[Mapping[str, Any], float], None]


def fit(
    program: Any,
    data: Any,
    *,
    labels: Any = None,
    condition: Any = None,
    group: Any = None,
    max_members: int = 0,
    backend: Backend | None = None,
    loss: Any = None,
    base_loss: Any = None,
    loss_options: Mapping[str, Any] | None = None,
    base_options: Mapping[str, Any] | None = None,
    beta: float | Mapping[str, float] = 1.0,
    target_rates: Mapping[str, float] | None = None,
    out: str | Path | None = None,
    report: Report | None = None,
    products: bool = True,
    start: str | Path | None = None,
    init: Init = "random",
    **options: Any,
) -> Run:
    """Fit a variational autoencoder.

    Args:
        program: Name of a variant ("beta_vae"), path of a model file, or an object with ``model`` and ``guide``.
        data: Name of a data set ("digits"), path of a file or of a folder of images, or an array (n, *data_shape);
            see ``load``.
        labels: Class labels of an array, (n,).
        condition: What a conditional variant is given with each datum: "labels", "quadrant", the path of a file,
            or an array (n, *condition_shape); None takes quadrants of images, else labels. See ``add_condition``.
        group: Group of each datum for a grouped variant: "labels", the path of a file, or an array (n,); None
            takes labels. See ``group_data``.
        max_members: Most data that a group may have; larger ones are parted. 0 for no bound.
        backend: "pyro" or "numpyro"; None takes the file's or the object's, and "pyro" for a name.
        loss: Name or path of a loss, or a loss object; None takes the variant's default.
        base_loss: Loss that a wrapping loss wraps.
        loss_options: Options of ``build_loss`` by name; what a loss finds from the training data, such as the
            entropy of ``gamma_power``, is found once, and recorded as found.
        base_options: Options of the base loss's ``build_loss`` by name, found and recorded in the same way.
        beta: Weight on the rates: one number, or numbers by latent site.
        target_rates: Rates that the fit is to spend instead, in nats per datum (per group of grouped data) of the
            validation data, by latent site or ``total``, the sum; the betas that do are found, one for each site
            with a target, and one for all others where the total has one. The best epoch is then the best of
            those that held them.
        out: Run folder; None makes a new one under ``runs/``.
        report: Called after each block of steps.
        products: Write ``posterior.nc`` and ``overview.png`` at the end.
        start: Folder of a finished run of the same variant, whose parameters are the initial ones.
        init: What else they are: random, or those of the least loss at these betas, which is known for the linear
            variants.
        options: Settings (see ``FitSettings``) and options of the variant's ``build``.

    Returns:
        The fitted run.

    Raises:
        InputError: An argument is wrong, or training meets a number that is not finite.
    """
    names = {field.name for field in fields(FitSettings)}
    settings = settings_from({name: value for name, value in options.items() if name in names})
    model_options = {name: value for name, value in options.items() if name not in names}
    program = find("models", program, backend) if isinstance(program, str | Path) else program
    condition = condition_of(data) if condition is None and isinstance(data, Conditioned) else condition
    dataset = arrange(
        load(data, labels=labels), program, condition=condition, group=group, max_members=max_members
    )
    built = build_program(
        program,
        dataset.data_shape,
        backend=backend,
        options=model_options,
        seed=settings.seed,
        condition_shape=dataset.condition_shape,
    )
    if built.plugin is None and "group" in dataset.arrangement:
        built = replace(built, data_plate="group")
    prepared = prepare(dataset, settings, built.options)
    loss = built.default_loss if loss is None else loss
    chosen = build_loss(
        loss,
        built.backend,
        resolve_loss_options(loss, built.backend, loss_options or {}, prepared),
        base=resolve_base(base_loss, built.backend, base_options or {}, prepared),
        data_plate=built.data_plate,
        binarise=settings.binarise,
    )
    engine = make_engine(built, dataset.data_shape, seed=settings.seed, device=settings.device)
    betas = beta_by_site(beta, engine.latents)
    targets = check_targets(target_rates or {}, engine.latents, beta=beta)
    check_init(init, start=start, target_rates=targets)
    _check_patience(settings, targets)
    prepare_engine(engine, built, chosen, prepared, settings, betas)
    check_measured(targets, engine.how)
    check_files(built, chosen)
    record = {
        **run_record(built, chosen, prepared, settings, betas, engine),
        "target_rates": targets,
        "init": init,
    }
    if start is not None:
        record["start"] = str(Path(start).resolve())
    initialise(engine, record, built, prepared, settings, betas)
    folder = RunFolder.create(out or _new_path(built), record)
    with folder.lock(), _recorded_end(folder):
        keep_files(folder, built, chosen, prepared)
        return _train(folder, built, chosen, prepared, settings, betas, engine, report, None, products)


def resume(
    path: str | Path,
    *,
    data: Any = None,
    program: Any = None,
    loss: Any = None,
    report: Report | None = None,
    products: bool = True,
) -> Run:
    """Continue a run that was cut off; it ends as an unbroken one would have ended.

    Args:
        path: The run folder.
        data: The data, for a run that was made from an array.
        program: The model object, for a run that was made from an object.
        loss: The loss object, for a run that was made from one.
        report: Called after each block of steps.
        products: Write ``posterior.nc`` and ``overview.png`` at the end.

    Raises:
        InputError: The folder is no run, is finished, or its data or files changed.
    """
    folder = open_folder(path)
    with folder.lock():
        record = folder.record
        if record["status"] == "finished":
            raise InputError(f"run must be unfinished, but {path} is finished; fit a new run with more --epochs")
        settings = settings_from(record["settings"])
        built = rebuild_program(folder, program=program)
        prepared = prepare_from_record(folder, data)
        chosen = _rebuild_loss(folder, record["loss"], loss, built.data_plate)
        shape = prepared.dataset.data_shape
        engine = make_engine(built, shape, seed=settings.seed, device=record["device"])
        betas = record["betas"]
        prepare_engine(engine, built, chosen, prepared, settings, betas)
        engine.notes += changed_environment(record)
        latest = folder.latest_checkpoint()
        if latest is None:
            folder.truncate_metrics(0)
            initialise(engine, record, built, prepared, settings, betas)
        with _recorded_end(folder):
            return _train(folder, built, chosen, prepared, settings, betas, engine, report, latest, products)


def _check_patience(settings: FitSettings, targets: Mapping[str, float]) -> None:
    if targets and settings.patience:
        raise InputError(
            f"patience must be 0 with target rates, but it is {settings.patience}: as the betas move, a "
            "validation loss that rises says nothing; leave patience out, or give betas"
        )


@contextmanager
def _recorded_end(folder: RunFolder) -> Iterator[None]:
    """Let the record say how a run ended that did not finish."""
    try:
        yield
    except KeyboardInterrupt:
        folder.update_record(status="interrupted")
        raise KeyboardInterrupt(f"continue the fit by `ppl-vae resume {folder.path}`") from None
    except Exception as error:
        kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
        with suppress(InputError):  # of a disk that is full
            folder.update_record(status=f"failed: {kind}{error}")
        raise


def prepare_engine(
    engine: Any,
    program: Program,
    loss: Loss,
    data: Prepared,
    settings: FitSettings,
    betas: Mapping[str, float],
) -> None:
    """Make an engine ready for its first step.

    Args:
        engine: The engine.
        program: The built model and guide.
        loss: The loss.
        data: The data of the fit.
        settings: Settings of the fit.
        betas: Final beta of each site.

    Raises:
        InputError: The program does not run with the loss, or a setting does not fit the data.
    """
    own, sample = loss.object.objective.binarises, settings.binarise == "sample"
    num_data = len(data.splits.train)
    options = StepOptions(
        learning_rates=settings.learning_rates(num_data),
        clip_norm=settings.clip_norm,
        binarise_batches=sample and not own,
        capture=settings.capture,
    )
    every = settings.betas(betas, num_data, loss.object.objective.term_weights)
    schedules = {site: every[site] for site in betas}
    first = {site: float(values[0]) for site, values in schedules.items()}
    with program_errors(program.plugin, "run with this loss"):
        engine.prepare_training(loss.object, data.training(grey=sample or own), options, first)
    check_betas(loss.object.objective, engine.split, schedules)
    engine.notes += [*data.notes, *loss.notes]
    if not engine.has_density:
        engine.notes.append("the likelihood is no density: loss, distortion and elbo compare fits of it alone")


def _train(
    folder: RunFolder,
    program: Program,
    loss: Loss,
    data: Prepared,
    settings: FitSettings,
    betas: Mapping[str, float],
    engine: Any,
    report: Report | None,
    checkpoint: str | None,
    products: bool,
) -> Run:
    targets = folder.record.get("target_rates", {})  # runs before version 0.2 have none
    loop = TrainingLoop(
        engine,
        loss.object,
        folder,
        settings,
        betas=settings.betas(betas, len(data.splits.train), loss.object.objective.term_weights),
        num_data=len(data.splits.train),
        validation=data.split("validation"),
        target_rates=targets,
        rows_at_once=None if data.dataset.is_in_memory else rows_per_block(data.dataset.data_shape),
        report=report,
    )
    if checkpoint is not None:
        loop.load(checkpoint)
    folder.update_record(status="running")
    selected = loop.run()
    if targets:
        reached = reached_rates(folder.read_metrics(), targets)
        engine.notes += capacity_notes(targets, len(data.splits.train))
        engine.notes += miss_notes(targets, reached, loop.controller.betas)
        folder.update_record(reached_rates=reached)
    final = {**betas, **loop.selected_betas}
    return finish_run(folder, program, loss, data, settings, final, engine, selected, loop.progress, products)


def finish_run(
    folder: RunFolder,
    program: Program,
    loss: Loss,
    data: Prepared,
    settings: FitSettings,
    betas: Mapping[str, float],
    engine: Any,
    selected: Arrays,
    progress: Progress,
    products: bool,
) -> Run:
    """Evaluate the selected parameters, and write them and the result.

    Args:
        folder: The run folder; its lock is held.
        program: The built model and guide.
        loss: The loss that was minimised.
        data: The data of the fit.
        settings: Settings of the fit.
        betas: Final beta of each site.
        engine: Takes the selected parameters.
        selected: Parameters by name.
        progress: Where the training ended.
        products: Write ``posterior.nc`` and ``overview.png`` too.
    """
    engine.load_parameters(selected)
    has_levels = program.options.get("likelihood") == "discretised-logistic-mixture"
    result = evaluate_splits(engine, loss.object, data, settings, final_betas(betas), has_levels=has_levels)
    folder.write_checkpoint(FINAL, selected, {"best_epoch": progress.best_epoch})
    run = Run(folder, program, engine, data)
    if products:
        _write_products(run)
    folder.update_record(
        status="finished",
        result=result,
        final_betas=dict(betas),
        steps=progress.steps,
        best_epoch=progress.best_epoch,
        stopped_early=progress.stopped,
        how=engine.how,
        notes=engine.notes,
    )
    return run


def _write_products(run: Run) -> None:
    from ppl_vae.diagnostics.pictures import save_overview

    run.write_store()
    title = f"{run.program.name} ({run.program.backend}) on {run.data.dataset.name}, test data"
    x, labels, names = run.data.split("test"), run.data.labels("test"), run.data.dataset.label_names
    if labels is not None and names is not None:
        labels = np.array(names)[labels]
    options: dict[str, Any] = {"labels": labels, "arrangement": run.data.dataset.arrangement, "title": title}
    write_atomically(run.path / "overview.png", lambda path: save_overview(path, run.engine, x, **options))


def _rebuild_loss(folder: RunFolder, record: Mapping[str, Any], loss: Any, data_plate: str) -> Loss:
    backend = folder.record["model"]["backend"]
    if record["file"] is None:
        if loss is None:
            raise InputError(
                f"loss must be given, for {folder.path} was made with an object of class {record['name']}; "
                "resume it in Python by resume(path, loss=...)"
            )
        return build_loss(loss, backend, {})
    base = record["base"]
    return build_loss(
        recorded_plugin(folder, "inference", record),
        backend,
        _recorded_options(record),
        base=base and with_options(recorded_plugin(folder, "inference", base), backend, _recorded_options(base)),
        data_plate=data_plate,
    )


def _recorded_options(record: Mapping[str, Any]) -> ResolvedOptions:
    return ResolvedOptions(record["options"], record.get("notes", ()))


def _new_path(program: Program) -> Path:
    base = Path("runs") / f"{program.name}-{program.backend}"
    numbers = (i for i in range(1, sys.maxsize) if not Path(f"{base}-{i}").exists())
    return Path(f"{base}-{next(numbers)}")
