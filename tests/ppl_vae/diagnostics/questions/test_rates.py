"""What each nat bought, of an exactly solved model, and a rate that is measured with its beta on."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from ppl_vae.diagnostics.questions.question import Case
from ppl_vae.diagnostics.questions.rates import QUESTION
from tests.exact_engine import ExactEngine
from tests.helpers import NUMPYRO_SLOW, build_engine

BETA = 4.0


class Scaled(ExactEngine):
    """Reports its rates times a factor, as a diagnosis with the scale of a beta on would."""

    factor = BETA

    def inspect(self, x, **options):
        found = super().inspect(x, **options)
        return replace(found, rates={name: self.factor * rate for name, rate in found.rates.items()})


def answer(engine, num_data=1000, beta=BETA):
    run = SimpleNamespace(record={"betas": dict.fromkeys(engine.latents, beta)})
    return QUESTION.answer(Case(run, engine, engine.draw_data(num_data), None, None, None, 0, num_draws=25))


def test_rates_of_an_exact_model_are_unscaled_and_buy_information():
    engine = ExactEngine((1.5, 0.7, 0.0))
    found = answer(engine)
    assert (found.verdict, found.cause) == ("good", "")
    check = found.numbers["checks"]["z"]
    # The rate of the exact posterior is I(x; z), whatever beta is; the spread of a datum's rate is below 1.5 nats.
    assert check["rate"] == pytest.approx(engine.mutual_information, abs=4 * 1.5 / np.sqrt(1000))
    assert abs(check["difference"]) < 4 * check["standard_error"]
    assert found.answer.startswith(f"{check['rate']:.2f} nats a datum, of which z tells")
    information = found.numbers["information"]
    assert information["marginal_kl"] == pytest.approx(
        0.0, abs=5 * information["marginal_kl_standard_error"] + 0.02
    )


def test_a_rate_with_its_beta_on_is_found():
    found = answer(Scaled((1.5, 0.7, 0.0)))
    assert found.verdict == "bad"
    check = found.numbers["checks"]["z"]
    assert check["rate"] / check["drawn"] == pytest.approx(BETA, rel=0.05)
    assert f"but that of its draws {check['drawn']:.3f}" in found.answer
    assert "the rate of z is measured with its beta 4 on" in found.cause


def test_a_closed_form_of_other_densities_is_found():
    engine = Scaled((1.5, 0.7, 0.0))
    engine.factor = 1.3
    found = answer(engine)
    assert found.verdict == "bad"
    assert "the closed form of the rate of z does not belong to the densities" in found.cause


def test_sampled_rates_agree_with_themselves():
    assert answer(ExactEngine((1.5, 0.7), sampled=True)).verdict == "good"


def test_nats_that_pay_for_the_place_of_the_codes():
    # Codes one after the other far from the prior: each unit is 6 posterior standard deviations off.
    found = answer(ExactEngine((0.4, 0.4), shift=6.0))
    assert found.verdict == "warning"
    assert "pays for codes that are not where the prior is" in found.cause


@NUMPYRO_SLOW
@pytest.mark.parametrize("variant", ["mhvae", "ghvae"])
def test_a_bottom_up_guide_is_named(backend, variant):
    engine = build_engine(backend, variant, (4,), latent_dims=[3, 2], hidden_dim=8, num_hidden=1)
    run = SimpleNamespace(record={"betas": dict.fromkeys(engine.latents, 1.0)})
    x = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    found = QUESTION.answer(Case(run, engine, x, None, None, None, 0, num_draws=25))
    if variant == "ghvae":  # from the top down
        assert "bottom-up" not in found.cause
        assert any(line.startswith("rate of z1: ") for line in found.evidence)
        return
    assert found.verdict == "warning"
    assert found.answer.endswith("of which only the sum is a rate")
    assert found.cause.startswith("the guide is bottom-up: it draws z1 before its parents in the model")
    assert any(line.startswith("site term of z1, no rate: ") for line in found.evidence)
    assert any(line.startswith("from draws of z2: PSNR") for line in found.evidence)


def test_layers_are_priced_one_by_one():
    found = answer(ExactEngine((1.5, 0.7, 0.4), sites={"z2": 1, "z1": 2}))
    assert found.verdict == "good"
    assert "(z2 " in found.answer
    assert [layer["name"] for layer in found.numbers["layers"]["layers"]] == ["z2", "z1"]
    above = [" and those above: PSNR" in line for line in found.evidence if line.startswith("from draws of")]
    assert above == [False, True]
