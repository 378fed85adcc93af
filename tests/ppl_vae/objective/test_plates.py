"""What the plate over data, and plates around and inside it, do to terms per datum."""

import numpy as np
import pytest

from ppl_vae.errors import InputError
from ppl_vae.objective.elbo import ELBO

X = np.arange(20.0).reshape(4, 5) / 10
# q = N(x/2, 1), p = N(0, 1): KL = x^2 / 8; nothing is drawn, so each term is exact.
NOISE = {"z": np.zeros((4, 5))}
RATES, DISTORTIONS = X**2 / 8, 0.5 * (X / 2) ** 2 + 0.5 * np.log(2 * np.pi)


def pair(ppl, plates):
    """One latent for each of 4 x 5 numbers, in two nested plates, entered in the order given."""

    def enter(body):
        outer, inner = plates(ppl)
        with outer, inner:
            body()

    def model(x):
        def body():
            z = ppl.sample("z", ppl.dist.Normal(ppl.array(np.zeros((4, 5))), 1.0))
            ppl.sample("x", ppl.dist.Normal(z, 1.0), obs=x)

        enter(body)

    def guide(x):
        enter(lambda: ppl.sample("z", ppl.dist.Normal(x / 2, 1.0)))

    return model, guide


ORDERS = {
    # Data with pixels inside them: four data.
    "pixels inside, explicit": (lambda p: (p.plate("data", 4, dim=-2), p.plate("pixels", 5, dim=-1)), 4),
    # Groups of data: twenty data. Libraries place plates from the right in order of entry.
    "groups outside, explicit": (lambda p: (p.plate("group", 4, dim=-2), p.plate("data", 5, dim=-1)), 20),
    "groups outside, on the right": (lambda p: (p.plate("group", 5, dim=-1), p.plate("data", 4, dim=-2)), 20),
    "pixels inside, on the left": (lambda p: (p.plate("data", 5, dim=-1), p.plate("pixels", 4, dim=-2)), 5),
}


@pytest.mark.parametrize("order", ORDERS)
def test_terms_are_per_datum_whatever_encloses_or_divides_the_data(ppl, order):
    plates, num_data = ORDERS[order]
    found = ppl.numbers(ppl.terms(ELBO(), pair(ppl, plates), ppl.array(X), noise=NOISE))
    # The same sums in float64: only rounding differs.
    np.testing.assert_allclose(found["rate/z"], RATES.sum() / num_data, rtol=1e-12)
    np.testing.assert_allclose(found["distortion"], (DISTORTIONS + 0.0).sum() / num_data, rtol=1e-12)


def test_data_outside_the_plate_are_found_out(ppl):
    plates, _ = ORDERS["groups outside, explicit"]
    program = ppl.program(pair(ppl, plates), ppl.array(X), noise=NOISE, data_plate="batch")

    def check(traces, _):
        with pytest.raises(InputError, match="model must observe 'x' in the plate 'batch', but does so outside"):
            traces.check_data_plate("batch")
        return {}

    assert check(program.run(), program) == {}
    ppl.program(pair(ppl, plates), ppl.array(X), noise=NOISE).run().check_data_plate("data")


@pytest.mark.parametrize("given", [2.0, 1e-30])
def test_a_beta_that_is_left_out_is_found_out(ppl, given):
    plates, _ = ORDERS["groups outside, explicit"]
    traces = ppl.program(pair(ppl, plates), ppl.array(X), noise=NOISE).run()
    traces.check_betas({"z": 1.0})
    with pytest.raises(
        InputError, match=r"site 'z' must be scaled by betas\['z'\], but .* it is scaled by 1; put"
    ):
        traces.check_betas({"z": given})
