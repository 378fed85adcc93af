"""What the sweeps with 21 x 21 betas say: the numbers of ``sweep_21x21.md``, from the tables beside it.

Rates, distortion and the ELBO are in nats per datum of test data. ``--data`` makes the file that was fitted.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from ppl_vae.experiments.program import markdown_table
from ppl_vae.experiments.rate_findings import rank_correlation

__all__ = ["main", "readings"]

MODELS = ("ghvae", "lvae")
EMPTY = 0.05  # of the total rate
SAME = 0.05  # of the range of the distortion, within which settings are not told from the best


def readings(table: pd.DataFrame) -> dict[str, str]:
    """The numbers of a sweep.

    Args:
        table: A row a fit: ``beta_<site>`` and ``rate_<site>_test`` of z1 and z2, ``distortion_test``,
            ``psnr_test``, ``elbo_test``.
    """
    t = table.rename(columns=lambda name: name.removesuffix("_test"))
    total = t["rate_z1"] + t["rate_z2"]
    empty = {site: t[f"rate_{site}"] < EMPTY * total for site in ("z1", "z2")}
    dearer = {site: t[f"beta_{site}"] > t[f"beta_{other}"] for site, other in (("z1", "z2"), ("z2", "z1"))}
    best_psnr, best_elbo = t.loc[t["psnr"].idxmax()], t.loc[t["elbo"].idxmax()]
    falls, most = _falls(t)
    limit = t["distortion"].min() + SAME * np.ptp(t["distortion"])
    near = t[t["distortion"] <= limit]
    return {
        "largest R(z2), R(z1 given z2)": f"{t['rate_z2'].max():.1f}, {t['rate_z1'].max():.1f}",
        "R(z2), R(z1 given z2) at betas of 1": _rates(t, 1.0),
        "the same at betas of 0.1": _rates(t, 0.1),
        "fits with a rate below 5 % of the total": f"{(empty['z1'] | empty['z2']).mean():.0%}",
        "z2 so, where its beta is the larger one": f"{empty['z2'][dearer['z2']].mean():.0%}",
        "z1 so, where its beta is the larger one": f"{empty['z1'][dearer['z1']].mean():.0%}",
        "rank correlation of a rate with its own beta, the other fixed; weakest of 42 lines": f"{_weakest(t):.2f}",
        "rank correlation of PSNR with the total rate": f"{rank_correlation(t['psnr'], total):.2f}",
        "the same with R(z2) at one total rate": f"{rank_correlation(t['psnr'], t['rate_z2'], total):.2f}",
        "best PSNR [dB] at beta z1, z2": f"{best_psnr['psnr']:.1f} at {_betas(best_psnr)}",
        "best ELBO at beta z1, z2": f"{best_elbo['elbo']:.1f} at {_betas(best_elbo)}",
        "weighted objective falls between neighbours, most nats": f"{falls:.0%}, {most:.0f}",
        "settings within 5 % of the range of the best distortion; their R(z2)": f"{len(near)}; "
        f"{near['rate_z2'].min():.1f} to {near['rate_z2'].max():.1f}",
    }


def _rates(t: pd.DataFrame, beta: float) -> str:
    row = t[np.isclose(t["beta_z1"], beta) & np.isclose(t["beta_z2"], beta)].iloc[0]
    return f"{row['rate_z2']:.1f}, {row['rate_z1']:.1f}"


def _betas(row: pd.Series) -> str:
    return f"{row['beta_z1']:.2g}, {row['beta_z2']:.2g}"


def _weakest(t: pd.DataFrame) -> float:
    pairs = (("z1", "z2"), ("z2", "z1"))
    lines = [(site, line) for site, other in pairs for _, line in t.groupby(f"beta_{other}")]
    return max(rank_correlation(line[f"rate_{site}"], line[f"beta_{site}"]) for site, line in lines)


def _falls(t: pd.DataFrame) -> tuple[float, float]:
    """Share of neighbours of which that with the larger beta has the smaller objective; by how much at most."""
    weighted = t["distortion"] + t["beta_z1"] * t["rate_z1"] + t["beta_z2"] * t["rate_z2"]
    grid = (
        weighted.to_frame("value")
        .join(t[["beta_z1", "beta_z2"]])
        .pivot(index="beta_z1", columns="beta_z2", values="value")
    )
    steps = np.concatenate([np.diff(grid.to_numpy(), axis=axis).ravel() for axis in (0, 1)])
    return float((steps < 0).mean()), float(-steps.min())


def main(arguments: list[str] | None = None) -> None:
    """Print the table, or make the data.

    Args:
        arguments: Words of the command line; see ``--help``.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="write the 8000 images of Fashion-MNIST to this .npz, and end")
    options = parser.parse_args(arguments)
    if options.data is not None:
        from ppl_vae.data import load

        data = load("fashion-mnist")
        labels = None if data.labels is None else data.labels[:8000]
        np.savez(options.data, x=data.x[:8000], y=np.asarray(labels))
        return
    folder = Path(__file__).parent
    columns = [readings(pd.read_csv(folder / f"sweep_21x21_{model}.csv")) for model in MODELS]
    rows = [[name, *(column[name] for column in columns)] for name in columns[0]]
    print(markdown_table(["", *(model.upper() for model in MODELS)], rows))


if __name__ == "__main__":
    main(sys.argv[1:])
