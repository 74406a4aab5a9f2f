"""Debian's chromium, driven by Playwright, which downloads nothing."""

import shutil
from pathlib import Path

import msgspec
import pytest
from playwright.sync_api import sync_playwright

from pipeline.viewer.session import Session
from schemas.records import encode
from tests.pipeline.viewer.data import SHARDS, sample
from tests.pipeline.viewer.serving import serving
from tests.shards import caption_overlay, write_overlay, write_shard

_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP evil.example 127.0.0.1",
]
NUM_MORE = 30
"""Images of a third shard, so that there is a second page."""


@pytest.fixture(scope="session")
def browser():
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.fail("these tests drive chromium, which is not installed: apt-get install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=_FLAGS)
        yield started
        started.close()


@pytest.fixture
def data(tmp_path):
    shards = [*SHARDS, [sample(f"more-{number:02d}", {"label": "tree"}) for number in range(NUM_MORE)]]
    for index, samples in enumerate(shards):
        marker = write_shard(str(tmp_path), samples, index=index)
        terms = {
            "kind": "weights",
            "what": "a/model",
            "license": "some licence",
            "note": "no trade",
            "permissive": False,
        }
        settings = {"no_repeat_ngram_size": 0, "golden": {"repetition_penalty_of_the_search": None}}
        provenance = {"captioner": {"name": "rule", "licenses": [terms], "settings": settings}}
        path = tmp_path / f"train-{index:06d}.json"
        path.write_bytes(encode(msgspec.structs.replace(marker, provenance=provenance)))
        changed = [one for one in samples if one.record.key in ("a", "d")]
        write_overlay(str(tmp_path), marker, "loud", caption_overlay(changed, "LOUD"), partial=True)
    return tmp_path


@pytest.fixture
def viewer(data):
    """The address of a viewer of `data` compared with its overlay."""
    session = Session(str(data), other="loud")
    with serving(session) as client:
        yield client
    session.close()


@pytest.fixture
def new_page(browser, viewer):
    """Open pages that must ask nothing of anyone else, and log no error."""
    complaints, contexts = [], []

    def open_(path="/", *, width=1440, allow=(), **settings):
        context = browser.new_context(viewport={"width": width, "height": 900}, **settings)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.on("request", lambda request: request.url.startswith(viewer.url) or complaints.append(request.url))
        page.goto(viewer.url + path)
        page.wait_for_load_state("networkidle")
        return page

    open_.complaints = complaints
    yield open_
    for context in contexts:
        context.close()
    assert complaints == []


def marks(data: Path) -> list[str]:
    path = data / "marks.jsonl"
    return path.read_text().splitlines() if path.exists() else []
