"""Commands that use a finished run: codes and scores, reconstructions, samples, completions."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer

from ppl_vae.cli._shared import AsJson, OptionalBackend, RunPath, progress
from ppl_vae.errors import InputError

__all__ = ["complete", "encode", "reconstruct", "sample"]

MAX_SHOWN = 100  # samples in a picture
SHOWN_DRAWS = 4  # completions of a datum in a picture

Data = Annotated[
    str | None, typer.Option(help="Name of a data set, or path of a file.", show_default="the run's own")
]
Split = Annotated[
    Literal["train", "validation", "test"] | None,
    typer.Option(help="Part of the run's own data.", show_default="test"),
]
Condition = Annotated[
    str | None, typer.Option(help="File of conditions or groups of other data, where the run's came from one.")
]
Seed = Annotated[int, typer.Option(help="Seed of the draws.")]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to run.")]


def _out(kinds: str, default: str) -> Any:
    return typer.Option(help=f"New file to write: {kinds}.", show_default=f"RUN-{default}")


def encode(
    run: RunPath,
    data: Data = None,
    split: Split = None,
    condition: Condition = None,
    num_draws: Annotated[int, typer.Option(help="Draws per datum beside means and deviations (.npz).")] = 0,
    scores: Annotated[bool, typer.Option("--scores", help="Add anomaly scores, in nats.")] = False,
    score_draws: Annotated[int, typer.Option(help="Importance draws per datum of the scores.")] = 100,
    out: Annotated[Path | None, _out(".npz or .csv", "codes.npz")] = None,
    backend: OptionalBackend = None,
    device: Device = "auto",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Write codes of data: posterior means and standard deviations by latent site, and labels.

    --scores adds by datum log p(x) by importance sampling with its standard error over draws and Pareto k-hat, the
    elbo, the distortion, and the rate in all and by site. Data that the model finds unlikely have a low log p(x).
    """
    from ppl_vae.diagnostics.summary_page import BAD_KHAT
    from ppl_vae.posterior import encode as encode_data

    job = _Job("encode", run, out, "codes.npz", (".npz", ".csv"), backend, device, seed)
    if num_draws and job.suffix == ".csv":
        raise InputError(f"num_draws must be 0 for a .csv, a row per datum, but it is {num_draws}; write .npz")
    chosen = job.choose(data, split, condition)
    codes = encode_data(job.run.engine, chosen.x, num_draws=num_draws, seed=seed)
    arrays = {f"{site}_mean": mean for site, mean in codes.mean.items()}
    arrays |= {f"{site}_scale": scale for site, scale in codes.scale.items()}
    summary: dict[str, float] = {"num_data": len(chosen.x), "num_draws": num_draws}
    if scores:
        found = job.run.scores(chosen.x, num_draws=score_draws, seed=seed).columns()
        arrays |= found
        khat = found["khat"]
        summary |= {"score_draws": score_draws, "share_khat_above_0.7": float((khat > BAD_KHAT).mean())}
        means = {name: float(values.mean()) for name, values in found.items() if values is not khat}
        summary |= {f"mean_{name}_nats": mean for name, mean in means.items()}
    job.write(arrays, chosen, extra={f"{site}_draws": draws for site, draws in codes.draws.items()})
    job.print(summary, as_json)


