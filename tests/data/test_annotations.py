"""Tiny sets written in the true formats."""

import json

import numpy as np
import pytest
from PIL import Image

from visionlab.data.annotations import CocoDetection, VocDetection, YoloDetection


def write_pictures(folder, names, size=(40, 30)):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", size, (90, 120, 60)).save(folder / name)


# ------------------------------------------------------------------ COCO


def coco_content():
    def entry(i, image, category, box, **more):
        return {"id": i, "image_id": image, "category_id": category, "bbox": box, "iscrowd": 0,
                "area": box[2] * box[3], **more}  # fmt: skip

    return {
        "images": [
            {"id": 7, "file_name": "b.jpg", "width": 40, "height": 30},
            {"id": 3, "file_name": "a.jpg", "width": 40, "height": 30},
        ],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}],
        "annotations": [
            entry(1, 7, 90, [4, 5, 10, 8], segmentation=[[4, 5, 14, 5, 14, 13, 4, 13]]),
            entry(2, 7, 1, [0, 0, 40, 30], iscrowd=1,
                  segmentation={"size": [30, 40], "counts": [5, 2, 1193]}),
            entry(3, 7, 1, [3, 3, 0, 9], segmentation=[[3, 3, 3, 12, 3, 12]]),
        ],
    }  # fmt: skip


@pytest.fixture
def coco(tmp_path):
    write_pictures(tmp_path / "images", ["a.jpg", "b.jpg"])

    def make(content=None, **options):
        path = tmp_path / "instances.json"
        path.write_text(json.dumps(coco_content() if content is None else content))
        return CocoDetection(str(tmp_path / "images"), str(path), **options)

    return make


def test_coco_boxes_labels_and_crowd(coco):
    dataset = coco()
    assert dataset.classes == ["person", "toothbrush"]  # ids 1 and 90
    assert len(dataset) == 2
    empty, full = dataset[0], dataset[1]  # in the order of image ids
    assert len(empty["boxes"]) == 0
    assert full["boxes"].tolist() == [[4, 5, 14, 13], [0, 0, 40, 30]]  # the degenerate is gone
    assert full["labels"].tolist() == [1, 0]
    assert full["crowd"].tolist() == [False, True]


def test_coco_masks_from_polygons_and_run_lengths(coco):
    dataset = coco(masks=True)
    polygon, runs = dataset[1]["masks"]
    rows, columns = np.nonzero(polygon.numpy())
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 12, 4, 14)
    assert np.argwhere(runs.numpy()).tolist() == [[5, 0], [6, 0]]  # down the first column
    assert dataset[0]["masks"].shape == (0, 30, 40)


def test_coco_that_disagrees_with_its_folder(coco, tmp_path):
    content = coco_content()
    content["images"][0]["file_name"] = "absent.jpg"
    with pytest.raises(FileNotFoundError, match=r"lists 1 images .* first 'absent\.jpg'"):
        coco(content)
    content = coco_content()
    content["images"][0]["width"] = 99
    with pytest.raises(ValueError, match=r"b\.jpg is 40x30 px, the JSON says 99x30"):
        coco(content)[1]


def test_coco_that_disagrees_with_itself(coco):
    content = coco_content()
    content["annotations"][0]["image_id"] = 5
    with pytest.raises(ValueError, match="annotates the image id 5, which it does not list"):
        coco(content)
    content = coco_content()
    content["annotations"][0]["category_id"] = 2
    with pytest.raises(ValueError, match=r"uses the category id 2, .* known: \[1, 90\]"):
        coco(content)
    with pytest.raises(ValueError, match="lacks annotations, categories"):
        coco({"images": []})
    content = coco_content()
    content["images"][1]["id"] = content["images"][0]["id"]
    with pytest.raises(ValueError, match="images has the id 7 more than once"):
        coco(content)
    with pytest.raises(ValueError, match="holds no sample"):
        coco({"images": [], "annotations": [], "categories": []})


