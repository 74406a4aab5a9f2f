import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fineclip import main
from pipeline.viewer.selection import Selection, parse
from pipeline.viewer.sheet import make_sheet
from schemas.folder import DatasetError
from tests.pipeline.viewer.data import ATTACK


class Elements(HTMLParser):
    """Collects the elements of a page."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def sheet(session, query="", limit=10, seed=0):
    page, unread = make_sheet(session.tables[0], parse(query), limit=limit, seed=seed)
    assert not unread
    return page.decode()


def test_a_sheet_needs_nothing_else_and_runs_nothing(session):
    text = sheet(session)
    elements = Elements(text).found
    assert not {"script", "link", "iframe"} & {tag for tag, _ in elements}
    links = [value for _, attributes in elements for name, value in attributes.items() if name in ("href", "src")]
    assert len(links) == 4 and all(link.startswith("data:image/jpeg;base64,") for link in links)
    assert base64.b64decode(links[0].partition(",")[2]).startswith(b"\xff\xd8\xff")
    assert not any(name.startswith("on") for _, attributes in elements for name in attributes)


def test_captions_stay_text(session):
    text = sheet(session, "key=d")
    assert ATTACK not in text and "&lt;img src=x onerror=" in text
    assert "img" not in {tag for tag, _ in Elements(text).found}


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(session):
    assert sheet(session, seed=3) == sheet(session, seed=3)
    assert len({tuple(re.findall("<h2>(.*?)</h2>", sheet(session, seed=seed))) for seed in range(6)}) > 1


def test_filters_choose_what_is_on_it(session):
    text = sheet(session, "label=dog&sort=-area")
    assert re.findall("<h2>(.*?)</h2>", text) == ["a", "d"] and "a red cat" not in text


def test_an_image_that_cannot_be_read_has_its_place_and_says_why(session, url, tmp_path, capsys):
    tar = Path(url) / "train-000000.tar"
    tar.write_bytes(tar.read_bytes()[:600])
    out = tmp_path / "sheet.html"
    assert main(["sheet", url, str(out), "--where", "key=a"]) == 1
    assert out.read_text().count("the file is cut") == 1
    assert "1 image on it could not be read: " in capsys.readouterr().err
    assert "not an image" in sheet(session, "status=dead&shard=train-000000")


def test_nothing_selected_is_an_error(session):
    with pytest.raises(DatasetError, match="nothing is selected"):
        make_sheet(session.tables[0], Selection(key="nobody"), limit=1, seed=0)


def test_the_command_takes_the_address_of_the_page(url, tmp_path, capsys):
    out = tmp_path / "sheet.html"
    assert main(["sheet", url, str(out), "--where", "http://127.0.0.1:1234/?q=red&colour=status", "--limit", "1"]) == 0
    assert out.read_text().count("<article>") == 1
    assert main(["sheet", url, str(out), "--where", "q=nothing-like-it"]) == 2
    assert main(["sheet", url, str(out), "--where", "area=x"]) == 2
    assert main(["sheet", str(tmp_path / "nowhere"), str(out)]) == 2
    assert "no such folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "said"),
    [("sheet.png", "name it .*sheet.html"), ("sheet", "name it"), ("no/sheet.html", "no folder .*no; make it")],
)
def test_a_file_that_no_sheet_can_be_is_refused_before_any_work(tmp_path, name, said, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["sheet", str(tmp_path / "not looked at"), str(tmp_path / name)])
    assert ended.value.code == 2 and re.search(said, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())
