"""The table of a sweep: one row a run; rates and all other terms in nats per datum."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ppl_vae.files import write_text
from ppl_vae.objective.terms import SITE_TERM
from ppl_vae.sweeps.folder import FAULT
from ppl_vae.sweeps.grid import Point
from ppl_vae.training.prepared import SPLITS

__all__ = ["TABLE", "page", "row", "write_table"]

TABLE = "table.csv"


def row(point: Point, record: Mapping[str, Any] | None) -> dict[str, Any]:
    """One run as a row.

    Args:
        point: The point.
        record: Record of its run, or None before it began.

    Returns:
        ``run`` (its folder below that of the sweep), ``seed``, ``beta_<site>``, ``status`` ("waiting", "finished"
        or "failed", with the cause under ``message``), ``best_epoch``; and of each split, as in ``loss_test``:
        ``loss``, ``distortion``, ``rate_<site>`` (``site_term_<site>`` where it is no rate), ``total_rate``,
        ``elbo``, ``log_px``, ``log_px_standard_error``, ``active_units_<site>``, ``extra_<name>``; of data in
        [0, 1] also ``psnr`` in decibels, of the mean at the posterior means; of groups ``members``,
        ``distortion_per_member`` and ``per_member_rate_<site>``.
    """
    found: dict[str, Any] = {"run": f"runs/{point.name}", "seed": point.seed}
    found |= {f"beta_{site}": beta for site, beta in point.betas.items()}
    found |= {"status": "waiting", "message": None}
    if record is not None and FAULT in record:
        return {**found, "status": "failed", "message": record[FAULT]}
    if record is None or record["status"] != "finished":
        return found
    found |= {"status": "finished", "best_epoch": record["best_epoch"]}
    for split in SPLITS:
        numbers = _numbers(record["result"], split, record["how"])
        found |= {f"{name}_{split}": value for name, value in numbers.items()}
    return found


def _numbers(result: Mapping[str, Any], split: str, how: Mapping[str, str]) -> dict[str, Any]:
    values = {name: by_split[split] for name, by_split in result.items()}
    rates, by_member = values.pop("rates"), values.pop("rates_per_member", {})
    active, extras = values.pop("active_units"), values.pop("extras", {})
    names = {site: "site_term" if how[site] == SITE_TERM else "rate" for site in rates}
    return {
        **{name: values.pop(name) for name in ("loss", "distortion")},
        **{f"{names[site]}_{site}": rate for site, rate in rates.items()},
        **{f"per_member_rate_{site}": rate for site, rate in by_member.items()},
        "total_rate": None if None in rates.values() else sum(rates.values()),
        **values,
        **{f"active_units_{site}": number for site, number in active.items()},
        **{f"extra_{name}": value for name, value in extras.items()},
    }


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as a table, atomically; what a row lacks is left empty.

    Args:
        path: The file.
        rows: As of ``row``.
    """
    columns = list(dict.fromkeys(name for r in rows for name in r))
    # The rows of runs that wait have no results: their columns must not decide the order.
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def page(rows: Sequence[Mapping[str, Any]]) -> str:
    """The test columns of the rows for people, one line a run.

    Args:
        rows: As of ``row``.
    """
    sites = [name.removeprefix("beta_") for name in rows[0] if name.startswith("beta_")]
    columns = {f"beta {site}": f"beta_{site}" for site in sites}
    for site in sites:
        is_term = any(f"site_term_{site}_test" in found for found in rows)
        columns |= {f"term {site}": f"site_term_{site}_test"} if is_term else {f"rate {site}": f"rate_{site}_test"}
    columns |= {"distortion": "distortion_test", "elbo": "elbo_test", "log p(x)": "log_px_test"}
    if any("psnr_test" in found for found in rows):
        columns["PSNR [dB]"] = "psnr_test"
    unit = "group" if any("members_test" in found for found in rows) else "datum"
    lines = ["".join(f"{head:>12}" for head in ["seed", *columns]) + f"   [test data, nats per {unit}]"]
    for found in rows:
        cells = [f"{found['seed']:>12}", *(_cell(found.get(name)) for name in columns.values())]
        lines.append("".join(cells) + (f"   {found['message']}" if found["message"] else ""))
    finished = sum(found["status"] == "finished" for found in rows)
    return "\n".join([*lines, f"{finished} of {len(rows)} runs finished"])


def _cell(value: Any) -> str:
    return f"{'-' if value is None else f'{value:.4g}':>12}"
