"""The page that the sheet and the audit share: it holds all that it shows, and its policy lets in nothing else."""

import base64
import hashlib

from pipeline.html_page import lone_page


def test_a_page_allows_its_own_style_and_nothing_from_elsewhere() -> None:
    page = lone_page("<b> & co", "p { color: red }", "<p>x</p>").decode()
    digest = base64.b64encode(hashlib.sha256(b"p { color: red }").digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'" in page
    assert "<title>&lt;b&gt; &amp; co</title>" in page and "<style>p { color: red }</style>" in page
    assert page.startswith("<!doctype html>") and "<script" not in page
