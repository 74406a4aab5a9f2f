"""`openai` against a real server on this machine, which fails in the ways that servers do."""

import json
import logging
import socket
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import replace
from email.utils import formatdate
from math import exp

import httpx2
import numpy as np
import openai
import pytest

from pipeline.caption import fleet, patience
from pipeline.caption.client import proxy_for
from pipeline.caption.openai import Openai, OpenaiConfig
from pipeline.caption.patience import RateLimit, back_off_s, retry_after_s
from pipeline.errors import ServerGoneError, WorkError
from pipeline.sample import Caption, Crop, Drop
from schemas.reasons import Reason, Stage
from tests import caption_server
from tests.caption_server import MODEL, Answer, Asked, FakeCaptionServer, caption_of


@pytest.fixture
def server() -> Iterator[FakeCaptionServer]:
    with FakeCaptionServer() as started:
        yield started


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_FIRST_WAIT_S", 0.02)
    monkeypatch.setattr(patience, "_LONGEST_WAIT_S", 0.1)


def _captioner(server: FakeCaptionServer, **settings: object) -> Openai:
    defaults = {"url": server.url, "model": "some/model", "patience_s": 10.0, "concurrency": 4}
    return Openai(OpenaiConfig(**(defaults | settings)))  # type: ignore[arg-type]


def _crops(count: int) -> list[Crop]:
    rng = np.random.default_rng(0)
    return [
        Crop(
            region_id=f"{number:016x}",
            pixels=rng.integers(0, 256, (40 + number, 50, 3), dtype=np.uint8),
            box=(0, 0, 50, 40),
            image_width=100,
            image_height=100,
            label=None,
        )
        for number in range(count)
    ]


def _caption(captioner: Openai, crops: list[Crop]) -> list[Caption | Drop]:
    return captioner.caption(crops, [captioner.prompt] * len(crops))


def _texts(captioner: Openai, crops: list[Crop]) -> list[str]:
    outcomes = _caption(captioner, crops)
    assert all(isinstance(outcome, Caption) for outcome in outcomes), outcomes
    return [outcome.text for outcome in outcomes if isinstance(outcome, Caption)]


def _height(asked: Asked) -> int:
    return asked.size[1]


class _FirstTimes:
    """A fault in the first `count` requests about each crop."""

    def __init__(self, count: int, *answers: Answer) -> None:
        self._count, self._answers = count, answers
        self._seen: Counter[bytes] = Counter()

    def __call__(self, asked: Asked) -> Answer | None:
        self._seen[asked.image] += 1
        number = self._seen[asked.image]
        return None if asked.is_test_image or number > self._count else self._answers[(number - 1) % len(self._answers)]


def test_each_crop_gets_the_server_s_answer_in_order(server: FakeCaptionServer) -> None:
    captioner = _captioner(server)
    texts = _texts(captioner, _crops(9))
    by_height = {_height(asked): caption_of(asked.image) for asked in server.crops}
    assert texts == [by_height[40 + number] for number in range(9)]
    assert {asked.prompt for asked in server.asked} == {"Describe this image in one sentence."}
    sent = server.crops[0].body
    assert (sent["model"], sent["temperature"], sent["seed"], sent["max_tokens"]) == ("some/model", 0, 0, 64)


def test_the_provenance_does_not_depend_on_what_was_answered(server: FakeCaptionServer) -> None:
    captioner = _captioner(server)
    before = captioner.provenance()
    _texts(captioner, _crops(2))
    assert captioner.provenance() == before
    assert before["weights"] == {"model": "some/model"}
    assert MODEL not in str(before)


def test_the_score_is_the_tokens_mean_probability_where_it_is_asked_for(server: FakeCaptionServer) -> None:
    (scored,) = _caption(_captioner(server, logprobs=True), _crops(1))
    (plain,) = _caption(_captioner(server), _crops(1))
    assert isinstance(scored, Caption)
    assert scored.score == pytest.approx(exp(-0.5))
    assert isinstance(plain, Caption)
    assert plain.score is None