def reconstruct(
    run: RunPath,
    data: Data = None,
    split: Split = None,
    condition: Condition = None,
    out: Annotated[Path | None, _out(".npz, .csv or .png", "reconstructions.npz")] = None,
    backend: OptionalBackend = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Write reconstructions: the mean of x given the posterior means of the latents.

    A .png shows some data with their reconstructions below.
    """
    import numpy as np

    from ppl_vae.data import condition_of
    from ppl_vae.formulas.point_clouds import chamfer
    from ppl_vae.nets.clouds import CloudLikelihood
    from ppl_vae.training.engine import chunks

    job = _Job("reconstruct", run, out, "reconstructions.npz", (".npz", ".csv", ".png"), backend, device)
    chosen = job.choose(data, split, condition)
    x = chosen.x
    mean = np.concatenate([job.run.reconstruct(x[part]) for part in chunks(len(x))])
    if job.suffix == ".png":
        few = _few(x)
        rows = {"data": x[few], "mean of x at the\nposterior mean": mean[few]}
        job.draw([job.whole(rows, condition_of(x[few]))], chosen.name)
    else:
        job.write({"mean": mean}, chosen)
    if job.run.program.options.get("likelihood") in get_args(CloudLikelihood):
        # Points have no order, in which entries could be compared.
        distances = np.concatenate([chamfer(x[p], mean[p]).distance("mean") for p in chunks(len(x), 64)])
        job.print({"num_data": len(x), "mean_chamfer_distance": float(distances.mean(dtype=np.float64))}, as_json)
        return
    error = float(((x - mean) ** 2).mean(dtype=np.float64))
    present = condition_of(x)
    if job.run.engine.nested and present is not None:  # places that no member takes are zeros on both sides
        error /= float(present.mean(dtype=np.float64))
    job.print({"num_data": len(x), "mean_squared_error": error}, as_json)


def sample(
    run: RunPath,
    num: Annotated[int, typer.Option(help="How many draws.")] = 64,
    noise: Annotated[bool, typer.Option("--noise", help="Draw x itself, not its mean given the latents.")] = False,
    prior: Annotated[
        Literal["model", "alternative"],
        typer.Option(help="Where latents come from: the model, or its alternative."),
    ] = "model",
    condition: Annotated[
        Path | None,
        typer.Option(
            help="File of what a conditional model is given, repeated as needed.", show_default="the test data's"
        ),
    ] = None,
    out: Annotated[Path | None, _out(".npz, .csv or .png", "samples.npz")] = None,
    backend: OptionalBackend = None,
    device: Device = "auto",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Write draws from the model without data: of the mean of x given the latents, or of x itself.

    A conditional model draws given conditions, which are written beside the draws under ``c``. The alternative
    prior is that of programs with a method ``alternative_model``: t3vae, t3hvae and t3cvae.
    """
    from ppl_vae.data import load
    from ppl_vae.diagnostics.panels import num_shown
    from ppl_vae.posterior.outputs import check_size
    from ppl_vae.training.engine import conditions_for

    job = _Job("sample", run, out, "samples.npz", (".npz", ".csv", ".png"), backend, device, seed)
    check_size(num, job.run.record["data"]["data_shape"], "num")
    chosen = job.run.default_condition if condition is None else load(condition).in_memory()
    given = conditions_for(num, chosen, job.run.engine.condition_shape)
    x = job.run.sample(num, seed=seed, noise=noise, condition=chosen, prior=prior)
    what = "draws of x" if noise else "mean of x for draws of the latents"
    what += "" if prior == "model" else " from the alternative prior"
    job.about |= {"num": num, "prior": prior, "noise": noise}
    if job.suffix == ".png":
        x = job.whole({"x": x}, given[0] if given else None)["x"]
        each = num_shown(x.shape[1:])
        ends = [(start, min(start + each, num, MAX_SHOWN)) for start in range(0, min(num, MAX_SHOWN), each)]
        job.draw([{f"draws {start + 1} to {end}": x[start:end]} for start, end in ends], what, limits_of=x)
    else:
        job.write({"x": x, **({"c": given[0]} if given else {})})
    job.print({"num": num, "prior": prior, "noise": noise, "what": what}, as_json)


def complete(
    run: RunPath,
    data: Data = None,
    split: Split = None,
    condition: Condition = None,
    mask: Annotated[Path | None, typer.Option(help="File of zeros and ones, 1 where an entry is missing.")] = None,
    missing: Annotated[
        str | None, typer.Option(help="What is missing: top, bottom, left, right, or random:0.5.")
    ] = None,
    num_draws: Annotated[int, typer.Option(help="Draws per datum, each from a chain of its own.")] = 8,
    num_steps: Annotated[int, typer.Option(help="Steps of each chain; the first half is left out.")] = 500,
    max_data: Annotated[
        int, typer.Option(help="At most so many of the run's own data, evenly spaced; 0 for all.")
    ] = 64,
    out: Annotated[Path | None, _out(".npz, .csv or .png", "completions.npz")] = None,
    backend: OptionalBackend = None,
    device: Device = "auto",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Fill missing entries by draws from p(missing given observed); entries of a file that are nan are missing.

    Each draw ends a chain of Metropolis-within-Gibbs steps with proposals from the guide and from the prior,
    which is exact in the limit of many steps whatever the guide. Split R-hat well above 1.1 means that the chains
    of a datum still disagree: raise --num-steps.
    """
    from ppl_vae.posterior.inputs import read_mask
    from ppl_vae.posterior.outputs import check_size
    from ppl_vae.training.prepared import evenly_spaced

    job = _Job("complete", run, out, "completions.npz", (".npz", ".csv", ".png"), backend, device, seed)
    chosen = job.choose(data, split, condition, may_miss=True)
    holes = _holes(chosen, None if mask is None else read_mask(mask), missing, seed)
    if data is None and 0 < max_data < len(holes):  # chains over a whole split take hours
        few = evenly_spaced(len(holes), max_data)
        chosen, holes = chosen.some(few), holes[few]
        job.about["data"] = chosen.name
    check_size(len(holes) * num_draws, holes.shape[1:], "num_draws")
    options = {"num_draws": num_draws, "num_steps": num_steps, "seed": seed}
    with progress() as report:
        found = job.run.complete(chosen.x, missing=holes, report=partial(report, "completing"), **options)
    _write_completion(job, chosen, found)
    job.print({"num_data": len(holes), "num_draws": num_draws, "num_steps": num_steps, **found.summary()}, as_json)


class _Job:
    """What the commands do alike: check the file to write, open the run, write, and say so."""

    def __init__(
        self,
        command: str,
        run: Path,
        out: Path | None,
        default: str,
        suffixes: tuple[str, ...],
        backend: Any,
        device: Any,
        seed: int | None = None,
    ) -> None:
        from ppl_vae.data.checks import check_seed
        from ppl_vae.posterior.outputs import check_columns, new_file
        from ppl_vae.training.run import Run

        self.path = new_file(out, f"{run.resolve().name}-{default}", suffixes)
        self.suffix = self.path.suffix.lower()
        if seed is not None:
            check_seed(seed)
        self.run = Run.open(run, backend=backend, device=device)
        if self.suffix == ".csv" and command != "encode":  # before hours of work, not after
            check_columns([self.run.record["data"]["data_shape"]])
        program = self.run.program
        self.about = {
            "command": command,
            "run": str(run),
            "variant": program.name,
            "backend": program.backend,
            **({} if seed is None else {"seed": seed}),
        }

    def choose(
        self, data: str | None, split: str | None, condition: str | None = None, *, may_miss: bool = False
    ) -> Any:
        from ppl_vae.posterior.inputs import choose_data

        chosen = choose_data(self.run, data, split, condition=condition, may_miss=may_miss)
        self.about["data"] = chosen.name
        return chosen

    def write(
        self, arrays: Mapping[str, Any], chosen: Any = None, *, extra: Mapping[str, Any] | None = None
    ) -> None:
        """Arrays (n, ...) with labels, as a table too; ``extra`` as .npz only."""
        from ppl_vae.posterior import outputs

        labels = None if chosen is None else chosen.labels
        names = None if chosen is None else chosen.label_names
        if self.suffix == ".csv":
            if labels is not None and names is not None:
                labels = [names[code] for code in labels]
            columns = outputs.table_columns(arrays)
            outputs.write_table(self.path, columns if labels is None else {**columns, "label": labels})
            return
        meta = {**self.about, "units": "nats for scores, otherwise those of the data"}
        meta |= {} if names is None else {"label_names": names}
        outputs.write_npz(self.path, {**arrays, **(extra or {}), "y": labels}, meta)

    def whole(self, rows: Mapping[str, Any], condition: Any) -> dict[str, Any]:
        """Rows of data as they are drawn; see ``panels.whole``."""
        from ppl_vae.diagnostics.panels import whole

        arrangement = self.run.record["data"].get("arrangement", {})
        return {name: whole(values, condition, arrangement) for name, values in rows.items()}

    def draw(self, groups: Any, what: str, *, limits_of: Any = None) -> None:
        from ppl_vae.posterior.outputs import write_picture

        title = f"{self.about['variant']} ({self.run.path.name}): {what}"
        if self.run.engine.nested:
            groups = [{name: values[:, 0] for name, values in rows.items()} for rows in groups]
            limits_of, title = None if limits_of is None else limits_of[:, 0], f"{title}, first members of groups"
        write_picture(self.path, groups, title=title, limits_of=limits_of, meta=self.about)

    def print(self, summary: Mapping[str, Any], as_json: bool) -> None:
        from ppl_vae.files import strict_json

        if as_json:
            print(strict_json({**self.about, **summary, "wrote": str(self.path)}, indent=2))
            return
        about = [f"{name}={self.about[name]}" for name in ("run", "data", "seed") if name in self.about]
        print("  ".join([f"{self.about['variant']} ({self.about['backend']})", *about]))
        width = max(map(len, summary))
        for name, value in summary.items():
            print(f"{name:{width}}  {f'{value:.4g}' if isinstance(value, float) else value}")
        print(f"wrote {self.path}")


def _few(x: Any) -> Any:
    """Indices of as many data as a picture shows, evenly spaced."""
    from ppl_vae.diagnostics.panels import num_shown
    from ppl_vae.training.prepared import evenly_spaced

    return evenly_spaced(len(x), num_shown(x.shape[1:]))


def _holes(chosen: Any, mask: Any, missing: str | None, seed: int) -> Any:
    """What is missing by nan, by a mask and by a pattern, together."""
    from ppl_vae.posterior.missing import as_mask, missing_pattern

    holes = chosen.holes
    if mask is not None:
        holes = holes | as_mask(mask, holes.shape)
    if missing is not None:
        holes = holes | missing_pattern(missing, holes.shape, seed=seed)
    if mask is None and missing is None and not holes.any():
        raise InputError(
            f"data must have missing entries, but {chosen.name} has none; give a file where they are nan, or say "
            "what is missing by --mask or --missing"
        )
    return holes


def _write_completion(job: _Job, chosen: Any, found: Any) -> None:
    import numpy as np

    from ppl_vae.data import condition_of

    num_draws, num_data = found.draws.shape[:2]
    if job.suffix == ".png":
        few = _few(chosen.x)
        rows = {"observed": np.where(found.missing, np.nan, chosen.x)[few]}
        rows |= {f"draw {i + 1}": draw[few] for i, draw in enumerate(found.draws[:SHOWN_DRAWS])}
        rows = job.whole(rows | {"mean": found.mean[few]}, condition_of(chosen.x[few]))
        job.draw([rows], f"completions of {chosen.name}", limits_of=rows["mean"])
    elif job.suffix == ".csv":
        rows = {
            "draw": np.repeat(np.arange(num_draws), num_data),
            "datum": np.tile(np.arange(num_data), num_draws),
            "x": found.draws.reshape(-1, *found.draws.shape[2:]),
        }
        labels = None if chosen.labels is None else np.tile(chosen.labels, num_draws)
        job.write(rows, replace(chosen, labels=labels))
    else:
        job.write(found.arrays(), chosen)
