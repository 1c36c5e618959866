"""Keys that a JSON object has twice, found in every encoding, and refused by the reader of annotation."""

import json

import pytest

from dynpose.data import DatasetError
from dynpose.data.coco_json import read_coco_json
from dynpose.data.json_keys import repeated_key

COCO = '"images": [{"id": 1}], "categories": []'


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("{}", None),
        ("[]", None),
        ('[{"a": 1, "a": 2}]', None),
        ("{", None),
        ('{"a": 1, "b": {"c": [1, "a"]}}', None),
        # keys of nested objects are not checked here
        ('{"a": {"b": 1, "b": 2}}', None),
        ('{"a": "\\"a\\": 1, \\"b\\": 2", "b": 1}', None),
        ('{"a": 1, "a": 2}', "a"),
        ('{"a": [1, {"b": "}"}], "b": {"a": 1}, "a": [4]}', "a"),
        (' {\n "a" : 1 ,\n\t"b": 0,\r\n "b" : 2 }\n', "b"),
        ('{"c": 0, "b": 1, "a": 2, "b": 3, "a": 4}', "b"),
        ('{"b": 1, "a": 2, "a": 3, "a": 5}', "a"),
        ('{"a\\"b": 1, "a\\"b": 2}', 'a"b'),
        ('{"\\u0061": 1, "a": 2}', "a"),
        ('{"é": 1, "é": 2}', "é"),
        ('{"": 1, "": 2}', ""),
        # msgspec takes no NaN
        ('{"a": NaN, "b": 2}', None),
        ('{"a": NaN, "b": [{"a": 1}], "a": 2}', "a"),
        ('[{"a": NaN, "a": 1}]', None),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_of_the_outermost_object(text, key, encoding):
    assert repeated_key(text.encode(encoding)) == key
    assert json.loads('{"a": 1, "a": 2}') == {"a": 2}  # what goes unnoticed without


@pytest.mark.parametrize("second", ['"annotations": []', '"annotations": [{"area": NaN}]'])
def test_a_second_list_of_annotations_is_refused(tmp_path, second):
    path = tmp_path / "people.json"
    path.write_text(f'{{{COCO}, "annotations": [{{"id": 1}}], {second}}}')
    with pytest.raises(DatasetError, match=r"people\.json: .*the key 'annotations' more than once.*; join"):
        read_coco_json(str(path))


@pytest.mark.parametrize(
    ("item", "key"),
    [
        ('{"id": 1, "id": 2}', "id"),
        ('{"id": 1, "attributes": {"id": 3, "area": [{"area": 2}]}}', None),
        ('{"id": 1, "name": "area", "area": 5}', None),
        ('{"id": 1, "note": "\\"area\\": 5", "area": 5, "bbox": [NaN]}', None),
        ('{"id": 1, "attributes": {"area": 1, "area": 2}, "area": 5}', None),
        ('{"id": 1, "area": NaN, "area": 5}', "area"),
        # it is not read
        ('{"id": 1, "colour": 1, "colour": 2}', None),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_in_an_annotation(tmp_path, item, key, encoding):
    path = tmp_path / "people.json"
    path.write_text(f'{{{COCO}, "annotations": [{{"id": 0}}, {item}]}}', encoding=encoding)
    if key is None:
        assert len(read_coco_json(str(path))["annotations"]) == 2
        return
    with pytest.raises(
        DatasetError, match=rf"people\.json: annotations\[1\] has the key '{key}' more than once.*; keep"
    ):
        read_coco_json(str(path))
