import json
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from ppl_vae.advice import Spread, advise, advise_sweep, draw_advice
from ppl_vae.cli import main
from ppl_vae.diagnostics import sweep_metrics
from ppl_vae.diagnostics.sweep_metrics import read_sweep
from ppl_vae.errors import InputError

# A digits sweep of arXiv:2302.04855's kind: beta_1, beta_2, R(z2), R(z1|z2), D, accuracy of an RBF SVM on
# samples of z2, means over three seeds as measured for section 8 of its sheet.
MEASURED = """
0.1 0.1 6.11 21.20 -36.61 0.751
0.1 1 0.0003 29.81 -36.72 0.097
0.1 10 0.0001 30.30 -36.69 0.097
1 0.1 12.71 2.37 -30.74 0.904
1 1 2.37 6.63 -29.51 0.457
1 10 0.0002 9.23 -29.31 0.097
10 0.1 12.26 0.11 -17.79 0.840
10 1 2.93 0.053 -6.90 0.558
10 10 0.013 1.06 1.27 0.105
"""
SPREAD = np.array([-1.0, 0.0, 1.0])


def rows_of(metric=True, spread=0.1):
    """Three seeds a point, whose numbers differ by known steps."""
    for line in MEASURED.strip().splitlines():
        beta_1, beta_2, top, bottom, distortion, accuracy = map(float, line.split())
        for seed, step in enumerate(spread * SPREAD):
            row = {"run": f"runs/{beta_1}-{beta_2}-{seed}", "seed": seed, "status": "finished"}
            row |= {"beta_z1": beta_1, "beta_z2": beta_2, "distortion_test": distortion + step}
            row |= {"rate_z1_test": bottom * (1 + step / 10), "rate_z2_test": top * (1 + step / 10)}
            yield row | ({"accuracy_z2": accuracy + step / 10} if metric else {})


@pytest.fixture
def folder(tmp_path):
    def write(rows):
        pd.DataFrame(rows).to_csv(tmp_path / "table.csv", index=False)
        return tmp_path

    return write


class TestAdvice:
    def test_uses_have_different_optima(self, folder):
        path = folder(rows_of())
        reconstruction, _ = advise_sweep(path, "reconstruction")
        classification, _ = advise_sweep(path, "classification")
        assert reconstruction.best.betas == {"z2": 1.0, "z1": 0.1}
        assert classification.best.betas == {"z2": 0.1, "z1": 1.0}
        assert (reconstruction.metric, classification.metric) == ("distortion", "accuracy_z2")

    def test_numbers_of_the_best_point(self, folder):
        found, _ = advise_sweep(folder(rows_of()), "classification")
        assert list(found.target_rates) == ["z2", "z1"]  # top first
        assert found.target_rates == pytest.approx({"z2": 12.71, "z1": 2.37})
        assert found.best.metric.mean == pytest.approx(0.904)
        assert found.best.metric.deviation == pytest.approx(0.01)  # of steps -0.01, 0, 0.01
        assert found.best.rates["z2"].deviation == pytest.approx(0.1271)
        assert found.best.total_rate.mean == pytest.approx(15.08)
        assert (found.num_points, found.num_runs, found.best.num_seeds) == (9, 27, 3)

    def test_region_holds_what_cannot_be_told_from_the_best(self, folder):
        found, _ = advise_sweep(folder(rows_of()), "reconstruction")
        # 5 % of the range of 38 nats: the three points of the smallest beta_1.
        assert found.tolerance == pytest.approx(0.05 * (1.27 + 36.72))
        assert found.num_in_region == 3
        assert found.region["z2"] == pytest.approx((0.0001, 6.11))
        assert found.region["total"] == pytest.approx((27.31, 30.3001))
        assert found.cheapest.betas == {"z2": 0.1, "z1": 0.1}

    def test_noise_of_seeds_widens_the_region(self, folder):
        found, _ = advise_sweep(folder(rows_of(spread=10.0)), "classification")
        # Every point has the deviation 1: twice sqrt(2/3).
        assert found.tolerance == pytest.approx(2 * np.sqrt(2 / 3))
        assert found.num_in_region == 9

    def test_notes(self, folder):
        found, _ = advise_sweep(folder(rows_of()), "classification")
        assert found.notes == ["beta z2=0.1 is the smallest that was tried: the best may lie beyond"]
        single = [row for row in rows_of() if row["seed"] == 0 and row["beta_z1"] == row["beta_z2"]]
        found, _ = advise_sweep(folder(single), "reconstruction")
        assert any("with equal betas only the total rate is determined" in note for note in found.notes)
        assert any("one seed a setting" in note for note in found.notes)

    def test_page(self, folder):
        page = advise_sweep(folder(rows_of()), "reconstruction")[0].table()
        assert "9 settings of the betas in 27 runs" in page
        assert "--beta z2=1 --target-rate z1=29.8" in page  # a layer that is not in use keeps its beta
        assert max(map(len, page.splitlines())) <= 100

    def test_psnr_is_told_of_reconstructions(self, folder):
        rows = [{**row, "psnr_test": 20.0 + row["seed"]} for row in rows_of()]
        found, _ = advise_sweep(folder(rows), "reconstruction")
        assert found.best.psnr == Spread(21.0, 1.0)
        assert found.to_dict()["best"]["psnr"] == {"mean": 21.0, "deviation": 1.0}
        assert len(re.findall(r"PSNR\s+21\s+\+-\s+1\s+dB", found.table())) == 2  # of the best and the cheapest
        assert "PSNR" not in advise_sweep(folder(rows), "classification")[0].table()
        assert advise_sweep(folder(rows_of()), "reconstruction")[0].best.psnr is None

    def test_a_site_term_is_no_rate_to_ask_for(self, folder):
        rows = [
            {name.replace("rate_z1", "site_term_z1"): value for name, value in row.items()} for row in rows_of()
        ]
        found, runs = advise_sweep(folder(rows), "reconstruction")
        assert runs.site_terms == {"z1"}
        assert found.best.rates["z1"].mean == pytest.approx(29.81)
        assert set(found.target_rates) == {"z2"}
        page = found.table()
        assert "ask for    --beta z2=1 --beta z1=0.1" in page
        assert "of z1 is a site term, no rate" in page

    def test_one_level(self, folder):
        rows = [
            {"run": f"{b}", "beta_z": b, "rate_z_test": 4 / b, "distortion_test": b, "elbo_test": 0}
            for b in (1, 2, 4)
        ]
        found, runs = advise_sweep(folder(rows), "reconstruction")
        assert found.target_rates == {"z": 4.0}
        draw_advice(runs.path / "plane.png", found, runs)
        assert imread(runs.path / "plane.png").std() > 0

    def test_nan_metrics_are_left_out(self, folder):
        sweep = read_sweep(folder(rows_of()))
        sweep.table.loc[sweep.table["beta_z2"] == 0.1, "accuracy_z2"] = np.nan
        found = advise(sweep, "classification", "accuracy_z2")
        assert (found.num_runs, found.num_left_out) == (18, 9)
        assert found.best.betas == {"z2": 1.0, "z1": 10.0}
        sweep.table["accuracy_z2"] = np.nan
        with pytest.raises(InputError, match="accuracy_z2 must be finite in some run"):
            advise(sweep, "classification", "accuracy_z2")


