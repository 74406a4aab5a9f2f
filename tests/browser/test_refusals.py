"""What another page in the same browser cannot do."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.browser.conftest import marks
from tests.pipeline.viewer.data import region_id

pytestmark = pytest.mark.browser

SEND = """([url, type, body]) =>
    fetch(url, {method: "POST", mode: "no-cors", headers: {"content-type": type}, body}).catch(() => null)"""
SUBMIT = """(url) => {
    const form = document.createElement("form");
    form.method = "post";
    form.action = url;
    document.body.append(form);
    form.submit();
}"""
READ = "(url) => fetch(url).then((answer) => answer.text(), () => 'refused')"
EMBED = """(url) => new Promise((done) => {
    const image = new Image();
    image.onload = () => done("shown");
    image.onerror = () => done("refused");
    image.src = url;
})"""


@pytest.fixture
def elsewhere():
    """The address of a page of somebody else's, on the same machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>elsewhere</title>")

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://evil.example:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def evil(browser, elsewhere):
    page = browser.new_page()
    page.goto(elsewhere)
    assert page.title() == "elsewhere"
    yield page
    page.close()


def test_another_site_cannot_mark(evil, viewer, data):
    body = json.dumps({"shard": "train-000000", "key": "a", "region_id": region_id("a", 0), "keep": False})
    for kind in ("text/plain", "application/json"):
        evil.evaluate(SEND, [f"{viewer.url}/api/mark", kind, body])
    with evil.expect_navigation() as navigation:
        evil.evaluate(SUBMIT, f"{viewer.url}/api/mark")
    assert navigation.value.status == 403
    assert marks(data) == []
    assert viewer.mark({"shard": "train-000000", "key": "a", "region_id": None, "keep": True}).status == 200


def test_another_site_cannot_read_or_embed(evil, viewer):
    assert evil.evaluate(READ, f"{viewer.url}/api/page") == "refused"
    assert evil.evaluate(EMBED, f"{viewer.url}/image/a/train-000000/a") == "refused"


def test_a_name_that_points_here_is_refused(browser, viewer):
    page = browser.new_page()
    answer = page.goto(f"http://evil.example:{viewer.port}/api/page")
    assert answer.status == 421 and "red cat" not in page.content()
    page.close()


@pytest.mark.parametrize(
    "path", ["/../../../etc/passwd", "/assets/..%2f..%2fserver.py", "/image/a/..%2f..%2fetc/passwd"]
)
def test_no_path_leads_out(browser, viewer, path):
    page = browser.new_page()
    assert page.goto(viewer.url + path).status in (403, 404)
    page.close()
