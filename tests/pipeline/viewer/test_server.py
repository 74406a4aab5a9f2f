"""The server over HTTP: what it answers, and whom it refuses."""

import re
import socket
from pathlib import Path

import pytest

from pipeline.viewer.safety import allowed_names, is_loopback
from tests.pipeline.viewer.data import ATTACK, region_id
from tests.pipeline.viewer.serving import TOKEN, serving

MARK = {"shard": "train-000000", "key": "a", "region_id": region_id("a", 0), "keep": False}


@pytest.mark.parametrize(
    "path", ["/", "/compare", "/dataset?x=1", "/assets/main.js", "/assets/style.css", "/api/about"]
)
def test_everything_is_sent_under_a_strict_policy(client, path):
    answer = client.get(path)
    policy = answer.headers["content-security-policy"]
    assert answer.status == 200
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_page_names_nothing_elsewhere():
    for asset in (Path(__file__).parents[3] / "pipeline/viewer/assets").iterdir():
        text = asset.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text and "https:" not in text, asset
        assert "innerHTML" not in text and "insertAdjacentHTML" not in text and "document.write" not in text, asset
        assert asset.suffix != ".html" or (" style=" not in text and " onclick" not in text), asset


def test_an_image_comes_as_it_is_stored(client):
    answer = client.get("/image/a/train-000000/a?side=64")
    assert answer.status == 200 and answer.headers["content-type"] == "image/png"
    assert answer.body.startswith(b"\x89PNG")


def test_captions_come_as_json(client):
    answer = client.get("/api/page?q=onerror")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["items"][0]["regions"][0]["fields"]["caption"] == ATTACK


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/page?sort=nothing", 400),
        ("/api/page?area=x", 400),
        ("/api/image/train-000000/nobody", 404),
        ("/api/compare", 404),
        ("/api/overview/b", 404),
        ("/api/overview/c", 404),
        ("/image/b/train-000000/a", 404),
        ("/image/a/train-000009/a", 404),
        ("/image/a/train-000000/z", 422),
        ("/image/a/train-000000/a'--", 404),
        ("/image/a/train-000000/%00", 404),
        ("/image/a/train-000000/a%2fb", 404),
        ("/image/c/train-000000/a", 404),
        ("/image/a/train-000000/a?side=" + "1" * 5000, 400),
        ("/image/a/train-000000/a?side=big", 400),
        ("/image/a/train-000000/a?crop=1,2,3", 400),
        ("/image/a/train-000000/a?crop=5,5,5,9", 400),
        ("/image/a/train-000000/a?crop=nan,0,inf,9", 400),
        ("/image/a/train-000000/a?crop=900,900,910,910", 422),
        ("/api/record/a/train-000009/a", 404),
        ("/api/record/a/nothing/nobody", 404),
        ("/nothing", 404),
        ("/compare/", 404),
        ("/dataset/x", 404),
        ("/%ff%00", 404),
        ("/assets/", 404),
    ],
)
def test_what_is_not_there_is_said(client, path, status):
    assert client.get(path).status == status
    assert client.get("/api/about").status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/assets/../server.py",
        "/assets/..%2fserver.py",
        "/assets/%2e%2e/server.py",
        "//etc/passwd",
        "/image/a/../../../etc/passwd",
        "/image/a/..%2f..%2fetc/passwd",
        "/image/a/%2e%2e/%2e%2e",
        "/api/record/a/..%2f..%2fetc/passwd",
        "/api/image/../marks.jsonl",
        "/api/page?shard=../../etc",
    ],
)
def test_no_path_leads_out(client, path):
    answer = client.get(path)
    assert b"root:" not in answer.body and b"import" not in answer.body
    assert answer.status in (404, 422) or answer.json["items"] == []


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "192.168.0.7", "", "[", "a@b"]
)
def test_other_names_are_refused(client, host):
    assert client.get("/api/about", Host=host).status in (400, 421)
    assert client.get("/", Host=host).status in (400, 421)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1:9999", "[::1]:80"])
def test_names_of_this_machine_are_answered_on_any_port(client, host):
    assert client.get("/api/about", Host=host).status == 200


def test_other_pages_cannot_read_but_links_to_the_page_work(client):
    cross = {"Sec-Fetch-Site": "cross-site"}
    assert client.request("GET", "/api/page", headers=cross).status == 403
    assert client.request("GET", "/image/a/train-000000/a", headers={"Sec-Fetch-Site": "same-site"}).status == 403
    assert client.request("GET", "/api/page", headers={"Origin": "http://evil.example"}).status == 403
    assert client.request("GET", "/?q=red", headers=cross | {"Sec-Fetch-Mode": "navigate"}).status == 200


