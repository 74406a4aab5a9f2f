"""The pages of an audit and of features, as a person uses them."""

import re

import pyarrow as pa
import pytest
from playwright.sync_api import expect

from pipeline.viewer.session import Session
from schemas.dataset import Dataset
from schemas.filters import load_filter
from schemas.overlays import FEATURES
from tests.browser.test_page import found_by_axe
from tests.builders import run
from tests.pipeline.viewer.serving import serving
from tests.shards import write_overlay

pytestmark = pytest.mark.browser


@pytest.fixture
def viewer(data, tmp_path_factory):
    """The address of a viewer of `data` with an audit and with features, in place of the one that compares."""
    out = tmp_path_factory.mktemp("audit") / "out"
    assert run("audit", data, out).code == 0
    dataset = Dataset.open(data)
    for shard, marker in dataset.markers.items():
        rows = dataset.regions(["key", "region_id", "status"], [shard]).to_pylist()
        rows = [row for row in rows if row["region_id"] and row["status"] == "ok"]
        vectors = pa.array([[1.0, len(row["key"]) / 9] for row in rows], pa.list_(pa.float16()))
        table = pa.table({name: [row[name] for row in rows] for name in ("key", "region_id")})
        for name in FEATURES:
            table = table.append_column(name, vectors)
        write_overlay(str(data), marker, "feats", table)
    session = Session(str(data), audit=str(out), features="feats")
    with serving(session) as client:
        yield client
    session.close()


def test_a_slider_shows_what_goes_and_what_stays_and_the_address_keeps_it(new_page):
    page = new_page("/audit")
    expect(page.get_by_role("link", name="Audit")).to_have_attribute("aria-current", "page")
    field = page.get_by_label("Fewest words: threshold")
    field.fill("3")
    field.press("Enter")
    line = page.locator(".drops[data-filter=min_words]")
    expect(line).to_contain_text(re.compile(r"drops \d+ \("))
    expect(page).to_have_url(re.compile("min_words=3.*show=min_words"))
    expect(page.locator(".both h2")).to_contain_text("nearest to 3")
    dropped, kept = page.locator(".both section").nth(0), page.locator(".both section").nth(1)
    expect(dropped.locator("article").first).to_be_visible()
    assert all(len(text.split()) < 3 for text in dropped.locator(".caption").all_inner_texts())
    expect(kept).to_be_visible()
    told = line.inner_text()
    page.reload()
    expect(line).to_have_text(told)


def test_a_filter_is_switched_off_and_the_list_is_saved(new_page, data):
    page = new_page("/audit?min_words=3&show=min_words")
    page.get_by_role("button", name="Save as a filter list").click()
    said = page.locator("[role=status].quiet")
    expect(said).to_contain_text("--filter")
    path = re.search(r"in (.*chosen\.parquet)", said.inner_text()).group(1)
    before = len(load_filter(path).rows)
    assert before > 0
    for box in page.locator(".slider input[type=checkbox]").all():
        if box.is_checked():
            box.click()
            page.wait_for_load_state("networkidle")
    expect(page.locator(".both")).to_contain_text("No filter is on.")
    page.get_by_role("button", name="Save as a filter list").click()
    expect(said).to_contain_text("0 rows")


def test_the_map_leads_to_what_is_near(new_page):
    page = new_page("/crops")
    page.get_by_role("link", name="near").first.click()
    expect(page).to_have_url(re.compile(r"/map\?near="))
    expect(page.locator(".near article")).to_have_count(25)
    expect(page.locator(".map circle.chosen")).to_have_count(1)
    page.get_by_role("button", name="by caption").click()
    expect(page).to_have_url(re.compile("by=caption"))
    expect(page.get_by_role("button", name="by caption")).to_have_attribute("aria-pressed", "true")
    area = page.locator("svg.map").bounding_box()
    page.mouse.click(area["x"] + area["width"] * 0.9, area["y"] + area["height"] * 0.5)
    expect(page.locator(".near article").first).to_be_visible()


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (1440, "dark"), (390, "light")])
@pytest.mark.parametrize("path", ["/audit", "/map"])
def test_everybody_can_use_it(new_page, path, width, scheme):
    page = new_page(path, width=width, color_scheme=scheme, reduced_motion="reduce")
    assert found_by_axe(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