@pytest.mark.parametrize(
    "logprobs",
    [
        "null",
        "{}",
        '{"content": []}',
        '{"content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": null}]}',
        '{"content": [{"token": "a", "logprob": NaN}]}',
        '{"content": [{"token": "a"}]}',
        '{"tokens": ["a"], "token_logprobs": [-0.5]}',
    ],
)
def test_probabilities_of_another_form_are_no_score(server: FakeCaptionServer, logprobs: str) -> None:
    captioner = _captioner(server, logprobs=True)
    body = _completion(content="a cat").replace('"index": 0', f'"index": 0, "logprobs": {logprobs}')
    server.fault = lambda asked: Answer(body=body)
    assert _caption(captioner, _crops(1)) == [Caption(text="a cat", score=None)]


def test_the_key_comes_from_the_environment_alone(server: FakeCaptionServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "not to be sent")
    monkeypatch.setenv("MY_KEY", "secret")
    captioner = _captioner(server, api_key_env="MY_KEY")
    assert server.asked[-1].headers["authorization"] == "Bearer secret"
    assert "secret" not in str(captioner.provenance())
    _captioner(server)
    assert server.asked[-1].headers["authorization"] == "Bearer none"
    with pytest.raises(ValueError, match=r"--caption\.api-key-env NO_SUCH_KEY"):
        Openai.weights(OpenaiConfig(api_key_env="NO_SUCH_KEY"))


