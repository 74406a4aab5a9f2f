"""The viewer as a person uses it."""

import json
import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from pipeline.viewer.session import Session
from schemas.dataset import Dataset
from tests.browser.conftest import marks
from tests.pipeline.viewer.data import ATTACK, region_id, sample
from tests.pipeline.viewer.serving import serving
from tests.shards import write_shard

pytestmark = pytest.mark.browser


def cards(page):
    return page.locator("article.card")


def keys(page):
    return page.locator("article").evaluate_all("cards => cards.map((card) => card.dataset.key)")


def query(page):
    return page.evaluate("location.search")


def test_it_opens_with_boxes_on_every_image(new_page):
    page = new_page()
    expect(cards(page)).to_have_count(24)
    expect(page.locator(".counted")).to_have_text("36 regions in 34 images")
    first = cards(page).first
    expect(first.locator("svg.boxes g.box")).to_have_count(2)
    expect(first.locator(".regions li .text").first).to_contain_text("a red cat")
    assert first.locator("img").evaluate("image => image.naturalWidth") == 48
    placed = first.locator(".box .line").evaluate_all("lines => lines.map((line) => line.getAttribute('width'))")
    assert placed == ["10.5", "10.5"]


def test_filters_are_in_the_address_and_survive_a_reload(new_page):
    page = new_page()
    page.locator(".choice", has_text="dog").click()
    expect(page).to_have_url(re.compile(r"label=dog"))
    expect(cards(page)).to_have_count(2)
    page.get_by_label("Proposal score, smallest").fill("0.5")
    page.get_by_label("Proposal score, smallest").press("Enter")
    expect(page).to_have_url(re.compile(r"proposal_score=0\.5\.\."))
    page.reload()
    expect(cards(page)).to_have_count(2)
    expect(page.locator(".chips li")).to_have_count(3)
    expect(page.locator(".counted")).to_have_text("2 regions in 2 images")
    page.get_by_label("Remove label dog").click()
    expect(cards(page)).to_have_count(24)
    page.go_back()
    expect(cards(page)).to_have_count(2)


def test_a_range_is_chosen_by_dragging_over_its_histogram(new_page):
    page = new_page()
    plot = page.locator("fieldset.range svg").first
    area = plot.bounding_box()
    page.mouse.move(area["x"] + area["width"] * 0.05, area["y"] + 20)
    page.mouse.down()
    page.mouse.move(area["x"] + area["width"] * 0.5, area["y"] + 20)
    page.mouse.up()
    expect(page).to_have_url(re.compile(r"proposal_score=0\.03\.\.0\.5"))
    expect(cards(page)).to_have_count(1)


def test_search_by_keyboard(new_page):
    page = new_page()
    page.keyboard.press("/")
    page.keyboard.type("red cat")
    page.keyboard.press("Enter")
    expect(cards(page)).to_have_count(1)
    assert query(page) == "?q=red+cat"
    page.keyboard.press("/")
    page.keyboard.press("Delete")
    page.keyboard.type("nothing like it")
    page.keyboard.press("Enter")
    expect(page.locator(".empty")).to_contain_text("Nothing is selected")


def test_box_and_caption_light_up_together(new_page):
    page = new_page()
    first = cards(page).first
    line, box = (
        first.locator(f"li[data-region='{region_id('a', 1)}']"),
        first.locator(f"g[data-region='{region_id('a', 1)}']"),
    )
    line.hover()
    expect(box).to_have_class(re.compile(r"\bhot\b"))
    expect(first.locator("g.hot")).to_have_count(1)
    page.mouse.move(0, 0)
    expect(first.locator(".hot")).to_have_count(0)
    box.locator(".line").hover()
    expect(line).to_have_class(re.compile(r"\bhot\b"))


def test_pages_and_the_way_back(new_page):
    page = new_page()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".pager")).to_contain_text("Page 2 of 2")
    expect(cards(page)).to_have_count(10)
    page.keyboard.press("ArrowLeft")
    expect(cards(page)).to_have_count(24)
    assert query(page) == ""
    page.get_by_role("link", name="Next").click()
    page.reload()
    expect(cards(page)).to_have_count(10)