class TestReading:
    def test_only_finished_runs_count(self, folder):
        rows = list(rows_of())
        rows[0]["status"], rows[1]["rate_z1_test"] = "failed", None
        found = read_sweep(folder(rows))
        assert (len(found.table), found.num_left_out) == (25, 2)
        assert found.sites == ["z2", "z1"]
        np.testing.assert_allclose(found.table["total_rate"], found.table["rate_z1"] + found.table["rate_z2"])

    def test_other_splits(self, folder):
        rows = [{**row, "rate_z1_train": 1.0, "rate_z2_train": 2.0, "distortion_train": 3.0} for row in rows_of()]
        found = read_sweep(folder(rows), split="train").table
        assert set(found["total_rate"]) == {3.0}
        assert set(found["distortion"]) == {3.0}

    @pytest.mark.parametrize(
        ("drop", "message"),
        [
            ("beta_z1", "table.csv must have the column beta_z1, but it has .*; pass the folder of a sweep"),
            ("distortion_test", "must have the column distortion_test"),
            ("rate", "must have the column rate_<site>_test"),
        ],
    )
    def test_columns_that_are_missing(self, folder, drop, message):
        path = folder([{k: v for k, v in row.items() if not k.startswith(drop)} for row in rows_of()])
        with pytest.raises(InputError, match=message):
            read_sweep(path)

    def test_other_mistakes(self, folder, tmp_path):
        with pytest.raises(InputError, match="sweep must be a folder with table.csv, but .* has none"):
            read_sweep(tmp_path)
        path = folder([{**row, "status": "waiting"} for row in rows_of()])
        with pytest.raises(InputError, match="the sweep must have a finished run, but none of 27"):
            read_sweep(path)
        (tmp_path / "table.csv").write_text("")
        with pytest.raises(InputError, match="must be a table of comma-separated values"):
            read_sweep(tmp_path)
        path = folder(rows_of())
        with pytest.raises(InputError, match="site must be one of z2, z1, but it is 'z3'"):
            advise_sweep(path, "classification", site="z3")
        with pytest.raises(InputError, match="use must be one of reconstruction, classification, generation"):
            advise_sweep(path, "art")


