"""`official`, read by a reader that was written from the notes on the method alone: what it samples has a caption."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from pipeline.export.official import COLLIDING, NO_BOX, NO_CAPTION, OF_LEFT_OUT
from schemas.class_sentences import VILD, sentences
from tests.builders import run
from tests.pipeline.export.conftest import Export, with_regions, write_data
from tests.shards import tiny_sample


def read(folder: Path) -> list[dict[str, Any]]:
    """Return what a trainer would draw: per image its captions, and each box with its caption."""
    proposals = COCO(str(folder / "coco_proposals.json"))
    texts = json.loads((folder / "coco_captions.json").read_text(encoding="utf-8"))
    captions = json.loads((folder / "captions.json").read_text(encoding="utf-8"))
    names = {image["id"]: image["file_name"] for image in captions["images"]}
    by_name: dict[str, list[str]] = {name: [] for name in names.values()}
    for annotation in captions["annotations"]:
        by_name[names[annotation["image_id"]]].append(annotation["caption"])
    drawn = []
    for image_id in proposals.getImgIds():
        name = proposals.imgs[image_id]["file_name"]
        with Image.open(folder / "images" / name) as image:
            size = image.size
        boxes = []
        for annotation in proposals.imgToAnns[image_id]:
            x, y, w, h = annotation["bbox"]
            caption = texts[f"{name}_{int(x)}_{int(y)}_{int(w)}_{int(h)}.jpg"]
            assert isinstance(caption, str)
            if 8**2 <= w * h <= 1024**2:
                boxes.append(((x, y, w, h), caption))
        assert boxes, "a dummy box with an empty text would be drawn"
        assert by_name[name], "an image without a caption ends the training"
        drawn.append({"name": name, "size": size, "captions": by_name[name], "boxes": boxes})
    return drawn


def test_every_box_that_is_drawn_has_its_caption(export: Export, tmp_path: Path) -> None:
    outcome = export("official")
    assert outcome.code == 0, outcome
    train, val = read(tmp_path / "out" / "train"), read(tmp_path / "out" / "val")
    assert [image["name"] for image in train] == ["a.png", "b.jpg"]
    assert train[1]["boxes"] == [((0.0, 2.0, 10.5, 18.0625), "naïve 日本"), ((1.0, 2.0, 10.5, 18.0625), "b shape 1")]
    assert [image["captions"] for image in val] == [["two shapes"]]
    assert "3 images, 5 regions" in outcome.out
    for count, what in ((1, NO_CAPTION), (1, NO_BOX), (3, OF_LEFT_OUT)):
        assert f"left out: {count} {what}" in outcome.out


def test_boxes_that_collide_when_cut_keep_one_caption(tmp_path: Path) -> None:
    box = (0.25, 2.5, 10.75, 20.5625)
    other = with_regions(tiny_sample("a", num_regions=3), {}, {"box": box})
    same = with_regions(tiny_sample("b"), {"caption": "one text"}, {"box": box, "caption": "one text"})
    data = write_data(tmp_path / "data", {"train": [[other, same]]})
    outcome = run("export", data, tmp_path / "out", "--to", "official")
    assert f"left out: 1 {COLLIDING}" in outcome.out
    first, second = read(tmp_path / "out" / "train")
    assert [caption for _, caption in first["boxes"]] == ["a shape 0", "a shape 2"]
    assert [caption for _, caption in second["boxes"]] == ["one text", "one text"]
    texts = (tmp_path / "out" / "train" / "coco_captions.json").read_text()
    assert len(json.loads(texts)) == texts.count(".jpg"), "no key twice"


def test_an_image_of_boxes_too_small_to_draw_is_left_out(tmp_path: Path) -> None:
    small = with_regions(tiny_sample("a", num_regions=1), {"box": (0.0, 0.0, 7.9375, 8.0)})
    data = write_data(tmp_path / "data", {"train": [[small, tiny_sample("b")]]})
    assert f"left out: 1 {NO_BOX}" in run("export", data, tmp_path / "out", "--to", "official").out
    assert [image["name"] for image in read(tmp_path / "out" / "train")] == ["b.png"]


def test_rows_of_embeddings_are_the_categories_by_their_rank(data: str, export: Export, tmp_path: Path) -> None:
    """As the notes have it: a label is the rank of its category's id, and the rank is a row, normalised float32."""
    pytest.importorskip("open_clip")
    from pipeline.caption import clip
    from pipeline.models.shipped import mini_folder

    outcome = export("official", "--embeddings", "mini")
    assert outcome.code == 0, outcome
    rows = np.load(tmp_path / "out" / "category_embeddings.npy", allow_pickle=False)
    proposals = COCO(str(tmp_path / "out" / "train" / "coco_proposals.json"))
    ranked = sorted(proposals.getCatIds())
    assert (rows.shape[0], rows.dtype) == (len(ranked), np.dtype(np.float32))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    loaded = clip.load(mini_folder("clip"))
    for rank, number in enumerate(ranked):
        texts = sentences(VILD, proposals.cats[number]["name"])
        mean = clip.encode_captions(loaded, texts).mean(dim=0).numpy()
        np.testing.assert_allclose(rows[rank], mean / np.linalg.norm(mean), atol=1e-5)
    drawn = {annotation["category_id"] for annotation in proposals.anns.values()}
    assert drawn == set(ranked), "each class is that of a box"
    again = (tmp_path / "out" / "category_embeddings.npy").read_bytes()
    (tmp_path / "out" / "category_embeddings.npy").unlink()
    assert export("official", "--embeddings", "mini").code == 0
    assert (tmp_path / "out" / "category_embeddings.npy").read_bytes() == again