def test_a_random_sample_can_be_shared(new_page):
    page = new_page()
    page.keyboard.press("r")
    expect(page).to_have_url(re.compile(r"sort=random&seed=1"))
    expect(page.locator(".pager")).to_contain_text("of 2")
    shown = keys(page)
    other = new_page("/?sort=random&seed=1")
    assert keys(other) == shown and sorted(shown) != shown
    page.keyboard.press("r")
    expect(page).to_have_url(re.compile(r"seed=2"))


def test_an_open_image_zooms_and_shows_the_crop_at_its_original_size(new_page):
    page = new_page()
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    dialog = page.locator("dialog.detail")
    expect(dialog).to_be_visible()
    expect(dialog.locator("canvas.crop")).to_be_visible()
    assert dialog.locator("canvas.crop").evaluate("crop => [crop.width, crop.height]") == [11, 19]
    frame = dialog.locator(".stage .frame")
    page.keyboard.press("1")
    assert frame.evaluate("frame => frame.clientWidth") == 48
    page.keyboard.press("+")
    assert frame.evaluate("frame => frame.clientWidth") > 48
    expect(dialog.locator(".facts").last).to_contain_text("CC0-1.0")
    expect(dialog.locator(".regions li")).to_have_count(3)
    page.keyboard.press("ArrowRight")
    expect(dialog.locator("h2")).to_have_text("b")
    page.reload()
    expect(page.locator("dialog.detail h2")).to_have_text("b")
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)
    assert query(page) == ""


def test_marks_are_saved_and_seen_again(new_page, data):
    page = new_page("/?open=train-000000/a")
    page.keyboard.press("x")
    line = page.locator(f"dialog li[data-region='{region_id('a', 0)}']")
    expect(line.locator(".mark.bad")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("n")
    page.locator("textarea").fill("not a <b>cat</b>")
    page.get_by_role("button", name="Save").click()
    expect(line.locator(".mark.note")).to_have_attribute("title", "Note: not a <b>cat</b>")
    dataset = Dataset.open(data, filters=[data / "marks.jsonl"])
    assert [region.caption for region in dataset.read_sample("a").record.regions] == ["a dog"]
    page.reload()
    expect(line.locator(".mark.bad")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Escape")
    button = cards(page).first.locator("li").first.locator(".mark.bad")
    expect(button).to_have_attribute("aria-pressed", "true")
    cards(page).first.locator("li").first.hover()
    button.click()
    expect(button).to_have_attribute("aria-pressed", "false")
    assert len(marks(data)) == 1 and '"keep":true' in marks(data)[0]


def test_a_caption_stays_text_everywhere(new_page):
    for path in ("/?key=d", "/compare?key=d", "/dataset", "/?q=onerror&open=train-000001/d"):
        page = new_page(path)
        if path != "/dataset":
            expect(page.get_by_text(ATTACK).first).to_be_visible()
        assert page.locator("img[src=x]").count() == 0 and "owned" not in page.title()


def test_a_hostile_address_stays_text(new_page):
    page = new_page("/?q=%3Cimg+src%3Dx+onerror%3Dalert(1)%3E&label=%3Cscript%3Ealert(1)%3C/script%3E")
    expect(page.locator(".chips")).to_contain_text("<img src=x onerror=alert(1)>")
    assert page.locator("img[src=x], .chips script").count() == 0


def test_a_caption_is_corrected_and_the_correction_taken_back(new_page, data):
    page = new_page()
    line = cards(page).first.locator("li").first
    line.focus()
    page.keyboard.press("e")
    page.get_by_label("Caption", exact=True).fill("a <b>ginger</b> cat")
    page.get_by_label("Label", exact=True).fill("tom cat")
    page.get_by_role("button", name="Save").click()
    expect(line.locator(".text")).to_contain_text("a <b>ginger</b> cat")
    expect(line.locator(".label")).to_contain_text("tom cat")
    expect(line.locator(".edited").first).to_have_attribute("title", "before: a red cat")
    seen = Dataset.open(data, overlays=["edits"]).read_sample("a").record.regions[0]
    assert (seen.caption, seen.label, seen.captioner) == ("a <b>ginger</b> cat", "tom cat", "edits")
    page.reload()
    expect(line.locator(".text")).to_contain_text("a <b>ginger</b> cat")
    page.keyboard.press("z")
    expect(line.locator(".text")).to_contain_text("ginger"), "after a reload there is nothing to take back"
    line.hover()
    line.get_by_label("Edit").click()
    page.get_by_label("Caption", exact=True).fill("?!")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".notice.error")).to_contain_text("the caption says nothing")
    page.keyboard.press("Enter")
    dialog = page.locator("dialog.detail")
    page.goto(page.url.split("?")[0] + "?open=train-000000/a")
    expect(dialog).to_be_visible()
    page.keyboard.press("e")
    page.get_by_label("Caption", exact=True).fill("a third text")
    page.get_by_label("Caption", exact=True).press("Control+Enter")
    expect(dialog.locator("li.selected .text")).to_contain_text("a third text")
    page.keyboard.press("z")
    expect(dialog.locator("li.selected .text")).to_contain_text("ginger")
    assert Dataset.open(data, overlays=["edits"]).read_sample("a").record.regions[0].label == "tom cat"
    new_page.complaints[:] = [said for said in new_page.complaints if "422" not in said]


