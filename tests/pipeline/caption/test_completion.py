"""What servers put where a completion is asked for: an answer, a failed attempt, or a refusal, and never a crash."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from pipeline.caption.openai import Openai, OpenaiConfig
from pipeline.sample import Caption, Crop, Drop
from tests.caption_server import MODEL, Answer, FakeCaptionServer


@pytest.fixture
def server() -> Iterator[FakeCaptionServer]:
    with FakeCaptionServer() as started:
        yield started


def _outcome(server: FakeCaptionServer, body: str) -> Caption | Drop:
    captioner = Openai(OpenaiConfig(url=server.url, model=MODEL, tries=0))
    server.fault = lambda asked: None if asked.is_test_image else Answer(body=body)
    pixels = np.zeros((40, 50, 3), dtype=np.uint8)
    crop = Crop(region_id="0" * 16, pixels=pixels, box=(0, 0, 50, 40), image_width=99, image_height=99, label=None)
    return captioner.caption([crop], [captioner.prompt])[0]


def _body(**message: Any) -> str:
    said = {"role": "assistant", "content": "A dog."} | message
    return json.dumps({"choices": [{"index": 0, "finish_reason": "stop", "message": said}]})


@pytest.mark.parametrize("refusal", [True, {"why": "people"}, ["people"], {"text": "people"}, "people", 1])
def test_a_refusal_in_any_form_is_one(server: FakeCaptionServer, refusal: object) -> None:
    outcome = _outcome(server, _body(content=None, refusal=refusal))
    assert isinstance(outcome, Drop)
    assert outcome.message.startswith("the model refuses: ")
    assert "people" in outcome.message or not isinstance(refusal, str | dict | list)


@pytest.mark.parametrize("refusal", [None, False, "", [], {}])
def test_no_refusal_in_any_form_is_none(server: FakeCaptionServer, refusal: object) -> None:
    outcome = _outcome(server, _body(refusal=refusal))
    assert isinstance(outcome, Caption) and outcome.text == "A dog."


@pytest.mark.parametrize("body", ["[" * 100_000, "null", "3", "", '{"choices": null}', '{"choices": [null]}', "{"])
def test_what_is_no_completion_is_a_failed_attempt(server: FakeCaptionServer, body: str) -> None:
    outcome = _outcome(server, body)
    assert isinstance(outcome, Drop) and "something else than a chat completion" in outcome.message
