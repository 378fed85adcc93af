"""A real Chromium, from the system's packages, and a report in it."""

import shutil

import pytest

import ppl_vae
import ppl_vae.training.fit as fit_module
from ppl_vae.report import write_report
from tests.helpers import needs
from tests.toy_fits import TOY

CHROMIUM = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)


def pytest_configure(config):
    config.addinivalue_line("markers", "browser: needs Chromium; run by `make test-browser`")


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/browser" in item.path.as_posix():
            item.add_marker(pytest.mark.browser)
            item.add_marker(needs("playwright", "torch", "pyro"))


@pytest.fixture(scope="session")
def chromium():
    from playwright.sync_api import sync_playwright

    assert CHROMIUM is not None, "no Chromium: install the system's package"
    with sync_playwright() as playwright:
        # A container's root has no sandbox.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def report_file(tmp_path_factory):
    """The report of two runs on the digits, one of them hierarchical, with an answer to a question."""
    folder = tmp_path_factory.mktemp("browser")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit_module, "_write_products", lambda run: None)
        runs = [
            ppl_vae.fit(
                variant, "digits", backend="pyro", epochs=2, likelihood="gaussian", out=folder / name, **options
            )
            for name, variant, options in (("flat", "beta_vae", TOY), ("levels", "ghvae", {"log_px_draws": 30}))
        ]
    answers = folder / "flat" / "diagnosis"
    answers.mkdir()
    answer = '{"verdict": "bad", "answer": "no", "evidence": ["one line"], "cause": "too short", "numbers": {}}'
    (answers / "fit.json").write_text(f'{{"key": {{}}, "answer": {answer}}}')
    return write_report(runs, out=folder / "report.html", title="Two runs <i>& more</i>").path


class Opened:
    """A page, with all that went wrong in it."""

    def __init__(self, browser, file, **options):
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(20_000)
        self.page, self.errors, self.requests = self.context.new_page(), [], []
        self.page.on("console", lambda message: self.errors.append(message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri())


@pytest.fixture
def opened(chromium, report_file):
    """Opens the report: a desktop by default; options are those of a browser context."""
    found = []

    def open_report(**options):
        options = {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light", **options}
        found.append(Opened(chromium, report_file, **options))
        return found[-1]

    yield open_report
    for one in found:
        one.context.close()
        assert one.errors == []