def test_compare_shows_an_edit_beside_what_it_replaced(browser, data):
    session = Session(str(data))
    session.edit("train-000000", "a", region_id("a", 0), caption="a ginger cat", label="cat")
    session.close()
    session = Session(str(data), other="edits")
    with serving(session) as client:
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(f"{client.url}/compare?diff=changed")
        pairs = page.locator(".comparison .pair")
        expect(page.locator(".comparison")).to_have_count(1)
        expect(pairs.first.locator("mark")).to_have_text(["red", "ginger"])
        expect(pairs.first.locator(".verdict")).to_have_text("differs: caption")
        page.close()
    session.close()


def test_two_data_sets_side_by_side_with_the_differences_marked(new_page):
    page = new_page()
    page.keyboard.press("c")
    first = page.locator("article.comparison").first
    expect(first.locator(".frame img")).to_have_count(2)
    expect(first.locator(".pair.differs")).to_have_count(2)
    assert first.locator(".pair").first.locator("mark").all_inner_texts() == ["LOUD"]
    page.get_by_role("button", name="Only images that differ").click()
    expect(page.locator("article.comparison")).to_have_count(2)
    expect(page.locator(".tiles")).to_contain_text("5captions differ on the same box")
    page.reload()
    expect(page.locator("article.comparison")).to_have_count(2)
    assert keys(page) == ["a", "d"]
    first.locator(".pair").first.hover()
    expect(first.locator("g.hot")).to_have_count(2)


def test_bars_stay_in_their_plots_whatever_is_selected(browser, tmp_path):
    write_shard(str(tmp_path), [sample("a", {}, num_filtered=9)])
    session = Session(str(tmp_path))
    with serving(session) as client:
        page = browser.new_page()
        for path in ("?status=filtered", "?status=any", "crops?status=filtered", "dataset"):
            page.goto(f"{client.url}/{path}")
            page.wait_for_load_state("networkidle")
            plots = page.locator("svg.histogram").evaluate_all(
                "plots => plots.map((plot) => [plot.viewBox.baseVal.height, "
                "...[...plot.querySelectorAll('rect')].map((bar) => bar.y.baseVal.value)])"
            )
            assert len(plots) >= 3 and all(min(tops) >= 0 and max(tops) <= height for height, *tops in plots)
        page.close()
    session.close()


