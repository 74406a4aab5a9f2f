"""What captioners answer, by the habits of the trade: thoughts before the answer, answers cut short, one answer for
all pictures, and true sentences of every script that repeat themselves.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.caption.normalise import finished, normalised
from pipeline.caption.openai import Openai, OpenaiConfig
from pipeline.caption.repetition import repetition
from pipeline.errors import WorkError
from pipeline.golden.pictures import golden_crops
from pipeline.sample import Caption, Drop
from schemas.reasons import Reason
from tests.builders import read_rows, run
from tests.caption_server import Answer, Asked, FakeCaptionServer

ANSWER = "A dog on a mat."
TAGS = [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<reasoning>", "</reasoning>"),
    ("<thought>", "</thought>"),
    ("<Thinking>", "</Thinking>"),
    ("<seed:think>", "</seed:think>"),
    ('<think type="short">', "</think>"),
    ("<reflection>", "</reflection>"),
    ("[THINK]", "[/THINK]"),
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<thought_process>", "</thought_process>"),
    ("<reasoning_content>", "</reasoning_content>"),
    ("<thinking_steps>", "</thinking_steps>"),
    ("<Chain_Reasoning_Trace>", "</Chain_Reasoning_Trace>"),
    ("<cot>", "</cot>"),
    ("<|thinking|>", "<|/thinking|>"),
    ("<|think|>", "<|/think|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<unused94>thought", "<unused95>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ("<|channel>thought\n", "<channel|>"),
]
THOUGHT = "The user wants a caption.\n\nI see a cat... no, wait: a dog? 2 < 3, so yes."


@pytest.mark.parametrize(("opening", "closing"), TAGS, ids=[opening for opening, _ in TAGS])
class TestThoughts:
    @pytest.mark.parametrize("between", ["", "\n\n", " "])
    def test_they_are_taken_off_in_front_of_an_answer(self, opening: str, closing: str, between: str) -> None:
        assert normalised(f"{opening}\n{THOUGHT}\n{closing}{between}{ANSWER}") == ANSWER

    def test_the_opening_may_have_stood_in_the_prompt(self, opening: str, closing: str) -> None:
        assert normalised(f"{THOUGHT}{closing}\n{ANSWER}") == ANSWER or "channel|>analysis" in opening

    @pytest.mark.parametrize("said", ["{0}{2}", "{0}", "{0} {2} {0} {2}", "{0}{2}{1}"])
    def test_where_there_is_nothing_else_nothing_was_said(self, opening: str, closing: str, said: str) -> None:
        outcome = finished(Caption(text=said.format(opening, closing, THOUGHT), score=0.9))
        assert isinstance(outcome, Drop)
        assert outcome.reason is Reason.EMPTY_CAPTION

    def test_two_thoughts_and_one_within_another(self, opening: str, closing: str) -> None:
        assert normalised(f"{opening}{THOUGHT}{closing}{opening}{THOUGHT}{closing}{ANSWER}") == ANSWER
        assert normalised(f"{opening}a{opening}b{closing}c{closing}{ANSWER}") == ANSWER

    def test_an_end_of_turn_behind_the_answer_takes_nothing(self, opening: str, closing: str) -> None:
        for end in ("<|im_end|>", "<|end|>", "<|return|>", "</s>"):
            assert normalised(f"{opening}{THOUGHT}{closing}{ANSWER}{end}") == ANSWER
            assert normalised(f"{ANSWER}{end}") == ANSWER


@pytest.mark.parametrize(
    "said",
    [
        f"<think>{THOUGHT}</think><answer>{ANSWER}</answer>",
        f"<answer> {ANSWER}",
        f"<think>{THOUGHT}</think>\n\n<answer>\n{ANSWER}\n</answer> Done.",
        f"<|begin_of_thought|>x<|end_of_thought|><|begin_of_box|>{ANSWER}<|end_of_box|>",
    ],
)
def test_an_answer_in_a_tag_of_its_own_is_unwrapped(said: str) -> None:
    assert normalised(said) == ANSWER


@pytest.mark.parametrize(
    "text",
    [
        "A sign that says I think, therefore I am.",
        "A person thinking [sitting on a bench].",
        "A book titled <Thunder> on a shelf",
        "x < y and y > z on a whiteboard",
        "A statue: The Thinker (thinking).",
    ],
)
def test_words_about_thinking_are_no_thoughts(text: str) -> None:
    assert normalised(text) == text


@pytest.mark.parametrize("between", ["", "assistantcommentaryI look again.", "assistantanalysisSo: a dog."])
@pytest.mark.parametrize("opening", ["analysis", "commentary", ""])
def test_channels_whose_tokens_a_server_took_out_are_thoughts(opening: str, between: str) -> None:
    for final in ("assistantfinal", "assistantfinalmessage"):
        assert normalised(f"{opening}{THOUGHT}{between}{final}{ANSWER}") == ANSWER
        assert normalised(f"{opening}{THOUGHT}\n{between}{final}\n{ANSWER}") == ANSWER
    assert not opening or isinstance(finished(Caption(text=f"{opening}{THOUGHT}{between}", score=0.9)), Drop)


@pytest.mark.parametrize(
    "text",
    [
        "analysis of a graph on a screen",
        "Analysis: A bar chart.",
        "commentary box at a stadium",
        "An assistant, final form",
    ],
)
def test_captions_that_begin_like_a_channel_are_captions(text: str) -> None:
    assert normalised(text) == text


TRUE = {
    "price in millions": "A cheque for 1,000,000,000,000 dollars.",
    "prices": "A menu with 9.99, 9.99, 9.99, 9.99 and 4.50 on it.",
    "prices with a currency": "A price list: 5 euros, 5 euros, 5 euros, 7 euros.",
    "prices in Chinese": "价目表上写着10元 10元 10元 20元",
    "serial number in groups": "A card with the number 0000 0000 0000 0000 1234.",
    "serial number hidden": "A card with the number XXXX XXXX XXXX XXXX.",
    "serial number with hyphens": "Serial number 1111-1111-1111-1111-1111-1111 on a label.",
    "serial number in one": "A label that reads SN00000000000000000000000000012.",
    "address": "A screen shows 255.255.255.255 and 192.168.168.168.",
    "scores": "A scoreboard reads 0 0 0 0 0 0 0 1.",
    "time": "A clock shows 00:00:00:00.",
    "date": "A stamp of 12.12.12 12:12:12.",
    "telephone": "Call 555 555 5555 555 now.",
    "letters": "An eye chart with E E E E in a row.",
    "binary": "01010101010101010101010101010101 is written on a wall",
    "Chinese laughter": "一群人在草地上哈哈哈哈哈大笑，旁边有一只狗和一个红色的球。",
    "Chinese reduplication": "高高兴兴的孩子们在公园里跑来跑去，地上到处都是红红的花。",
    "Chinese cheer": "横幅上写着加油加油加油",
    "Japanese": "きらきらと光る星と、ふわふわの雲が描かれた絵本の表紙です。",
    "Japanese laughter": "「はははははは」と笑う男の人の漫画の一コマです。",
    "Thai": "ผู้หญิงกำลังนั่งอยู่บนเก้าอี้สีแดงในสวน",
    "Thai laughter": "ป้ายเขียนว่า 55555 สีแดง",
    "Hindi": "एक काली कार के किनारे की कुर्सी के कोने का कुत्ता",
    "Tamil": "காக்கை கல் மேல் அமர்ந்துள்ளது",
    "Arabic": "طفل يلعب بالكرة في الحديقة الخضراء",
    "Indonesian": "Orang-orang di pasar dengan buah-buahan dan sayur-sayuran.",
    "German compound": "Eine Rindfleischetikettierungs\u00fcberwachungsaufgaben\u00fcbertragungsgesetzbroschu\u0308re.",
    "Korean": "하하하하 웃는 아이가 공원에 서 있다.",
}
STUCK = {
    "English": "a man in the park in the park in the park",
    "German": "ein Hund und ein Hund und ein Hund und",
    "Chinese phrase": "一只猫一只猫一只猫一只猫",
    "Chinese phrase with commas": "一只白色的猫，一只白色的猫，一只白色的猫，一只",
    "Chinese character": "这是一张" + "的" * 20,
    "Japanese": "猫と犬と猫と犬と猫と犬と",
    "Thai": "สีแดง" * 6,
    "Hindi": "लाल कार " * 3,
    "Russian": "кот кот кот кот",
    "Arabic": "قطة بيضاء " * 3,
    "numbers to the limit": "the number is " + "1 " * 30,
    "one digit held down": "0" * 60,
    "letters held down": "it says " + "ha" * 20,
    "alone": "cat cat cat",
    "price list without end": "5 euros, " * 12,
}


@pytest.mark.parametrize("text", TRUE.values(), ids=TRUE)
def test_a_true_sentence_is_not_taken_for_a_stuck_model(text: str) -> None:
    assert repetition(text) is None


@pytest.mark.parametrize("text", STUCK.values(), ids=STUCK)
def test_a_stuck_model_is_caught_in_every_script(text: str) -> None:
    outcome = finished(Caption(text=text, score=None))
    assert isinstance(outcome, Drop)
    assert outcome.reason is Reason.REPEATED_CAPTION


@pytest.mark.parametrize("text", ["\u00a0", "\u200b\u200b", "\u2026", "---", "\u3164", "\U0001f600", "_ _", "\u00b0"])
def test_what_has_no_letter_says_nothing(text: str) -> None:
    outcome = finished(Caption(text=text, score=None))
    assert isinstance(outcome, Drop)
    assert outcome.reason is Reason.EMPTY_CAPTION


@pytest.mark.parametrize("text", ["7", "\u72d7", "\u0e2b\u0e21\u0e32", "x", "\u0661"])
def test_one_letter_of_any_script_says_something(text: str) -> None:
    assert finished(Caption(text=text, score=None)) == Caption(text=text, score=None)


@pytest.fixture
def server() -> Iterator[FakeCaptionServer]:
    with FakeCaptionServer() as started:
        yield started


def _completion(content: str | None, finish_reason: str | None = "stop", **message: object) -> Answer:
    said = {"role": "assistant", "content": content} | message
    choice = {"index": 0, "finish_reason": finish_reason, "message": said}
    body = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    return Answer(body=json.dumps(body))


def _answer_of(server: FakeCaptionServer, answer: Answer, **settings: object) -> Caption | Drop:
    """What becomes of one answer of a server."""
    captioner = Openai(OpenaiConfig(url=server.url, **settings))  # type: ignore[arg-type]
    server.fault = lambda asked: None if asked.is_test_image else answer
    (outcome,) = captioner.caption([next(golden_crops())], [captioner.prompt])
    return finished(outcome, captioner.prompt, keeps_unfinished=captioner.config.unfinished == "keep")


@pytest.mark.parametrize("reason", ["length", "content_filter", "max_tokens", "SAFETY"])
def test_an_answer_that_the_server_cut_is_unfinished(server: FakeCaptionServer, reason: str) -> None:
    dead = _answer_of(server, _completion("A dog on a", reason))
    assert isinstance(dead, Drop)
    assert dead.reason is Reason.UNFINISHED
    assert reason in dead.message
    kept = _answer_of(server, _completion("A dog on a", reason), unfinished="keep")
    assert isinstance(kept, Caption)
    assert kept.text == "A dog on a"


@pytest.mark.parametrize("reason", ["stop", "eos_token", "end_turn", "stop_sequence", "STOP", None, ""])
def test_an_answer_that_the_model_ended_is_whole(server: FakeCaptionServer, reason: str | None) -> None:
    assert _answer_of(server, _completion(ANSWER, reason)) == Caption(text=ANSWER, score=None)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_thoughts_in_a_field_of_their_own_are_no_caption(server: FakeCaptionServer, name: str) -> None:
    assert _answer_of(server, _completion(ANSWER, **{name: THOUGHT})) == Caption(text=ANSWER, score=None)
    for content in ("", None):
        only = _answer_of(server, _completion(content, **{name: THOUGHT}))
        assert isinstance(only, Drop)
        assert only.reason is Reason.EMPTY_CAPTION
        assert "I see a cat" in only.message


def test_a_key_that_the_server_repeats_is_no_caption(
    server: FakeCaptionServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-s3cret")
    outcome = _answer_of(server, _completion("You sent Bearer sk-s3cret."), api_key_env="MY_KEY")
    assert isinstance(outcome, Drop)
    assert outcome.reason is Reason.MODEL_ERROR
    assert "s3cret" not in outcome.message


WANTS = {
    "OpenAI": (400, {"error": {"message": "Unsupported parameter: 'max_tokens'.", "param": "max_tokens"}}),
    "FastAPI": (422, {"detail": [{"loc": ["body", "max_tokens"], "msg": "Extra inputs are not permitted"}]}),
    "in words": (400, {"message": "use max_completion_tokens instead"}),
}


@pytest.mark.parametrize(("status", "body"), WANTS.values(), ids=WANTS)
def test_a_server_that_wants_the_limit_by_its_newer_name_gets_it(
    server: FakeCaptionServer, status: int, body: object
) -> None:
    server.fault = lambda asked: Answer(status=status, body=json.dumps(body)) if "max_tokens" in asked.body else None
    captioner = Openai(OpenaiConfig(url=server.url))
    crops = [*golden_crops()][:5]
    assert all(isinstance(outcome, Caption) for outcome in captioner.caption(crops, [None] * 5))
    assert ["max_tokens" in asked.body for asked in server.asked] == [True] + [False] * 6
    assert server.asked[-1].body["max_completion_tokens"] == 64


def test_a_limit_that_is_refused_by_either_name_is_told_as_the_server_first_said(server: FakeCaptionServer) -> None:
    def too_large(asked: Asked) -> Answer:
        name = next(name for name in asked.body if name.startswith("max_"))
        return Answer(status=400, body=json.dumps({"error": {"message": f"{name} is too large: 64"}}))

    server.fault = too_large
    with pytest.raises(WorkError, match="max_tokens is too large"):
        Openai(OpenaiConfig(url=server.url))


@pytest.mark.parametrize("text", ["ok", "I'm sorry, I can't see images.", ""])
def test_a_server_whose_model_sees_no_pictures_ends_the_job_at_its_start(
    server: FakeCaptionServer, tmp_path: Path, text: str
) -> None:
    server.fault = lambda asked: _completion(text)
    outcome = run(
        *("annotate", "scenes:4?split=test", tmp_path / "out", "--profile", "weightless", "--proposer", "manual"),
        *("--captioner", "openai", "--caption.url", server.url),
    )
    assert outcome.code == (7 if text else 2)
    assert ("allow-constant" in outcome.err) == bool(text), outcome
    assert not [*(tmp_path / "out").glob("*.tar")]


def test_a_model_that_goes_blind_on_the_way_ends_the_job(server: FakeCaptionServer, tmp_path: Path) -> None:
    def fault(asked: Asked) -> Answer | None:
        return _completion("ok") if len(server.asked) > 20 else None

    command = (
        *("annotate", "scenes:120?split=test", tmp_path / "out", "--profile", "weightless", "--proposer", "manual"),
        *("--captioner", "openai", "--caption.url", server.url, "--caption.concurrency", "8"),
    )
    server.fault = fault
    outcome = run(*command)
    assert outcome.code == 7
    assert "'ok' to 200 crops in a row" in outcome.err
    assert run(*command, "--caption.allow-constant", "true").code == 0


def test_a_server_for_each_time_that_the_flag_is_given(server: FakeCaptionServer, tmp_path: Path) -> None:
    with FakeCaptionServer() as other:
        outcome = run(
            *("annotate", "scenes:4?split=test", tmp_path / "out", "--profile", "weightless", "--proposer", "manual"),
            *("--caption.url", server.url, "--captioner", "openai", f"--caption.url={other.url}"),
        )
        assert outcome.code == 0, outcome
        assert server.crops and other.crops


def test_answers_cut_short_are_counted_though_they_are_kept(server: FakeCaptionServer, tmp_path: Path) -> None:
    server.fault = lambda asked: _completion(f"A picture of {len(asked.image)} bytes and", "length")
    outcome = run(
        *("annotate", "scenes:3?split=test", tmp_path / "out", "--profile", "weightless", "--proposer", "manual"),
        *("--captioner", "openai", "--caption.url", server.url, "--caption.unfinished", "keep"),
    )
    assert outcome.code == 0, outcome
    num_regions = sum(row["region_id"] is not None for row in read_rows(tmp_path / "out"))
    assert f"{num_regions} answers were cut short" in " ".join(outcome.out.split())


def test_an_answer_cut_short_is_dead_or_kept_as_one_wants() -> None:
    cut = Caption(text="A dog on a", score=0.51234, unfinished="the server ended it: length")
    dead = finished(cut, keeps_unfinished=False)
    assert isinstance(dead, Drop)
    assert (dead.reason, dead.message) == (Reason.UNFINISHED, "the server ended it: length: 'A dog on a'")
    kept = finished(cut)
    assert isinstance(kept, Caption)
    assert (kept.text, kept.score) == ("A dog on a", 0.5123)
