"""What died is repeated from its source, and only that: all else keeps its bytes, whatever the source is."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.caption.rule import Rule
from pipeline.sample import Caption
from pipeline.viewer.session import Session
from pipeline.viewer.source import open_source
from schemas.dataset import Dataset
from schemas.folder import DatasetError
from schemas.names import ShardName
from tests.builders import (
    annotate,
    check_balance,
    digests,
    image_rows,
    jpeg,
    members,
    read_rows,
    run,
    write_tar,
)
from tests.caption_server import MODEL, Answer, FakeCaptionServer
from tests.pipeline.overlay.conftest import recaptioned
from tests.pipeline.retry.conftest import mend, shard_files, write_pictures

SIZE = ("--shard-size", "4")


def test_what_was_mended_is_repaired_and_no_other_shard_changes(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    annotate(source, output, *SIZE)
    before = shard_files(output)
    mend(source, 1)
    retried = run("retry", output, "--where", "reason=decode", "--max-dead", "1")
    assert retried.code == 0, retried
    assert "3 rows of 2 shards. Dead images: 3 before, 2 now." in retried.out
    after = shard_files(output)
    assert {name for name in before if before[name] != after[name]} == {
        f"train-000000.{suffix}" for suffix in ("tar", "parquet", "json")
    }
    assert before.keys() == after.keys()
    rows = image_rows(output)
    assert [key for key, row in rows.items() if row["status"] == "dead"] == ["0005", "0007"]
    check_balance(output)
    assert run("status", output).code == 0
    assert run("doctor", output, "--max-repeated", "1").code == 0


def test_shards_are_as_if_nothing_had_ever_failed(source: Path, tmp_path: Path) -> None:
    annotate(source, tmp_path / "out", *SIZE)
    mend(source, 1, 5, 7)
    assert run("retry", tmp_path / "out", "--where", "reason=decode").code == 0
    annotate(source, tmp_path / "clean", *SIZE)
    assert shard_files(tmp_path / "out") == shard_files(tmp_path / "clean")
    clean, ours = (json.loads((tmp_path / name / "dataset.json").read_text()) for name in ("clean", "out"))
    assert clean == ours
    assert not (tmp_path / "out" / "_attempts").exists()
    assert not (tmp_path / "out" / "_leases").exists()


def test_nothing_to_do(source: Path, tmp_path: Path) -> None:
    annotate(source, tmp_path / "out", *SIZE)
    before = digests(tmp_path / "out")
    idle = run("retry", tmp_path / "out", "--where", "reason=oom,timeout")
    assert idle.code == 0, idle
    assert "Nothing to do: nothing dead has reason=oom,timeout. Reasons of what is dead: decode (3)." in idle.out
    assert digests(tmp_path / "out") == before


def test_conditions_are_joined_by_and(source: Path, tmp_path: Path) -> None:
    annotate(source, tmp_path / "out", *SIZE)
    mend(source, 1, 5, 7)
    both = run("retry", tmp_path / "out", "--where", "reason=decode,oom", "--where", "key=0001,0005,0009")
    assert "2 rows of 2 shards. Dead images: 3 before, 1 now." in both.out, both
    assert image_rows(tmp_path / "out")["0007"]["status"] == "dead"


def test_what_fails_again_has_the_new_reason(source: Path, tmp_path: Path) -> None:
    annotate(source, tmp_path / "out", *SIZE)
    (source / "0001.jpg").unlink()
    (source / "0005.jpg").write_bytes(b"")
    ended = run("retry", tmp_path / "out", "--where", "reason=decode")
    assert ended.code == 1, ended
    reasons = {key: row["reason"] for key, row in image_rows(tmp_path / "out").items() if row["reason"]}
    assert reasons == {"0001": "missing", "0005": "empty_file", "0007": "decode"}
    check_balance(tmp_path / "out")
    mend(source, 1, 5, 7)
    assert run("retry", tmp_path / "out", "--where", "stage=read,decode").code == 0
    annotate(source, tmp_path / "clean", *SIZE)
    assert shard_files(tmp_path / "out") == shard_files(tmp_path / "clean")


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ("raeson=oom", "no column 'raeson' (did you mean reason?); there are reason, stage, key"),
        ("reason=omm", "no reason of what is dead is called 'omm' (did you mean oom?); there are missing"),
        ("reason=small", "what a rule of yours left out"),
        ("stage=reed", "no stage of what is dead is called 'reed' (did you mean read?)"),
        ("reason", "write COLUMN=VALUE"),
        ("reason=", "write COLUMN=VALUE"),
    ],
)
def test_wrong_conditions_name_what_there_is(source: Path, tmp_path: Path, condition: str, told: str) -> None:
    annotate(source, tmp_path / "out", "--limit", "2")
    wrong = run("retry", tmp_path / "out", "--where", condition)
    assert (wrong.code, told in wrong.err) == (2, True), wrong


def test_no_conditions_no_output_and_help(tmp_path: Path) -> None:
    assert "no data set is here" in run("retry", tmp_path / "none", "--where", "reason=oom").err
    shown = run("retry", "--help")
    assert shown.code == 0
    assert "--where COLUMN=VALUE[,VALUE]" in shown.out


def dying(monkeypatch: pytest.MonkeyPatch, of: str) -> None:
    """The captioner raises for crops as wide as this one's, alone or in a batch."""
    caption = Rule.caption

    def caption_or_die(self: Rule, crops: object, prompts: object) -> list[Caption]:
        if any(crop.label == of for crop in crops):  # type: ignore[attr-defined]
            raise RuntimeError("no luck today")
        return caption(self, crops, prompts)  # type: ignore[arg-type]

    monkeypatch.setattr(Rule, "caption", caption_or_die)


