"""A report in a real browser: it opens from the disk, works by mouse and keyboard, and fits a phone."""

import pytest

PHONE = {"viewport": {"width": 375, "height": 800}, "is_mobile": True, "has_touch": True}


def first_figure(page):
    """Figures are drawn when they come near to what is seen."""
    plot = page.locator(".plot").first
    plot.scroll_into_view_if_needed()
    plot.locator(".main-svg").first.wait_for()


def luminance_of(page, selector, quality):
    """Mean of the channels of a colour as it is computed, 0 to 255."""
    text = page.locator(selector).first.evaluate(f"(node) => getComputedStyle(node).{quality}")
    channels = text[text.index("(") + 1 : text.index(")")].split(",")[:3]
    return sum(float(channel) for channel in channels) / 3


def test_it_opens_from_the_disk_and_asks_the_network_for_nothing(opened, report_file):
    found = opened(offline=True)
    first_figure(found.page)
    for plot in found.page.locator(".plot:visible").all():
        plot.scroll_into_view_if_needed()
        plot.locator(".main-svg").first.wait_for()
    assert {url for url in found.requests if not url.startswith(("data:", "blob:"))} == {report_file.as_uri()}
    assert found.page.title() == "Two runs <i>& more</i>"
    assert found.page.locator("h1 i").count() == 0


def test_tabs_by_mouse(opened):
    page = opened().page
    panel = page.get_by_role("tabpanel", name="Traversals")
    assert panel.count() == 0
    page.get_by_role("tab", name="Traversals").click()
    panel.wait_for()
    assert panel.locator("img").count() >= 8
    assert page.get_by_role("tab", name="Traversals").get_attribute("aria-selected") == "true"
    assert page.get_by_role("tabpanel", name="Reconstructions").count() == 0


def test_tabs_by_keyboard(opened):
    page = opened().page
    page.get_by_role("tab", name="Maps").focus()
    names = []
    for key in ("ArrowRight", "ArrowRight", "End", "ArrowRight", "ArrowLeft", "Home"):
        page.keyboard.press(key)
        names.append(page.evaluate("document.activeElement.textContent"))
    assert names == ["Units", "Forecast", "Classes", "Maps", "Classes", "Maps"]
    tabs = page.locator("#latents [role=tab]")
    # One tab is in the order of the keyboard; its panel follows it.
    assert [tab.get_attribute("tabindex") for tab in tabs.all()] == ["0", "-1", "-1", "-1"]
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('role')") == "tabpanel"


def test_a_figure_in_a_hidden_tab_is_drawn_when_it_is_shown(opened):
    page = opened().page
    page.get_by_role("tab", name="Units").click()
    plot = page.locator("#latents-panel-1 .plot").first
    plot.scroll_into_view_if_needed()
    plot.locator(".main-svg").first.wait_for()
    box, card = plot.locator(".main-svg").first.bounding_box(), plot.bounding_box()
    assert box["width"] == pytest.approx(card["width"], abs=2)


def test_tables_sort_by_mouse_and_keyboard(opened):
    page = opened().page
    page.get_by_role("tab", name="Classes").click()
    table = page.locator("#latents-panel-3 table").first
    head = table.get_by_role("columnheader", name="distortion")

    def cells():
        return [float(text) for text in table.locator("tbody tr td:nth-child(3)").all_inner_texts()]

    before = cells()
    assert head.get_attribute("aria-sort") == "none"
    head.get_by_role("button").click()
    assert (head.get_attribute("aria-sort"), cells()) == ("ascending", sorted(before))
    head.get_by_role("button").press("Enter")
    assert (head.get_attribute("aria-sort"), cells()) == ("descending", sorted(before, reverse=True))
    table.get_by_role("columnheader", name="class").get_by_role("button").press("Space")
    assert head.get_attribute("aria-sort") == "none"
    assert cells() == before


def test_missing_numbers_sort_to_the_end(opened):
    page = opened().page
    table = page.locator("#comparison table")
    head = table.get_by_role("columnheader", name="levels", exact=True)
    for _ in range(2):
        head.get_by_role("button").click()
        texts = table.locator("tbody tr td:nth-child(3)").all_inner_texts()
        known = [text != "–" for text in texts]
        assert known == sorted(known, reverse=True)
        assert not all(known)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_is_the_system_s_until_it_is_toggled(opened, scheme):
    page = opened(color_scheme=scheme).page
    first_figure(page)
    toggle = page.get_by_role("button", name="Dark theme")

    def is_dark():
        ground, text = luminance_of(page, "body", "backgroundColor"), luminance_of(page, "body", "color")
        figure = luminance_of(page, ".plot .xtick text", "fill")
        assert abs(figure - text) < 2  # figures follow
        return ground < text

    assert is_dark() == (scheme == "dark")
    assert toggle.get_attribute("aria-pressed") == str(is_dark()).lower()
    toggle.click()
    assert is_dark() == (scheme == "light")
    toggle.click()
    assert is_dark() == (scheme == "dark")


def test_it_follows_a_system_that_changes(opened):
    page = opened().page
    first_figure(page)
    page.emulate_media(color_scheme="dark")
    page.locator(".theme[aria-pressed=true]").wait_for()
    assert luminance_of(page, ".plot .xtick text", "fill") > 128


def test_a_phone_scrolls_down_only(opened):
    page = opened(**PHONE).page
    for tab in page.get_by_role("tab").all():
        tab.click()
        assert page.evaluate("document.documentElement.scrollWidth") == 375
    # A wide table scrolls inside its box.
    box = page.locator("#comparison .scroll")
    assert box.evaluate("(node) => node.scrollWidth > node.clientWidth")
    assert page.locator("#comparison .card").bounding_box()["width"] <= 375


def test_the_keyboard_skips_to_the_content(opened):
    page = opened().page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_the_navigation_stays_and_says_where_one_is(opened):
    page = opened().page
    page.get_by_role("navigation").get_by_role("link", name="Latents").click()
    page.locator(".bar [aria-current]", has_text="Latents").wait_for()
    assert page.locator(".bar").bounding_box()["y"] == pytest.approx(0.0, abs=1)


def test_print_shows_every_tab_in_light_colours(opened, tmp_path):
    page = opened(color_scheme="dark").page
    hidden = page.locator(".panel[hidden]").count()
    assert hidden > 0
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.locator(".panel[hidden]").count() == 0
    for plot in page.locator(".plot").all():
        plot.locator(".main-svg").first.wait_for(state="attached")
    assert luminance_of(page, ".plot .xtick text", "fill") < 128
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator(".panel[hidden]").count() == hidden


def test_without_scripts_everything_can_be_read(opened):
    page = opened(java_script_enabled=False).page
    assert page.locator(".panel:visible").count() == page.locator(".panel").count()
    assert page.get_by_text("Figures, tabs and sorting need JavaScript.").is_visible()
    assert page.locator("table:visible").count() == page.locator("table").count()


@pytest.mark.parametrize("name", ["light", "dark", "phone"])
def test_screenshots_to_look_at(opened, tmp_path, name):
    page = opened(**(PHONE if name == "phone" else {"color_scheme": name})).page
    first_figure(page)
    path = tmp_path / f"report-{name}.png"
    page.screenshot(path=path)
    assert path.stat().st_size > 20_000