def test_filters_leave_the_numbers_of_regions_as_they_are(new_page):
    page = new_page()
    numbers = cards(page).first.locator(".chip")
    expect(numbers).to_have_text(["1", "2"])
    for path, shown in (
        ("/?label=dog&key=a", ["2"]),
        ("/?status=filtered&key=a", ["3"]),
        ("/?status=any&key=a", list("123")),
    ):
        page = new_page(path)
        expect(cards(page).first.locator(".chip")).to_have_text(shown)
        expect(cards(page).first.locator(".box text")).to_have_text(shown)
    page = new_page("/?label=dog&key=a&open=train-000000/a")
    expect(page.locator("dialog .chip")).to_have_text(["2", "1", "3"])


def test_counts_are_said_in_words(new_page):
    for path, said in (
        ("/?q=quiet", "1 image, no region"),
        ("/?q=two+shapes", "33 images, no region"),
        ("/?key=b", "1 region in 1 image"),
        ("/?q=zebra", "Nothing"),
    ):
        expect(new_page(path).locator(".counted")).to_have_text(said)


def test_scores_have_two_digits_and_lengths_one(new_page):
    page = new_page("/?key=a&open=train-000000/a")
    assert not re.search(r"\d\.\d{3}", page.locator("article").first.inner_text())
    expect(page.locator(".region .facts")).to_contain_text("0, 2, 10.5, 20.1 px")


def test_crops_are_judged_by_keyboard(new_page, data):
    page = new_page()
    page.keyboard.press("p")
    crops = page.locator("article.cutout")
    expect(crops).to_have_count(36)
    expect(page.locator(".counted")).to_have_text("36 regions in 34 images")
    expect(crops.first.locator(".caption")).to_have_text("a red cat")
    expect(crops.nth(1).locator("small b")).to_have_count(0)  # no number without a meaning
    expect(crops.first.locator("img")).to_have_js_property("naturalWidth", 11)
    page.keyboard.press("j")
    page.keyboard.press("x")
    expect(crops.first.locator(".mark.bad")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("j")
    page.keyboard.press("y")
    expect(crops.nth(1).locator(".mark.keep")).to_have_attribute("aria-pressed", "true")
    assert {region_id("a", 0), region_id("a", 1)} == {json.loads(line)["region_id"] for line in marks(data)}
    page.keyboard.press("Enter")
    expect(page.locator("dialog.detail h2")).to_have_text("a")
    expect(page.locator("dialog li.selected")).to_have_attribute("data-region", region_id("a", 1))
    page.keyboard.press("ArrowRight")
    expect(page.locator("dialog.detail h2")).to_have_text("b")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="bad", exact=True).click()
    expect(crops).to_have_count(1)
    expect(crops.first).to_have_attribute("data-region", region_id("a", 0))


def test_crops_share_filters_order_and_search_with_the_gallery(new_page):
    page = new_page("/?label=dog&sort=-area")
    page.get_by_role("link", name="Crops").click()
    assert query(page) == "?label=dog&sort=-area"
    expect(page.locator("article.cutout")).to_have_count(2)
    page.keyboard.press("/")
    page.keyboard.type("cat")
    page.keyboard.press("Enter")
    expect(page.locator(".empty")).to_contain_text("Nothing is selected")
    page.keyboard.press("g")
    expect(cards(page)).to_have_count(24)


def test_a_dead_or_boxless_region_says_why_it_has_no_crop(new_page):
    page = new_page("/crops?status=any&key=a")
    expect(page.locator("article.cutout")).to_have_count(3)
    expect(page.locator("article.cutout").last).to_contain_text("filtered: small")


def test_a_key_that_opens_a_note_is_not_typed_into_it(new_page):
    for path, before in (("/?open=train-000000/a", []), ("/crops", ["j"]), ("/", ["j", "Tab", "Tab"])):
        page = new_page(path)
        for key in [*before, "n"]:
            page.keyboard.press(key)
        expect(page.locator("textarea")).to_be_focused()
        expect(page.locator("textarea")).to_have_value("")