def test_embeddings_are_official_s_and_their_model_is_looked_for_first(export: Export, tmp_path: Path) -> None:
    assert "embeddings is of --to official" in export("coco", "--embeddings", "mini").err
    refused = export("official", "--embeddings", "./gone")
    assert refused.code == 2
    assert "--embeddings ./gone: there is no such file or folder" in refused.err
    assert not (tmp_path / "out").exists()
    assert export("official").code == 0
    assert not (tmp_path / "out" / "category_embeddings.npy").exists()


def test_nouns_are_the_categories_of_regions_without_a_label(tmp_path: Path) -> None:
    texts = ["Two Dogs on a mat", "a hot dog", "a shape", "catalogue"]
    changes = [{"label": None, "caption": text} for text in texts]
    sample = with_regions(tiny_sample("a", num_regions=4), *changes)
    labelled = with_regions(tiny_sample("b", num_regions=1), {"caption": "a dog"})
    data = write_data(tmp_path / "data", {"train": [[sample, labelled]]})
    (tmp_path / "nouns.txt").write_text("# things\ndog\nhot dog\ncat\n")
    outcome = run("export", data, tmp_path / "out", "--to", "official", "--nouns", tmp_path / "nouns.txt")
    assert outcome.code == 0, outcome
    proposals = COCO(str(tmp_path / "out" / "train" / "coco_proposals.json"))
    names = {number: entry["name"] for number, entry in proposals.cats.items()}
    assert list(names.values()) == ["cat", "dog", "hot dog", "region", "shape"]
    found = [names[proposals.anns[number]["category_id"]] for number in sorted(proposals.anns)]
    assert found == ["dog", "hot dog", "region", "region", "shape"]
    refused = run("export", data, tmp_path / "out", "--to", "official")
    assert refused.code == 3 and "options was" in refused.err
    (tmp_path / "nouns.txt").write_text("# nothing\n")
    empty = run("export", data, tmp_path / "new", "--to", "official", "--nouns", tmp_path / "nouns.txt")
    assert empty.code == 2 and "holds no noun" in empty.err