class TestMeasuring:
    @pytest.fixture
    def counted(self, folder, monkeypatch):
        """A sweep without metrics, whose runs are measured by reading a number from their folder's name."""
        path, calls = folder(rows_of(metric=False)), []
        for row in rows_of():
            (path / row["run"]).mkdir(parents=True)
            (path / row["run"] / "run.json").write_text("{}")

        def measure(run):
            calls.append(run.name)
            beta_1, beta_2, _ = map(float, run.name.split("-"))
            return {"accuracy_z2": 1 / (1 + beta_2), "accuracy_z1": 1 / (1 + beta_1)}

        monkeypatch.setattr(sweep_metrics.RunReader, "open", lambda self, path: path)
        monkeypatch.setattr(sweep_metrics, "_probe_run", measure)
        return path, calls

    def test_what_is_missing_is_measured_once(self, counted):
        path, calls = counted
        lines = []
        first, _ = advise_sweep(path, "classification", report=lines.append)
        assert len(calls) == len(lines) == 27
        assert lines[0].startswith("measuring accuracy_z2 of runs/0.1-0.1-0 (1 of 27)")
        again, _ = advise_sweep(path, "classification")
        # Measured along with the other.
        other, _ = advise_sweep(path, "classification", site="z1")
        assert len(calls) == 27
        assert again == first
        assert other.best.betas["z1"] == 0.1
        assert len(pd.read_csv(path / "metrics.csv")) == 27

    def test_a_run_that_changed_is_measured_again(self, counted):
        path, calls = counted
        advise_sweep(path, "classification")
        (path / "runs" / "1.0-1.0-0" / "run.json").write_text('{"other": 1}')
        calls.clear()
        advise_sweep(path, "classification")
        assert calls == ["1.0-1.0-0"]

    def test_a_broken_off_measurement_continues(self, counted, monkeypatch):
        path, calls = counted
        measure = sweep_metrics._probe_run

        def interrupted(run):
            if len(calls) == 5:
                raise KeyboardInterrupt
            return measure(run)

        monkeypatch.setattr(sweep_metrics, "_probe_run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            advise_sweep(path, "classification")
        monkeypatch.setattr(sweep_metrics, "_probe_run", measure)
        calls.clear()
        advise_sweep(path, "classification")
        assert len(calls) == 22

    def test_columns_of_a_measure_of_ones_own(self, counted):
        path, calls = counted
        sweep, lines = read_sweep(path), []

        def measure(run):
            calls.append(run.name)
            return {"length": len(run.name), "first": float(run.name[0]), "more": 0.0}

        options = {"cache_name": "own.csv", "report": lines.append}
        found = sweep_metrics.measure_runs(sweep, ["length", "first"], measure, **options)
        assert list(found.table.columns) == [*sweep.table.columns, "length", "first"]
        assert found.table["first"].tolist() == [float(run[5]) for run in found.table["run"]]
        assert lines[1].startswith("measuring 2 columns of runs/0.1-0.1-1 (2 of 27)")
        again = sweep_metrics.measure_runs(found, ["first", "more"], measure, **options)
        assert len(calls) == 27
        assert list(again.table.columns) == [*sweep.table.columns, "length", "first", "more"]
        assert not (path / "metrics.csv").exists()

    def test_a_damaged_cache_is_made_again(self, counted):
        path, calls = counted
        (path / "metrics.csv").write_text("a,b\n1,2\n")
        advise_sweep(path, "classification")
        assert len(calls) == 27

    def test_without_runs(self, folder):
        path = folder([{k: v for k, v in row.items() if k != "run"} for row in rows_of(metric=False)])
        with pytest.raises(InputError, match="accuracy_z2 must be measured on the runs, but .* has no column run"):
            advise_sweep(path, "classification")
        path = folder(rows_of(metric=False))
        with pytest.raises(InputError, match="cannot read .*run.json"):
            advise_sweep(path, "classification")


class TestCommand:
    def run(self, capsys, *words):
        with pytest.raises(SystemExit) as end:
            main(["advise", *map(str, words)])
        return (end.value.code or 0, *capsys.readouterr())

    def test_page_json_and_picture(self, folder, capsys):
        path = folder(rows_of())
        picture = path / "plane.png"
        code, out, err = self.run(capsys, path, "--use=classification", "--out", picture)
        assert code == 0
        assert out.startswith("advice     for classification, from 9 settings")
        assert err == f"wrote {picture}\n"
        assert imread(picture).shape[2] == 4
        code, out, _ = self.run(capsys, path, "--use=classification", "--json")
        assert json.loads(out)["target_rates"]["z2"] == pytest.approx(12.71)

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ([], "Missing option '--use'"),
            (["--use=art"], "'art' is not one of"),
            (["--use=reconstruction", "--site=z9"], "error: site must be one of z2, z1"),
            (["--use=reconstruction", "--out=plane.txt"], "error: out must end in .png"),
        ],
    )
    def test_mistakes(self, folder, capsys, words, message):
        code, out, err = self.run(capsys, folder(rows_of()), *words)
        assert (code, out) == (2, "")
        assert re.search(re.escape(message), err)
