"""The result of a fit: what each split says of the trained model, in nats per datum."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.diagnostics.activity import active_units_by_variance
from ppl_vae.diagnostics.weights import log_px, posterior_means
from ppl_vae.likelihoods.support import bits_per_dim
from ppl_vae.training.engine import Engine
from ppl_vae.training.loop import nested
from ppl_vae.training.prepared import SPLITS, Prepared, evenly_spaced
from ppl_vae.training.seeds import child_seed
from ppl_vae.training.settings import FitSettings

__all__ = ["evaluate_splits", "result_table", "run_page"]


def evaluate_splits(
    engine: Engine,
    loss: Any,
    data: Prepared,
    settings: FitSettings,
    betas: Mapping[str, float],
    *,
    has_levels: bool = False,
) -> dict[str, Any]:
    """Result of a fit on every split.

    Args:
        engine: Holds the selected parameters.
        loss: The loss that was minimised.
        data: Splits as they are evaluated.
        settings: Seed, and how log p(x) is estimated.
        betas: Final beta of each site.
        has_levels: Whether the likelihood is a mass on grey levels, so that nats are lengths of codes.

    Returns:
        Each quantity by split: ``loss``, ``distortion``, ``rates`` and ``active_units`` by site, ``elbo``,
        ``log_px`` with ``log_px_standard_error`` over data, ``extras`` by name; with levels also
        ``bits_per_dim`` by the ELBO and ``bits_per_dim_log_px``.
    """
    result: dict[str, Any] = {}
    for split in SPLITS:
        values = _evaluate(engine, loss, data.split(split), settings, betas)
        if has_levels:
            shape = data.dataset.data_shape
            values["bits_per_dim"] = bits_per_dim(-values["elbo"], shape)
            values["bits_per_dim_log_px"] = bits_per_dim(-values["log_px"], shape)
        for name, value in values.items():
            result.setdefault(name, {})[split] = value
    return result


def _evaluate(
    engine: Engine, loss: Any, x: NDArray[np.float32], settings: FitSettings, betas: Mapping[str, float]
) -> dict[str, Any]:
    seed = child_seed(settings.seed, "evaluation")
    values = nested(engine.evaluate(loss, x, betas, seed=seed))
    values["active_units"] = {
        site: int(active_units_by_variance(loc.reshape(len(x), -1))[0].sum()) if len(x) > 1 else 0
        for site, loc in posterior_means(engine, x).items()
    }
    some = evenly_spaced(len(x), settings.log_px_data)
    estimate = log_px(engine, x[some], num_draws=settings.log_px_draws, seed=seed)
    values["log_px"], values["log_px_standard_error"] = estimate.mean
    return values


def run_page(run: Any) -> str:
    """What the command prints of a run: what was fitted on what, the result, what was written.

    Args:
        run: A finished ``Run``.
    """
    record = run.record
    model, data, settings = record["model"], record["data"], record["settings"]
    sizes = "/".join(str(data["splits"][split]) for split in SPLITS)
    final = record.get("final_betas", record["betas"])
    betas = ", ".join(f"{site}={beta:.4g}" for site, beta in final.items())
    options = "  ".join(f"{name}={value}" for name, value in model["options"].items())
    epochs = f"epochs={settings['epochs']}" + (" (stopped early)" if record["stopped_early"] else "")
    dead = [site for site, active in record["result"]["active_units"]["test"].items() if not active]
    notes = [
        *record["notes"],
        *(f"no unit of {site} is active: train longer, or lower beta or scale" for site in dead),
    ]
    num_units = {
        site: int(np.prod(loc.shape[1:]))
        for site, loc in posterior_means(run.engine, run.data.split("test")[:1]).items()
    }
    return "\n".join(
        [
            f"{model['name']} ({model['backend']})  data={data['name']} n={sizes} binarise={settings['binarise']}",
            f"loss={record['loss']['name']}  beta {betas}  {epochs}  best epoch {record['best_epoch'] or 'none'}  "
            f"selected={settings['select']}  seed={settings['seed']}",
            options,
            *_target_lines(record),
            result_table(record["result"], num_units),
            *_bits_lines(record["result"]),
            f"rates: {', '.join(f'{site} {how}' for site, how in record['how'].items())}; active units: variance "
            "of the posterior mean > 0.01; +-: standard error over data",
            *(f"note: {note}" for note in notes),
            f"wrote {run.path}/{{run.json, checkpoint-final.safetensors, posterior.nc, overview.png}}",
        ]
    )


def _target_lines(record: Mapping[str, Any]) -> list[str]:
    if not record.get("target_rates"):
        return []
    reached = record["reached_rates"]
    pairs = [f"{name} {rate:g} (reached {reached[name]:.4g})" for name, rate in record["target_rates"].items()]
    return [f"target rates, validation over the last tenth of the epochs: {', '.join(pairs)}; beta was found"]


def _bits_lines(result: Mapping[str, Any]) -> list[str]:
    if "bits_per_dim" not in result:
        return []
    by = {"the ELBO": result["bits_per_dim"], "log p(x)": result["bits_per_dim_log_px"]}
    numbers = [f"{name} {' / '.join(f'{values[s]:.3f}' for s in SPLITS)}" for name, values in by.items()]
    return [f"bits per dimension ({' / '.join(SPLITS)}): {', '.join(numbers)}"]


def result_table(result: Mapping[str, Any], num_units: Mapping[str, int]) -> str:
    """The result as a table for people.

    Args:
        result: What ``evaluate_splits`` gave.
        num_units: Number of latent units by site.
    """
    sites = list(result["rates"]["test"])
    rate_heads = ["rate"] if len(sites) == 1 else [f"rate {site}" for site in sites]
    heads = ["loss", "distortion", *rate_heads, "elbo", "log p(x)", "+-"]
    lines = ["split     " + "".join(f"{head:>12}" for head in heads) + "  active units   [nats per datum]"]
    for split in SPLITS:
        numbers = [
            result["loss"][split],
            result["distortion"][split],
            *(result["rates"][split][site] for site in sites),
            result["elbo"][split],
            result["log_px"][split],
            result["log_px_standard_error"][split],
        ]
        active = ", ".join(f"{result['active_units'][split][s]} of {num_units[s]}" for s in sites)
        # JSON has no number for what is not finite.
        cells = ["not finite" if n is None else f"{n:.2f}" if abs(n) < 1e7 else f"{n:.4g}" for n in numbers]
        lines.append(f"{split:<10}" + "".join(f"{cell:>12}" for cell in cells) + f"{active:>14}")
    return "\n".join(lines)
