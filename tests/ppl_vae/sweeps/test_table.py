"""Rows of a sweep's table, from records of runs."""

from ppl_vae.objective.terms import SITE_TERM
from ppl_vae.sweeps.grid import Point
from ppl_vae.sweeps.table import page, row
from ppl_vae.training.prepared import SPLITS

POINT = Point(betas={"z2": 1.0, "z1": 0.5}, seed=0)


def record(how, **more):
    """A finished run's, with the same numbers on every split."""
    values = {"loss": 9.0, "distortion": 6.0, "rates": {"z1": 1.0, "z2": 2.0}, "elbo": -9.0, "log_px": -8.0}
    values |= {"active_units": {"z1": 3, "z2": 4}, **more}
    result = {name: dict.fromkeys(SPLITS, value) for name, value in values.items()}
    return {"status": "finished", "best_epoch": 1, "how": how, "result": result}


def test_a_site_term_has_a_column_of_that_name():
    found = row(POINT, record({"z1": SITE_TERM, "z2": "analytic"}))
    assert (found["site_term_z1_test"], found["rate_z2_test"], found["total_rate_test"]) == (1.0, 2.0, 3.0)
    assert "rate_z1_test" not in found
    head = page([found]).splitlines()[0]
    assert "term z1" in head
    assert "rate z2" in head


def test_rates_per_member_stand_beside_those_per_group():
    per_member = {"z1": 0.1, "z2": 0.2}
    found = row(POINT, record({"z1": "analytic", "z2": "analytic"}, members=10.0, rates_per_member=per_member))
    assert (found["rate_z1_test"], found["per_member_rate_z1_test"], found["members_test"]) == (1.0, 0.1, 10.0)
    assert all(value is None or isinstance(value, int | float | str) for value in found.values())