def test_a_mark_is_made_and_taken_back(client, url):
    assert client.mark(MARK).json["mark"]["keep"] is False
    assert client.get("/api/page").json["marks"][0]["region_id"] == MARK["region_id"]
    assert client.mark(MARK | {"keep": None}).json == {"mark": None, "num_marks": 0}
    assert (Path(url) / "marks.jsonl").read_text() == ""


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": None},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
        {"Host": "evil.example", "Origin": "http://evil.example"},
    ],
)
def test_marks_from_elsewhere_are_refused(client, url, headers):
    assert client.mark(MARK, **headers).status in (403, 421)
    assert not (Path(url) / "marks.jsonl").exists()


@pytest.mark.parametrize(
    ("record", "headers", "status"),
    [
        (MARK, {"Content-Type": "text/plain"}, 415),
        (MARK | {"keep": "yes"}, {}, 400),
        (MARK | {"more": 1}, {}, 400),
        (MARK | {"region_id": "nobody"}, {}, 404),
        (MARK | {"shard": "../x"}, {}, 404),
        (MARK | {"note": "x" * 3000}, {}, 422),
        (MARK | {"note": "x" * 20000}, {}, 413),
    ],
)
def test_marks_that_make_no_sense_are_refused(client, url, record, headers, status):
    assert client.mark(record, **headers).status == status
    assert not (Path(url) / "marks.jsonl").exists()


def test_what_is_not_there_is_said_in_a_sentence(client):
    assert client.get("/compare/").json == {"error": "there is nothing at this address"}


@pytest.mark.parametrize("prefix", ["", "/wrong", "/a-token-of-test", "/a-token-of-testsx", "/assets"])
def test_without_the_token_of_this_start_nothing_is_answered(client, url, prefix):
    for path in ("/", "/api/about", "/assets/main.js", "/image/a/train-000000/a"):
        refused = client.request("GET", path, prefix=prefix)
        assert refused.status == 403 and b"the address that fineclip view printed" in refused.body
    sent = {"Origin": client.origin, "Content-Type": "application/json"}
    assert client.request("POST", "/api/mark", body=b"{}", headers=sent, prefix=prefix).status == 403
    assert not (Path(url) / "marks.jsonl").exists()


def test_a_portal_may_keep_its_path_prefix_or_take_it_away(client):
    for prefix in (f"/{TOKEN}", f"/user/me/proxy/8000/{TOKEN}"):
        assert client.request("GET", "/", prefix=prefix).body.startswith(b"<!doctype html>")
        assert client.request("GET", "/api/page", prefix=prefix).json["items"]
        bare = client.request("GET", "?q=red", prefix=prefix)
        assert (bare.status, bare.headers["location"]) == (307, f"{TOKEN}/?q=red")


def test_no_address_of_the_page_begins_at_the_root():
    for asset in (Path(__file__).parents[3] / "pipeline/viewer/assets").iterdir():
        assert not re.search(r"""["'`]/(?:\?|api|assets|image|compare|crops|dataset)""", asset.read_text()), asset


def test_a_name_of_a_portal_is_answered_when_it_is_given(session):
    with serving(session, host_names=["hub.example.org"]) as client:
        through = {"Host": "Hub.example.org", "Origin": "https://hub.example.org"}
        assert client.get("/api/about", Host="hub.example.org:443").status == 200
        assert client.mark(MARK, **through).status == 200
        # Some portals put the address that they ask into Host.
        assert client.mark(MARK | {"keep": None}, Origin="https://hub.example.org").status == 200
        assert client.mark(MARK, Origin="https://evil.example").status == 403
        refused = client.get("/api/about", Host="other.example.org")
        assert refused.status == 421 and b"--host-name other.example.org" in refused.body


def test_only_reading_and_marking_are_answered(client):
    for method in ("PUT", "DELETE", "OPTIONS"):
        assert client.request(method, "/api/page", headers={"Origin": client.origin}).status == 405


def test_bound_to_every_address_bare_addresses_are_answered_and_foreign_names_are_not(session):
    with serving(session, host="0.0.0.0") as client:
        assert client.get("/api/about", Host="192.168.0.7:80").status == 200
        assert client.get("/api/about", Host=socket.gethostname()).status == 200
        assert client.get("/api/about", Host="evil.example").status == 421


def test_what_counts_as_this_machine():
    assert is_loopback("127.0.0.1") and is_loopback("::1") and is_loopback("localhost")
    assert not is_loopback("0.0.0.0") and not is_loopback("example.org")
    assert allowed_names("127.0.0.1") == {"localhost", "127.0.0.1", "::1"}
    assert "my.host" in allowed_names("My.Host")