def test_a_key_s_line_end_is_not_sent(server: FakeCaptionServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", " secret\r\n")
    _captioner(server, api_key_env="MY_KEY")
    assert server.asked[-1].headers["authorization"] == "Bearer secret"


@pytest.mark.parametrize("value", ["\n", "s3cr\u00e9t", "s3cr\x07et", "s3cr\net", ""])
def test_what_cannot_be_a_key_is_refused_by_its_variable_alone(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(ValueError, match=r"--caption\.api-key-env MY_KEY") as raised:
        Openai.weights(OpenaiConfig(api_key_env="MY_KEY"))
    assert "s3cr" not in "".join(traceback.format_exception(raised.value))


def test_a_key_in_place_of_its_variable_s_name_is_not_repeated() -> None:
    with pytest.raises(ValueError, match=r"--caption\.api-key-env .* not the key itself") as raised:
        OpenaiConfig(api_key_env="sk-s3cret")
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize("status", [401, 429, 500, 400])
def test_a_server_that_repeats_the_key_does_not_make_it_known(
    server: FakeCaptionServer, status: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-s3cret")
    captioner = _captioner(server, api_key_env="MY_KEY", patience_s=0.2)
    echo = json.dumps({"error": {"message": "bad header: Bearer sk-s3cret"}})
    server.fault = lambda asked: Answer(status=status, body=echo)
    with caplog.at_level(logging.WARNING, logger="pipeline"):
        try:
            told = str(_caption(captioner, _crops(1)))
        except WorkError as error:
            told = "".join(traceback.format_exception(error))
    assert "bad header: Bearer ***" in told
    assert "s3cret" not in told + caplog.text


def test_a_password_in_the_url_is_used_and_not_told(
    server: FakeCaptionServer, caplog: pytest.LogCaptureFixture
) -> None:
    url = server.url.replace("://", "://me:s3cret@")
    captioner = _captioner(server, url=url, patience_s=0.2)
    assert server.asked[-1].headers["authorization"].startswith("Basic ")
    assert "s3cret" not in str(captioner.provenance())
    server.stop()
    with caplog.at_level(logging.WARNING, logger="pipeline"), pytest.raises(WorkError) as raised:
        _caption(captioner, _crops(1))
    assert server.url in str(raised.value)
    assert "s3cret" not in "".join(traceback.format_exception(raised.value)) + caplog.text
    server.start()


def test_a_url_that_is_refused_is_repeated_without_its_password() -> None:
    with pytest.raises(ValueError, match=r"--caption\.url 'host/v1'") as raised:
        OpenaiConfig(url="me:s3cret@host/v1")
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize("fault", [Answer(status=500), Answer(status=503), Answer(status=409), Answer(hang_up=True)])
def test_a_fault_that_passes_costs_nothing(server: FakeCaptionServer, fault: Answer) -> None:
    server.fault = _FirstTimes(2, fault)
    assert len(_texts(_captioner(server), _crops(5))) == 5


def test_too_many_requests_wait_as_long_as_the_server_says(server: FakeCaptionServer) -> None:
    server.fault = _FirstTimes(1, Answer(status=429, headers={"Retry-After": "0.3"}))
    assert len(_texts(_captioner(server, concurrency=1), _crops(2))) == 2
    refused, again = [asked.at for asked in server.crops][:2]
    assert again - refused >= 0.3


def test_what_the_rate_limit_holds_back_is_not_the_server_s_being_busy(server: FakeCaptionServer) -> None:
    """Slots of 0.2 s, four requests at once: each waits longer for its slot than the server is waited for."""
    captioner = _captioner(server, max_requests_per_minute=300, patience_s=0.5, concurrency=4)
    server.fault = _FirstTimes(1, Answer(status=429, headers={"Retry-After": "0.01"}))
    assert len(_texts(captioner, _crops(4))) == 4


def test_a_server_that_stays_too_busy_stops_the_run(server: FakeCaptionServer) -> None:
    server.fault = _FirstTimes(99, Answer(status=429, headers={"Retry-After": "3600"}))
    with pytest.raises(WorkError, match="max-requests-per-minute"):
        _caption(_captioner(server), _crops(1))


def test_a_crop_that_the_server_refuses_is_dead_alone(server: FakeCaptionServer) -> None:
    server.fault = lambda asked: Answer(status=400) if _height(asked) == 42 else None
    outcomes = _caption(_captioner(server), _crops(5))
    (drop,) = [outcome for outcome in outcomes if isinstance(outcome, Drop)]
    assert outcomes.index(drop) == 2
    assert (drop.reason, drop.message) == (Reason.MODEL_ERROR, "400: a fault on request")
    assert drop.traceback_hash is None
    assert sum(_height(asked) == 42 for asked in server.crops) == 1


def test_a_refusal_in_words_is_a_failure_of_no_traceback(server: FakeCaptionServer) -> None:
    server.fault = lambda asked: None if asked.is_test_image else Answer(body=_completion(refusal="I will not"))
    (drop,) = _caption(_captioner(server), _crops(1))
    assert drop == Drop(
        reason=Reason.MODEL_ERROR, stage=Stage.CAPTION, message="the model refuses: I will not", traceback_hash=None
    )


def _completion(reason: str = "stop", error: object = None, **message: object) -> str:
    said = {"role": "assistant", "content": None} | message
    choice = {"index": 0, "finish_reason": reason, "message": said} | ({"error": error} if error else {})
    return json.dumps({"id": "1", "object": "chat.completion", "created": 0, "model": MODEL, "choices": [choice]})


PARTS = {
    "a text": ([{"type": "text", "text": "a cat"}], "a cat"),
    "two": ([{"type": "text", "text": "a cat, "}, {"type": "output_text", "text": "asleep"}], "a cat, asleep"),
    "thoughts before": (
        [
            {"type": "thinking", "thinking": [{"type": "text", "text": "What is it?"}]},
            {"type": "text", "text": "a cat"},
        ],
        "a cat",
    ),
    "thoughts alone": ([{"type": "thinking", "thinking": "What is it?"}], "<think>What is it?</think>"),
    "a picture": ([{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": "a cat"}], "a cat"),
    "none": ([], ""),
    "a text of null": ([{"type": "text", "text": None}], ""),
}


@pytest.mark.parametrize(("parts", "text"), PARTS.values(), ids=PARTS)
def test_an_answer_in_parts_is_what_its_texts_say(server: FakeCaptionServer, parts: object, text: str) -> None:
    server.fault = lambda asked: None if asked.is_test_image else Answer(body=_completion(content=parts))
    assert _texts(_captioner(server), _crops(1)) == [text]


NO_COMPLETIONS = {
    "upstream error": ('{"error": {"message": "upstream is down", "code": 502}}', "upstream is down"),
    "no choices": ('{"object": "chat.completion", "choices": []}', "something else than a chat completion"),
    "choice of null": ('{"choices": [null]}', "something else than a chat completion"),
    "no message": ('{"choices": [{"index": 0}]}', "something else than a chat completion"),
    "content of another form": (_completion(content={"text": "a cat"}), "something else than a chat completion"),
    "parts of another form": (_completion(content=["a cat"]), "something else than a chat completion"),
    "broken off as the server stops": (_completion("abort", content="a ca"), "broke the answer off"),
    "an error of a server behind": (_completion("error", error={"message": "overloaded"}, content=""), "overloaded"),
    "null": ("null", "something else than a chat completion"),
    "cut off": (_completion(content="a cat")[:-20], "something else than a chat completion"),
    "nothing": ("", "something else than a chat completion: an empty body"),
}


@pytest.mark.parametrize(("body", "message"), NO_COMPLETIONS.values(), ids=NO_COMPLETIONS)
def test_an_answer_that_is_no_completion_is_a_failed_attempt_of_its_crop(
    server: FakeCaptionServer, body: str, message: str
) -> None:
    server.fault = lambda asked: Answer(body=body) if _height(asked) == 42 else None
    outcomes = _caption(_captioner(server, tries=2), _crops(5))
    (drop,) = [outcome for outcome in outcomes if isinstance(outcome, Drop)]
    assert outcomes.index(drop) == 2
    assert (drop.reason, drop.traceback_hash) == (Reason.MODEL_ERROR, None)
    assert message in drop.message
    assert Counter(_height(asked) for asked in server.crops) == {40: 1, 41: 1, 42: 3, 43: 1, 44: 1}


@pytest.mark.parametrize("name", NO_COMPLETIONS)
def test_an_answer_that_is_a_completion_at_last_costs_nothing(server: FakeCaptionServer, name: str) -> None:
    server.fault = _FirstTimes(2, Answer(body=NO_COMPLETIONS[name][0]))
    assert len(_texts(_captioner(server), _crops(3))) == 3


def test_a_server_that_completes_nothing_any_more_stops_the_run(server: FakeCaptionServer) -> None:
    captioner = _captioner(server, patience_s=0.3)
    server.fault = lambda asked: Answer(body=NO_COMPLETIONS["upstream error"][0])
    with pytest.raises(WorkError, match=r"has not answered for 0\.3 s .*upstream is down"):
        _caption(captioner, _crops(6))


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Answer(status=500), Reason.MODEL_ERROR),
        (Answer(hang_up=True), Reason.MODEL_ERROR),
        (Answer(after_s=5), Reason.TIMEOUT),
    ],
)
def test_a_crop_on_which_the_server_fails_again_and_again_is_dead_alone(
    server: FakeCaptionServer, fault: Answer, reason: Reason
) -> None:
    server.fault = lambda asked: fault if _height(asked) == 40 else None
    captioner = _captioner(server, tries=2, request_timeout_s=0.5)
    outcomes = _caption(captioner, _crops(3))
    assert isinstance(outcomes[0], Drop)
    assert outcomes[0].reason is reason
    assert all(isinstance(outcome, Caption) for outcome in outcomes[1:])
    assert sum(_height(asked) == 40 for asked in server.crops) >= 3


def test_a_server_that_is_killed_and_comes_back_costs_no_crop(server: FakeCaptionServer) -> None:
    captioner, undisturbed = _captioner(server, tries=1), _texts(_captioner(server), _crops(12))
    served = Counter[str]()
    going = threading.Event()

    def slowly(asked: Asked) -> Answer:
        served["crops"] += 1
        if served["crops"] == 5:
            going.set()
        return Answer(after_s=0.05)

    def restart() -> None:
        assert going.wait(10)
        server.stop()
        threading.Event().wait(1.0)
        server.start()

    server.fault = slowly
    restarting = threading.Thread(target=restart)
    restarting.start()
    try:
        assert _texts(captioner, _crops(12)) == undisturbed
    finally:
        restarting.join()


def test_a_server_that_stays_away_stops_the_run(server: FakeCaptionServer) -> None:
    captioner = _captioner(server, patience_s=0.3)
    server.stop()
    with pytest.raises(WorkError, match=r"has not answered for 0\.3 s .*the same command goes on"):
        _caption(captioner, _crops(6))
    server.start()
    assert len(_texts(captioner, _crops(6))) == 6


def test_a_server_whose_engine_died_stops_the_run(server: FakeCaptionServer) -> None:
    captioner = _captioner(server, patience_s=0.3)
    server.fault = lambda asked: Answer(status=500)
    with pytest.raises(WorkError, match="a fault on request"):
        _caption(captioner, _crops(6))


def test_a_crop_that_brings_the_server_down_each_time_is_named(server: FakeCaptionServer) -> None:
    """The process behind the port dies of one crop, and fails the next request while it starts again."""
    starting = Counter[str]()

    def fault(asked: Asked) -> Answer | None:
        if _height(asked) == 40:
            starting["left"] = 1
            return Answer(hang_up=True)
        if starting["left"]:
            starting["left"] -= 1
            return Answer(status=503)
        return None

    captioner = _captioner(server, concurrency=1)
    server.fault = fault
    with pytest.raises(WorkError, match=r"went away 6 times .* region 0000000000000000 .*--filter"):
        _caption(captioner, _crops(1))


@pytest.mark.parametrize(
    ("fault", "remedy"),
    [
        (Answer(status=401), "api-key-env"),
        (Answer(status=403), "may not use"),
        (Answer(status=404), r"--caption\.model"),
        (Answer(status=400), "refuses a test image"),
        (Answer(body="<html>welcome</html>", content_type="text/html"), "something else than a chat completion"),
        (Answer(body='{"error": {"message": "upstream is down"}}'), "upstream is down"),
        (Answer(body='{"choices": ['), "something else than a chat completion"),
    ],
)
def test_what_holds_for_every_crop_is_said_at_the_start(server: FakeCaptionServer, fault: Answer, remedy: str) -> None:
    server.fault = lambda asked: fault
    with pytest.raises(WorkError, match=remedy):
        _captioner(server)


@contextmanager
def _listening(answer: bytes | None) -> Iterator[int]:
    """A port that takes connections and sends `answer` to each, or nothing; yields its number."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        ending, kept = threading.Event(), []

        def serve() -> None:
            while not ending.is_set():
                with suppress(TimeoutError):
                    connection, _ = listener.accept()
                    kept.append(connection)
                    if answer is not None:
                        connection.recv(65536)
                        connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            ending.set()
            thread.join()
            for connection in kept:
                connection.close()


def _told_at_start(url: str, **settings: object) -> WorkError:
    """The error of a captioner for `url`, which must come in seconds though it would be patient for minutes."""
    began = time.monotonic()
    with pytest.raises(WorkError) as raised:
        Openai(OpenaiConfig(url=url, **({"start_s": 0.5, "patience_s": 300.0} | settings)))  # type: ignore[arg-type]
    assert time.monotonic() - began < 5
    return raised.value


def test_a_server_that_is_not_there_is_told_of_in_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    error = _told_at_start(url)
    assert (type(error), error.exit_code) == (ServerGoneError, 7)
    assert f"{url} gave no answer" in str(error) and "nothing listens there" in str(error)
    assert "--caption.start-s" in str(error)


def test_a_server_that_is_still_starting_is_waited_for(server: FakeCaptionServer) -> None:
    server.stop()
    later = threading.Timer(0.5, server.start)
    later.start()
    try:
        assert len(_texts(_captioner(server, start_s=20), _crops(1))) == 1
    finally:
        later.join()


def test_a_server_that_says_nothing_is_told_of_in_seconds() -> None:
    with _listening(None) as port:
        error = _told_at_start(f"http://127.0.0.1:{port}/v1")
    assert error.exit_code == 7
    assert "silent" in str(error)


def test_a_host_that_nobody_knows_is_told_of_at_once() -> None:
    error = _told_at_start("http://no-such-host.invalid/v1", start_s=60.0)
    assert error.exit_code == 2
    assert "cannot be reached: the host's name is not known" in str(error) and "--caption.url" in str(error)


def test_a_server_without_tls_is_told_of_at_once() -> None:
    with _listening(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n") as port:
        error = _told_at_start(f"https://127.0.0.1:{port}/v1", start_s=60.0)
    assert error.exit_code == 2
    assert "http:// instead of https://" in str(error)


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_server_that_fails_on_the_first_picture_is_not_waited_for(server: FakeCaptionServer, status: int) -> None:
    server.fault = lambda asked: Answer(status=status, body='{"detail": "CUDA error"}')
    error = _told_at_start(server.url)
    assert error.exit_code == 7
    assert f"{status}: CUDA error" in str(error)


def test_a_server_that_says_when_it_has_loaded_is_waited_for(server: FakeCaptionServer) -> None:
    seen = Counter[str]()

    def loading(asked: Asked) -> Answer | None:
        seen["asked"] += 1
        return Answer(status=503, headers={"Retry-After": "1"}) if seen["asked"] == 1 else None

    server.fault = loading
    assert len(_texts(_captioner(server, start_s=0.2), _crops(1))) == 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"error": {"message": "in words", "code": 1}}', "in words"),
        ('{"error": "in words"}', "in words"),
        ('{"detail": "in words"}', "in words"),
        ('{"detail": [{"loc": ["body", "seed"], "msg": "no such field", "type": "x"}]}', "body.seed: no such field"),
        ('{"message": "in words"}', "in words"),
        ("in words", "in words"),
        ("<html><body><h1>in words</h1></body></html>", "in words"),
        ("", "400"),
    ],
)
def test_the_server_s_own_words_are_shown(server: FakeCaptionServer, body: str, words: str) -> None:
    captioner = _captioner(server)
    server.fault = lambda asked: Answer(status=400, body=body)
    (drop,) = _caption(captioner, _crops(1))
    assert isinstance(drop, Drop)
    assert drop.message.startswith("400: ") and words in drop.message
    assert "{" not in drop.message and "<" not in drop.message


def test_a_crop_that_is_too_large_for_the_server_is_dead_with_what_to_do(server: FakeCaptionServer) -> None:
    captioner = _captioner(server)
    server.fault = lambda asked: Answer(status=413, body="<h1>413 Request Entity Too Large</h1>")
    (drop,) = _caption(captioner, _crops(1))
    assert isinstance(drop, Drop)
    assert drop.message.startswith("413: ") and "--caption.max-side" in drop.message


@pytest.mark.parametrize("ending", ["/", "//"])
def test_a_slash_at_the_url_s_end_is_no_matter(server: FakeCaptionServer, ending: str) -> None:
    assert len(_texts(_captioner(server, url=server.url + ending), _crops(1))) == 1


def test_a_server_at_an_address_of_version_6_is_asked() -> None:
    with FakeCaptionServer(host="::1") as server:
        assert len(_texts(_captioner(server), _crops(1))) == 1


def test_a_model_that_the_server_lacks_is_told_with_those_it_has(server: FakeCaptionServer) -> None:
    server.fault = lambda asked: Answer(status=404)
    with pytest.raises(WorkError, match=rf"--caption\.model must be one of the server's: {MODEL}"):
        _captioner(server)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_server_that_sends_requests_on_is_told_with_where_to(server: FakeCaptionServer, status: int) -> None:
    """Clients follow 301 and 302 by asking for the page, without the question."""
    there = "https://me:s3cret@elsewhere/v1/chat/completions"
    server.fault = lambda asked: Answer(status=status, body="", headers={"Location": there})
    with pytest.raises(WorkError, match=r"give that as --caption\.url: https://elsewhere/v1$"):
        _captioner(server)
    server.fault = lambda asked: Answer(status=status, body="", headers={"Location": "/other/v1/chat/completions"})
    with pytest.raises(WorkError, match=rf"--caption\.url: {server.url.removesuffix('/v1')}/other/v1$"):
        _captioner(server)


def test_a_url_with_a_query_is_refused() -> None:
    with pytest.raises(ValueError, match=r"--caption\.url 'http://host/v1\?key=\*\*\*': must end in the path"):
        OpenaiConfig(url="http://host/v1?key=s3cret")


def test_a_connection_that_the_server_closes_meanwhile_is_opened_anew(
    server: FakeCaptionServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caption_server._Handler, "timeout", 1.0)
    captioner = _captioner(server, tries=1)
    assert len(_texts(captioner, _crops(4))) == 4
    time.sleep(1.5)
    assert len(_texts(captioner, _crops(4))) == 4


@pytest.fixture
def _proxied(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("http_proxy", "http://me:s3cret@127.0.0.1:9")


@pytest.mark.usefixtures("_proxied")
def test_no_proxy_is_asked_for_a_server_on_this_machine(server: FakeCaptionServer) -> None:
    assert len(_texts(_captioner(server), _crops(1))) == 1
    assert len(_texts(_captioner(server, url=server.url.replace("127.0.0.1", "localhost")), _crops(1))) == 1


@pytest.mark.usefixtures("_proxied")
def test_a_proxy_that_is_in_the_way_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    error = str(_told_at_start("http://gpu-7.cluster/v1"))
    assert "nothing listens at the proxy" in error
    assert "through the proxy http://127.0.0.1:9" in error and "NO_PROXY=gpu-7.cluster" in error
    assert "s3cret" not in error
    for entry in ("gpu-7.cluster", ".cluster", "10.0.0.0/8"):
        monkeypatch.setenv("no_proxy", entry)
        assert proxy_for("http://10.1.2.3/v1" if "/" in entry else "http://gpu-7.cluster/v1") is None
        assert proxy_for("http://elsewhere/v1") is not None
    assert proxy_for("http://[::1]:8000/v1") is None
    assert proxy_for("http://[fd00::1]:8000/v1") is not None


def test_a_server_that_is_gone_or_too_busy_has_an_exit_code_of_its_own(server: FakeCaptionServer) -> None:
    captioner = _captioner(server, patience_s=0.3)
    server.fault = lambda asked: Answer(status=429, headers={"Retry-After": "0.1"})
    with pytest.raises(ServerGoneError, match="too busy") as busy:
        _caption(captioner, _crops(3))
    server.stop()
    with pytest.raises(ServerGoneError, match="the same command goes on") as gone:
        _caption(captioner, _crops(3))
    server.start()
    assert (busy.value.exit_code, gone.value.exit_code) == (7, 7)


def test_a_lasting_429_is_an_outage_though_a_probe_is_answered(server: FakeCaptionServer) -> None:
    captioner = _captioner(server, patience_s=0.5, tries=1)
    server.fault = lambda asked: None if asked.is_test_image else Answer(status=429)
    with pytest.raises(ServerGoneError, match="too busy"):
        _caption(captioner, _crops(2))


def test_a_batch_is_under_way_before_the_one_in_front_of_it_is_answered(server: FakeCaptionServer) -> None:
    captioner = _captioner(server, concurrency=8)
    undisturbed = _texts(captioner, _crops(8))
    server.asked.clear()
    going = threading.Event()

    def hold(asked: Asked) -> Answer | None:
        if len(server.crops) >= 8:
            going.set()
        return None if going.wait(10) else Answer(status=500)

    server.fault = hold
    batches = [captioner.prepare(crops, [captioner.prompt] * 4) for crops in (_crops(8)[:4], _crops(8)[4:])]
    outcomes = [outcome for batch in batches for outcome in captioner.generate(batch)]
    assert [outcome.text for outcome in outcomes if isinstance(outcome, Caption)] == undisturbed


def test_several_servers_share_the_work_and_give_the_same_captions(server: FakeCaptionServer) -> None:
    alone = _texts(_captioner(server), _crops(20))
    server.asked.clear()
    with FakeCaptionServer(lambda asked: Answer(after_s=0.02)) as other:
        server.fault = lambda asked: Answer(after_s=0.02)
        assert _texts(_captioner(server, url=f"{server.url},{other.url}"), _crops(20)) == alone
        assert len(server.crops) + len(other.crops) == 20
        assert min(len(server.crops), len(other.crops)) >= 5


def test_one_of_several_servers_that_goes_costs_nothing(
    server: FakeCaptionServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fleet, "_SHORT_PATIENCE_S", 0.3)
    monkeypatch.setattr(fleet, "_AWAY_S", 0.5)
    alone = _texts(_captioner(server), _crops(30))
    server.fault = lambda asked: Answer(after_s=0.05)
    with FakeCaptionServer(lambda asked: Answer(after_s=0.05)) as other:
        captioner = _captioner(server, url=f"{server.url}, {other.url}", concurrency=8)
        leaving = threading.Timer(0.15, other.stop)
        leaving.start()
        with caplog.at_level(logging.WARNING, logger="pipeline"):
            assert _texts(captioner, _crops(30)) == alone
        leaving.join()
        assert f"{other.url} has not answered for 0.3 s" in caplog.text
        other.start()
        other.asked.clear()
        time.sleep(0.6)
        assert _texts(captioner, _crops(30)) == alone
        assert other.crops, "it is asked again once it is back"
        other.stop()
        server.stop()
        with pytest.raises(ServerGoneError, match="has not answered for 1 s"):
            _caption(_patient(captioner, 1.0), _crops(6))
        server.start()


def _patient(captioner: Openai, seconds: float) -> Openai:
    captioner._servers._patience_s = seconds
    return captioner


def test_each_of_several_servers_must_answer_at_the_start(server: FakeCaptionServer) -> None:
    error = _told_at_start(f"{server.url},http://no-such-host.invalid/v1")
    assert "no-such-host.invalid" in str(error)


def test_several_servers_are_waited_for_at_once() -> None:
    began = time.monotonic()
    with _listening(None) as one, _listening(None) as two, _listening(None) as three:
        urls = ",".join(f"http://127.0.0.1:{port}/v1" for port in (one, two, three))
        error = _told_at_start(urls, start_s=1.0)
    assert time.monotonic() - began < 2.9
    assert "silent" in str(error)


def test_one_that_is_named_wrongly_is_told_of_while_others_are_still_starting(server: FakeCaptionServer) -> None:
    server.stop()
    error = _told_at_start(f"{server.url},http://no-such-host.invalid/v1", start_s=60.0)
    assert "no-such-host.invalid" in str(error)
    server.start()


def test_requests_that_nobody_waits_for_any_more_end(server: FakeCaptionServer) -> None:
    captioner = _captioner(server, patience_s=60.0, concurrency=16)
    server.fault = lambda asked: (
        Answer(status=401) if _height(asked) == 40 else Answer(status=503, headers={"Retry-After": "30"})
    )
    ahead = captioner.prepare(_crops(9)[1:], [None] * 8)
    began = time.monotonic()
    with pytest.raises(WorkError, match="api-key-env"):
        _caption(captioner, _crops(1))
    for answer in ahead:
        with pytest.raises(CancelledError):
            answer.result(timeout=5)
    assert time.monotonic() - began < 5


def test_a_key_that_ends_in_the_middle_stops_the_run(server: FakeCaptionServer) -> None:
    captioner = _captioner(server)
    server.fault = lambda asked: Answer(status=401)
    with pytest.raises(WorkError, match="api-key-env"):
        _caption(captioner, _crops(6))


def test_requests_keep_to_the_rate(server: FakeCaptionServer) -> None:
    began = time.monotonic()
    _texts(_captioner(server, max_requests_per_minute=1200), _crops(8))  # one in 50 ms, the test image the first
    assert time.monotonic() - began >= 8 * 0.05


def test_a_pause_holds_for_every_thread() -> None:
    limit = RateLimit(None)
    began = time.monotonic()
    limit.pause(0.1)
    waiting = threading.Thread(target=limit.wait)
    waiting.start()
    waiting.join()
    assert time.monotonic() - began >= 0.1


def test_crops_are_sent_within_the_sizes_asked_for(server: FakeCaptionServer) -> None:
    captioner = _captioner(server, min_side=30, max_side=64, image_format="png")
    shapes = [(3, 5), (200, 100), (1, 500), (40, 50)]
    crops = [
        replace(crop, pixels=np.zeros((*shape, 3), np.uint8)) for crop, shape in zip(_crops(4), shapes, strict=True)
    ]
    for crop in crops:
        _texts(captioner, [crop])
    assert [asked.size for asked in server.crops] == [(50, 30), (32, 64), (64, 30), (50, 40)]
    assert server.crops[0].image.startswith(b"\x89PNG")


def test_back_off_grows_is_bounded_and_the_same_for_the_same_item() -> None:
    waits = [back_off_s("a", attempt) for attempt in range(1, 9)]
    assert waits == [back_off_s("a", attempt) for attempt in range(1, 9)]
    assert waits != [back_off_s("b", attempt) for attempt in range(1, 9)]
    assert max(waits) <= 0.1
    assert waits[0] <= 0.02 < waits[2]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        *[("7", 7), ("0.5", 0.5), (None, None), ("soon", None), (formatdate(0, usegmt=True), 0), ("-3", 0), ("nan", 0)],
        ("Mon, 01 Jan 0001 00:00:00 -0000", 0),
    ],
)
def test_retry_after_is_read_as_seconds_or_date(header: str | None, seconds: float | None) -> None:
    headers = {} if header is None else {"Retry-After": header}
    response = httpx2.Response(429, headers=headers, request=httpx2.Request("POST", "http://127.0.0.1"))
    assert retry_after_s(openai.RateLimitError("busy", response=response, body=None)) == seconds


def test_the_fingerprint_holds_what_decides_the_captions() -> None:
    here, there = OpenaiConfig(), OpenaiConfig(url="https://elsewhere/v1", concurrency=2, patience_s=1.0)
    assert Openai.weights(here) == Openai.weights(there)
    assert Openai.weights(there)["url"] is None
    assert not {"model", "prompt", "seed", "max_side"} & set(Openai.weights(there))


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "localhost:8000"},
        {"concurrency": 0},
        {"min_side": 0},
        {"max_requests_per_minute": 0},
        {"patience_s": -1},
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=rf"--caption\.{next(iter(settings)).replace('_', '-')}"):
        OpenaiConfig(**settings)  # type: ignore[arg-type]