def test_it_works_behind_the_path_prefix_of_a_portal(new_page, viewer):
    page = new_page()
    for path in ("", "crops?label=dog", "compare?key=a", "dataset", "?open=train-000000/a"):
        prefix = viewer.url.replace(viewer.origin, f"{viewer.origin}/user/me/proxy/8000")
        asked = []
        page.on("request", lambda request, asked=asked: asked.append(request.url))
        page.goto(f"{prefix}/{path}")
        expect(page.locator("article, .totals").first).to_be_visible()
        page.wait_for_load_state("networkidle")
        assert len(asked) > 10 and all(address.startswith(prefix) for address in asked)
    page.keyboard.press("x")
    expect(page.locator("dialog li.selected .mark.bad")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Escape")
    for name in ("Crops", "Compare", "Data set", "Gallery"):
        page.get_by_role("link", name=name).click()
        expect(page.locator("article, .totals").first).to_be_visible()
        assert page.url.startswith(prefix)
    page.wait_for_load_state("networkidle")  # or a late request would come after this
    new_page.complaints.clear()  # the fixture knows one prefix only


@pytest.mark.parametrize(
    "open_", ["nonsense", "train-000000/nobody", "train-000009/a", "train-000000/a/b/c", "%00/%ff"]
)
def test_an_image_that_is_not_there_is_said(new_page, open_):
    page = new_page(f"/?open={open_}")
    expect(cards(page)).to_have_count(24)
    if open_ == "train-000000/a/b/c":
        expect(page.locator("dialog.detail h2")).to_have_text("a")
    else:
        expect(page.locator(".notice.error")).to_contain_text("there is no")
        assert all("404" in said for said in new_page.complaints)
        new_page.complaints.clear()


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (1440, "dark"), (390, "light")])
def test_everybody_can_use_it(new_page, width, scheme):
    """axe-core's rules: contrast, names, roles, landmarks, headings."""
    paths = ("/", "/?status=any", "/?q=zebra", "/crops?status=any", "/compare", "/dataset", "/?open=train-000000/a")
    for path in paths:
        page = new_page(path, width=width, color_scheme=scheme, reduced_motion="reduce")
        for key in {"/": "?", "/?open=train-000000/a": "n"}.get(path, ""):
            assert found_by_axe(page) == []
            page.keyboard.press(key)
            expect(page.locator("dialog.small")).to_be_visible()
        assert found_by_axe(page) == []


def found_by_axe(page):
    return [
        (rule["id"], node["target"], node["html"][:200])
        for rule in Axe().run(page).response["violations"]
        for node in rule["nodes"]
    ]


def test_the_keyboard_reaches_the_content_at_once(new_page):
    page = new_page()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("Tab")
    assert page.evaluate("document.querySelector('main').contains(document.activeElement)")


def test_the_data_set_page_says_that_totals_balance(new_page):
    page = new_page("/dataset")
    expect(page.locator(".balanced")).to_have_text(
        ["✓ 34 = 34 ok + 0 filtered + 0 dead", "✓ 69 = 36 ok + 33 filtered + 0 dead"]
    )
    expect(page.locator("section", has_text="Repeated captions")).to_contain_text("a dog")
    expect(page.locator("section.block", has_text="Licences")).to_contain_text("a/modelsome licence no trade")
    page.locator(".bars a", has_text="tree").click()
    expect(page.locator(".counted")).to_have_text("30 regions in 30 images")


def test_the_keyboard_is_explained(new_page):
    page = new_page()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)


def test_a_damaged_tar_shows_as_such_and_the_page_stays_up(new_page, data):
    page = new_page()
    tar = data / "train-000000.tar"
    content = bytearray(tar.read_bytes())
    content[512:700] = bytes(188)
    tar.write_bytes(bytes(content))
    page = new_page("/?key=a")
    expect(cards(page).first.locator(".broken")).to_contain_text("the tar is damaged")
    expect(cards(page).first.locator("li")).to_have_count(2)
    assert all("422" in said for said in new_page.complaints)
    new_page.complaints.clear()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/", "/crops", "/compare", "/dataset", "/?open=train-000000/a"])
def test_a_phone_shows_everything_without_scrolling_sideways(new_page, path, scheme):
    page = new_page(path, width=390, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    if path == "/":
        expect(page.locator("aside")).to_be_hidden()
        page.get_by_role("button", name="Filters").click()
        expect(page.locator("aside")).to_be_visible()