def test_a_dead_region_is_captioned_again_and_the_others_keep_their_captions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = write_pictures(tmp_path / "source", 4), tmp_path / "out"
    with monkeypatch.context() as patched:
        dying(patched, "cat")
        annotate(source, output)
    dead = [row for row in read_rows(output) if row["status"] == "dead"]
    assert [(row["reason"], row["stage"]) for row in dead] == [("model_error", "caption")] * 4
    asked: list[str | None] = []
    caption = Rule.caption

    def watched(self: Rule, crops: object, prompts: object) -> list[Caption]:
        asked.extend(crop.label for crop in crops)  # type: ignore[attr-defined]
        return caption(self, crops, prompts)  # type: ignore[arg-type]

    monkeypatch.setattr(Rule, "caption", watched)
    assert run("retry", output, "--where", "reason=model_error").code == 0
    assert [label for label in asked if label in ("cat", None)][-4:] == ["cat"] * 4
    annotate(source, tmp_path / "clean")
    assert shard_files(output) == shard_files(tmp_path / "clean")


def test_one_of_two_dead_regions_of_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That which is not meant stays dead, with the reason that it had."""
    source, output = write_pictures(tmp_path / "source", 2), tmp_path / "out"
    with monkeypatch.context() as patched:
        dying(patched, "cat")
        annotate(source, output)
    first, second = (row["region_id"] for row in read_rows(output) if row["status"] == "dead")
    assert run("retry", output, "--where", f"region_id={first}", "--max-dead", "1").code == 0
    assert [row["region_id"] for row in read_rows(output) if row["status"] == "dead"] == [second]
    check_balance(output)


def test_a_mended_tar_gives_the_samples_that_it_had_lost(tmp_path: Path) -> None:
    samples = [members(f"a{number}") for number in range(6)]
    tar = write_tar(tmp_path / "tars" / "000.tar", samples)
    write_tar(tmp_path / "tars" / "001.tar", [members("b0")])
    whole = tar.read_bytes()
    tar.write_bytes(whole[: len(whole) // 2])
    annotate(tmp_path / "tars", tmp_path / "out")
    lost = [row for row in read_rows(tmp_path / "out") if row["status"] == "dead"]
    assert lost and {row["reason"] for row in lost} == {"truncated"}
    before = shard_files(tmp_path / "out")
    tar.write_bytes(whole)
    assert run("retry", tmp_path / "out", "--where", "reason=truncated").code == 0
    annotate(tmp_path / "tars", tmp_path / "clean")
    assert shard_files(tmp_path / "out") == shard_files(tmp_path / "clean")
    assert {name for name in before if shard_files(tmp_path / "out")[name] != before[name]} == {
        f"train-000000.{suffix}" for suffix in ("tar", "parquet", "json")
    }


def test_a_tar_in_which_a_sample_was_replaced_and_another_deleted(tmp_path: Path) -> None:
    samples = [members(f"a{number}") for number in range(6)]
    bad = [members(key, image=b"broken") for key in ("a1", "a3")]
    write_tar(tmp_path / "tars" / "000.tar", [samples[0], bad[0], samples[2], bad[1], *samples[4:]])
    annotate(tmp_path / "tars", tmp_path / "out")
    write_tar(tmp_path / "tars" / "000.tar", [*samples[:3], *samples[4:]])
    assert run("retry", tmp_path / "out", "--where", "reason=decode", "--max-dead", "1").code == 0
    rows = image_rows(tmp_path / "out")
    assert {key for key, row in rows.items() if row["status"] == "ok"} == {"a0", "a1", "a2", "a4", "a5"}
    assert (rows["a3"]["reason"], rows["a3"]["message"]) == ("missing", "the source does not have it any more")
    check_balance(tmp_path / "out")
    assert list(Dataset.open(tmp_path / "out").samples("train-000000", verify=True))


def test_a_key_that_came_twice_stays_dead_and_is_no_other(tmp_path: Path) -> None:
    twice = [members("a"), members("b", image=b"broken"), members("a", image=jpeg(9)), members("c")]
    write_tar(tmp_path / "tars" / "000.tar", twice)
    annotate(tmp_path / "tars", tmp_path / "out")
    before = shard_files(tmp_path / "out")
    ended = run("retry", tmp_path / "out", "--where", "reason=duplicate_key,decode", "--max-dead", "1")
    assert ended.code == 0, ended
    assert shard_files(tmp_path / "out") == before


def test_both_splits(source: Path, tmp_path: Path) -> None:
    split = ("--val-fraction", "0.4", *SIZE)
    annotate(source, tmp_path / "out", *split)
    mend(source, 1, 5, 7)
    assert run("retry", tmp_path / "out", "--where", "reason=decode").code == 0
    annotate(source, tmp_path / "clean", *split)
    assert shard_files(tmp_path / "out") == shard_files(tmp_path / "clean")


def test_a_data_set_that_was_appended_to(source: Path, tmp_path: Path) -> None:
    annotate(source, tmp_path / "out", *SIZE)
    more = write_pictures(tmp_path / "more", 5, broken=(3,))
    annotate(more, tmp_path / "out", "--append", *SIZE)
    mend(source, 1, 5, 7)
    mend(more, 3)
    assert run("retry", tmp_path / "out", "--where", "reason=decode").code == 0
    assert {row["status"] for row in image_rows(tmp_path / "out").values()} == {"ok"}
    annotate(source, tmp_path / "clean", *SIZE)
    annotate(more, tmp_path / "clean", "--append", *SIZE)
    assert shard_files(tmp_path / "out") == shard_files(tmp_path / "clean")


def test_an_unfinished_data_set_is_refused(source: Path, tmp_path: Path) -> None:
    annotate(source, tmp_path / "out", *SIZE)
    for folder in ("", "_commit"):
        (tmp_path / "out" / folder / "train-000002.json").unlink()
    refused = run("retry", tmp_path / "out", "--where", "reason=decode")
    assert refused.code == 3, refused
    assert "1 of 3 units are still to be made; finish the data set first" in refused.err


def test_a_damaged_shard_is_refused(source: Path, tmp_path: Path) -> None:
    annotate(source, tmp_path / "out", *SIZE)
    tar = tmp_path / "out" / "train-000002.tar"
    tar.write_bytes(tar.read_bytes()[:-512])
    refused = run("retry", tmp_path / "out", "--where", "reason=decode")
    assert refused.code == 3, refused
    assert "the same `fineclip annotate` makes this shard again" in refused.err


def test_a_shard_that_was_repaired_and_is_damaged_is_made_again(source: Path, tmp_path: Path) -> None:
    annotate(source, tmp_path / "out", *SIZE)
    mend(source, 1, 5, 7)
    assert run("retry", tmp_path / "out", "--where", "reason=decode").code == 0
    repaired = shard_files(tmp_path / "out")
    (tmp_path / "out" / "train-000000.tar").unlink()
    annotate(source, tmp_path / "out", *SIZE, "--trust-inputs")
    assert shard_files(tmp_path / "out") == repaired
    assert not (tmp_path / "out" / "_commit" / "train-000000.r1.json").exists()
    assert (tmp_path / "out" / "_commit" / "train-000001.r1.json").exists()
    annotate(source, tmp_path / "out", *SIZE, "--trust-inputs")
    assert shard_files(tmp_path / "out") == repaired


def test_filter_lists_are_asked_for(source: Path, tmp_path: Path) -> None:
    drop = tmp_path / "drop.jsonl"
    drop.write_text('{"key": "0002", "keep": false}\n')
    annotate(source, tmp_path / "out", "--filter", drop, *SIZE)
    mend(source, 1)
    refused = run("retry", tmp_path / "out", "--where", "key=0001")
    assert refused.code == 3, refused
    assert "lists: --filter" in refused.err
    assert run("retry", tmp_path / "out", "--where", "key=0001", "--filter", drop, "--max-dead", "1").code == 0


def test_settings_of_the_models_are_recorded_or_given_again(source: Path, tmp_path: Path) -> None:
    annotate(source, tmp_path / "out", "--caption.batch-size", "3", *SIZE)
    mend(source, 1, 5, 7)
    assert run("retry", tmp_path / "out", "--where", "reason=decode", "--caption.batch-size", "4").code == 3
    assert run("retry", tmp_path / "out", "--where", "reason=decode").code == 0


def test_the_address_of_a_captioner_s_server_is_asked_for(tmp_path: Path) -> None:
    """It is of one machine and one day, so no plan records it: the default one was asked, and nothing said why."""
    output, asked = tmp_path / "out", iter(range(1000))
    write_tar(tmp_path / "tars" / "000.tar", [members(f"k{number}") for number in range(3)])
    with FakeCaptionServer() as server:
        server.fault = lambda crop: None if crop.is_test_image or next(asked) % 3 else Answer(status=400)
        flags = ("--proposer", "manual", "--captioner", "openai", "--caption.model", MODEL)
        made = run("annotate", tmp_path / "tars", output, *flags, "--caption.url", server.url)
        assert made.code == 1, made
        assert f"`fineclip retry {output} --where reason=model_error` repeats them" in made.err
        server.fault = lambda crop: None
        where = ("--where", "reason=model_error", "--where", "stage=caption")
        lost = run("retry", output, *where, "--caption.start-s", "0.5")
        assert (lost.code, "give --caption.url URL" in lost.err) == (7, True), lost
        assert run("retry", output, *where, "--caption.url", server.url).code == 0
    assert not [row for row in read_rows(output) if row["status"] == "dead"]


def test_overlays_are_carried_over_and_recaption_completes_them(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    annotate(source, output, *SIZE)
    recaptioned(output)
    mend(source, 1, 5, 7)
    retried = run("retry", output, "--where", "reason=decode")
    assert "Overlay wide: regions that are new have no row there" in retried.out, retried
    marker = json.loads((output / "train-000000.wide.json").read_text())
    assert marker["partial"]
    carried = pq.read_table(output / "train-000000.wide.parquet")
    assert set(carried["key"].to_pylist()) == {"0000", "0002", "0003"}
    seen = Dataset.open(output, overlays=["wide"]).regions(["key", "caption", "captioner"], ["train-000000"])
    assert seen.num_rows == 4 * 4
    assert "overlay wide: 1 of 3 shards" in run("status", output).out
    refused = run("materialize", output, tmp_path / "whole", "--overlay", "wide")
    assert (refused.code, "lacks regions" in refused.err) == (2, True), refused
    recaptioned(output)
    assert not json.loads((output / "train-000000.wide.json").read_text())["partial"]
    annotate(source, tmp_path / "clean", *SIZE)
    recaptioned(tmp_path / "clean")
    assert shard_files(output) == shard_files(tmp_path / "clean")
    recaptioned(output)
    assert shard_files(output) == shard_files(tmp_path / "clean")
    assert run("materialize", output, tmp_path / "whole", "--overlay", "wide").code == 0


def test_readers_say_that_a_shard_is_being_repaired(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    annotate(source, output, *SIZE)
    opened = Dataset.open(output)
    row = opened.regions(["key", "tar_offset", "tar_size"], ["train-000000"]).slice(8, 1).to_pylist()[0]
    totals = run("status", output).out.splitlines()[:3]
    mend(source, 1, 5, 7)
    assert run("retry", output, "--where", "reason=decode").code == 0
    with pytest.raises(DatasetError, match="the shard was repaired since the data set was opened"):
        opened.read_image("train-000000", tar_offset=row["tar_offset"], tar_size=row["tar_size"])
    with pytest.raises(DatasetError, match="the shard was repaired since the data set was opened"):
        opened.regions(["key"], ["train-000000"])
    with pytest.raises(DatasetError, match="the shard was repaired since the data set was opened"):
        list(opened.samples("train-000000"))
    (output / "train-000000.json").unlink()
    with pytest.raises(DatasetError, match="the shard is being repaired"):
        Dataset.open(output)
    examined = run("doctor", output)
    assert (examined.code, "being-repaired" in examined.out) == (1, True), examined
    shown = run("status", output)
    assert (shown.code, "complete, 1 shard being repaired" in shown.out) == (0, True), shown
    assert "being repaired, so not listed: train-000000" in run("status", output, "--dead").err
    assert totals[1].split()[1] == shown.out.splitlines()[1].split()[1], "no image is missing in the totals"
    (problem,) = open_source(str(output)).problems
    assert "the shard is being repaired" in problem.message
    assert run("retry", output, "--where", "reason=decode").code == 0
    assert ShardName("train", 0) in Dataset.open(output).markers


def test_a_listed_file_is_the_only_one_that_is_read(source: Path, tmp_path: Path) -> None:
    annotate(source, tmp_path / "out", *SIZE)
    mend(source, 1)
    for number in (0, 2, 3):
        (source / f"{number:04d}.jpg").unlink()
    assert run("retry", tmp_path / "out", "--where", "key=0001", "--max-dead", "1").code == 0
    assert [row["status"] for row in image_rows(tmp_path / "out").values()][:4] == ["ok"] * 4


def test_a_cut_off_publication_is_finished_by_annotate_too(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    annotate(source, output, *SIZE)
    mend(source, 1, 5, 7)
    assert run("retry", output, "--where", "reason=decode").code == 0
    repaired = shard_files(output)
    (output / "train-000000.json").unlink()
    annotate(source, output, *SIZE, "--trust-inputs")
    assert shard_files(output) == repaired
    assert len(json.loads((output / "dataset.json").read_text())["shards"]) == 3


def test_edits_by_hand_are_kept(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    annotate(source, output, *SIZE)
    region = Dataset.open(output).read_sample("0000").record.regions[0]
    session = Session(str(output))
    session.edit("train-000000", "0000", region.id, caption="as I see it", label="mine")
    session.close()
    mend(source, 1, 5, 7)
    assert run("retry", output, "--where", "reason=decode").code == 0
    marker = json.loads((output / "train-000000.edits.json").read_text())
    assert marker["base_sha256"] == Dataset.open(output).markers[ShardName("train", 0)].parquet.sha256
    edited = Dataset.open(output, overlays=["edits"]).read_sample("0000").record.regions[0]
    assert (edited.caption, edited.label) == ("as I see it", "mine")
    assert run("materialize", output, tmp_path / "whole", "--overlay", "edits").code == 0