@pytest.mark.parametrize(
    ("place", "field", "value", "message"),
    [
        ("images", "file_name", None, r"images\[0\] has no 'file_name' \(str\)"),
        ("images", "width", "40", r"images\[0\] has no 'width' \(int or float\)"),
        ("categories", "name", None, r"categories\[0\] has no 'name'"),
        ("annotations", "bbox", [1, 1, 5], r"annotations\[0\] has the bbox \[1, 1, 5\]"),
        ("annotations", "bbox", ["a", 1, 2, 3], "expected 4 numbers"),
    ],
)
def test_coco_entries_of_another_form(coco, place, field, value, message):
    content = coco_content()
    content[place][0][field] = value
    with pytest.raises(ValueError, match=message):
        coco(content)


@pytest.mark.parametrize("drawn", [[[1, 1, 6]], {"counts": [1, 2]}, {"size": [3, 4]}, "x"])
def test_coco_masks_of_another_form(coco, drawn):
    content = coco_content()
    content["annotations"][0]["segmentation"] = drawn
    with pytest.raises(ValueError, match="the segmentation of annotation 1 is neither polygons"):
        coco(content, masks=True)[1]


@pytest.mark.parametrize("text", ["3", "null", "[]", '{"images": null}'])
def test_json_that_is_no_coco(tmp_path, text):
    (tmp_path / "images").mkdir()
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match="lacks images, annotations, categories"):
        CocoDetection(str(tmp_path / "images"), str(tmp_path / "x.json"))


def test_coco_formats_that_are_not_read(coco, tmp_path):
    content = coco_content()
    content["annotations"][1]["segmentation"]["counts"] = "abc"
    with pytest.raises(ValueError, match="annotation 2 holds compressed run lengths"):
        coco(content, masks=True)[1]
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "latin.json").write_bytes(b'{"images": "\xff"}')
    with pytest.raises(ValueError, match="is no JSON"):
        CocoDetection(str(tmp_path / "images"), str(tmp_path / "latin.json"))
    with pytest.raises(ValueError, match="limit is -1; expected at least 1"):
        coco(coco_content(), limit=-1)
    with pytest.raises(ValueError, match="is no JSON"):
        CocoDetection(str(tmp_path / "images"), str(tmp_path / "bad.json"))
    with pytest.raises(FileNotFoundError, match="no folder"):
        CocoDetection(str(tmp_path / "absent"), str(tmp_path / "bad.json"))
    with pytest.raises(FileNotFoundError, match="no file"):
        CocoDetection(str(tmp_path / "images"), str(tmp_path / "absent.json"))


# ------------------------------------------------------------------ Pascal VOC

OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{0}</xmin>
<ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object>"""


def write_voc(root, objects):
    write_pictures(root / "JPEGImages", ["one.jpg", "two.png"])
    (root / "Annotations").mkdir()
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "ImageSets" / "Main" / "train.txt").write_text("one\ntwo\n")
    for name in ("one", "two"):
        text = "".join(OBJECT.format(*b, name=n, difficult=d) for n, b, d in objects.get(name, []))
        (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{text}</annotation>")
    return root


def test_voc_counts_from_one_and_includes_the_last_pixel(tmp_path):
    root = write_voc(tmp_path, {"one": [("WBC", (1, 1, 10, 5), 0), ("RBC", (2, 2, 40, 30), 1),
                                        ("RBC", (6, 6, 6, 9), 0)]})  # fmt: skip
    dataset = VocDetection(str(root))
    assert dataset.classes == ["RBC", "WBC"]
    sample = dataset[0]
    assert sample["boxes"].tolist() == [[0, 0, 10, 5], [1, 1, 40, 30]]
    assert sample["labels"].tolist() == [1, 0]
    assert sample["crowd"].tolist() == [False, True]  # difficult
    assert len(dataset[1]["boxes"]) == 0


def test_voc_mistakes(tmp_path):
    root = write_voc(tmp_path, {"one": [("WBC", (1, 1, 10, 5), 0)]})
    with pytest.raises(ValueError, match=r"one\.xml has the class 'WBC'\. Did you mean 'wbc'"):
        VocDetection(str(root), ["wbc"])[0]
    with pytest.raises(ValueError, match="different names, or their number; got 'WBC'"):
        VocDetection(str(root), "WBC")
    annotation = root / "Annotations" / "one.xml"
    whole = annotation.read_text()
    annotation.write_text(whole.replace("<xmin>1<", "<xmin>one<"))
    with pytest.raises(ValueError, match=r"one\.xml: the box of 'WBC' has .*'one', .* numbers"):
        VocDetection(str(root))[0]
    annotation.write_text(whole.replace("<name>WBC</name>", ""))
    with pytest.raises(ValueError, match="has no <name>"):
        VocDetection(str(root))
    annotation.write_text(whole)
    with pytest.raises(FileNotFoundError, match=r"no file .*val\.txt \(VOC split\)"):
        VocDetection(str(root), split="val")
    (root / "JPEGImages" / "one.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="images and annotations disagree"):
        VocDetection(str(root))[0]
    (root / "Annotations" / "two.xml").write_text("<annotation>")
    with pytest.raises(ValueError, match=r"two\.xml is no XML"):
        VocDetection(str(root))
    (root / "Annotations" / "two.xml").unlink()
    with pytest.raises(FileNotFoundError, match=r"two\.xml \(VOC annotation\)"):
        VocDetection(str(root))


# ------------------------------------------------------------------ YOLO


@pytest.fixture
def yolo(tmp_path):
    write_pictures(tmp_path / "images", ["a.jpg", "b.jpg", "c.jpg"])
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("1 0.5 0.5 0.5 0.2\n0 0.25 0.5 0.1 0.4\n")
    (tmp_path / "labels" / "b.txt").write_text("")
    return tmp_path


def open_yolo(root):
    return YoloDetection(str(root / "images"), str(root / "labels"), classes=["x", "y"])


def test_yolo_boxes_in_pixels(yolo):
    dataset = open_yolo(yolo)
    assert len(dataset) == 3
    assert np.allclose(dataset[0]["boxes"], [[10, 12, 30, 18], [8, 9, 12, 21]])
    assert dataset[0]["labels"].tolist() == [1, 0]
    assert len(dataset[1]["boxes"]) == len(dataset[2]["boxes"]) == 0  # empty file, no file


def test_yolo_mistakes(yolo):
    (yolo / "labels" / "a.txt").write_text("5 0.5 0.5 0.5 0.2\n")
    with pytest.raises(ValueError, match=r"a\.txt has the label 5"):
        open_yolo(yolo)[0]
    (yolo / "labels" / "a.txt").write_text("0 0.5 zero 0.5 0.2\n")
    with pytest.raises(ValueError, match=r"a\.txt: each line is 'class cx cy w h'"):
        open_yolo(yolo)[0]
    (yolo / "labels" / "a.txt").write_text("0 0.5 0.5 0.5 0.2 0.9\n" * 5)
    with pytest.raises(ValueError, match=r"'class cx cy w h'; one has 6 values"):
        open_yolo(yolo)[0]
    (yolo / "labels" / "a.txt").write_text("0.7 0.5 0.5 0.5 0.2\n")
    with pytest.raises(ValueError, match=r"has the label 0\.7, which is no whole number"):
        open_yolo(yolo)[0]
    (yolo / "labels" / "a.txt").write_text("0 20 15 10 5\n")
    with pytest.raises(ValueError, match="lies outside its image"):
        open_yolo(yolo)[0]
    (yolo / "labels" / "stray.txt").write_text("")
    with pytest.raises(FileNotFoundError, match=r"1 label files .* first 'stray\.txt'"):
        open_yolo(yolo)
