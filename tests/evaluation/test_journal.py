import json
import logging

import numpy as np
import pytest

from parking.evaluation.journal import JournalContent, ResultsJournal, _merge

RECIPE = {"INPUT.SIZE_TEST": 640, "TEST.AUG": (1, 2), "weights": "a" * 64}
FIRST = [{"image_id": 1, "boxes": [[1.5, 2, 3, 4, 0.5, 7], [0.001, 0, 9, 9, 0.25, 2]]}, {"image_id": 2, "boxes": []}]
SECOND = [{"image_id": 3, "error": "The image 'c.png' is damaged."}, {"image_id": 4, "boxes": [[5, 6, 7, 8, 1.0, 7]]}]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "out" / "journal" / "model-0"


def write(folder, *batches, recipe=RECIPE):
    journal = ResultsJournal(folder, recipe)
    for batch in batches:
        journal.append(batch)
    return journal


def reopen(folder, recipe=RECIPE):
    journal = ResultsJournal(folder, recipe)
    content = journal.gather()
    journal.close()
    assert journal.done == content.done
    return content


def test_everything_comes_back(folder):
    journal = write(folder, FIRST, SECOND)
    assert journal.done == set()
    assert journal.gather().done == {1, 2, 3, 4}
    journal.close()
    content = reopen(folder)
    assert content.done == {1, 2, 3, 4}
    assert content.errors == {3: "The image 'c.png' is damaged."}
    assert content.detections.image_ids.tolist() == [1, 1, 4]
    assert content.detections.category_ids.tolist() == [7, 2, 7]
    assert content.detections.boxes.tolist() == [[1.5, 2, 3, 4], [0.001, 0, 9, 9], [5, 6, 7, 8]]
    assert content.detections.scores.tolist() == [0.5, 0.25, 1.0]


def test_image_ids_may_be_texts(folder):
    write(folder, [{"image_id": "가", "boxes": [[1, 2, 3, 4, 0.5, 7]]}]).close()
    content = reopen(folder)
    assert content.done == {"가"} and content.detections.image_ids.tolist() == ["가"]


def test_wherever_the_file_is_cut_off_whole_batches_are_kept(folder):
    write(folder, FIRST, SECOND).close()
    (path,) = folder.glob("*.jsonl")
    whole = path.read_bytes()
    first_line = whole.index(b"\n") + 1
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        expected = set() if size < first_line else {1, 2} if size < len(whole) else {1, 2, 3, 4}
        journal = ResultsJournal(folder, RECIPE)
        assert journal.done == expected, size
        # What is written now stands on a line of its own.
        journal.append([{"image_id": 9, "boxes": []}])
        assert journal.gather().done == expected | {9}
        journal.close()


def test_nonsense_behind_the_whole_lines(folder):
    write(folder, FIRST).close()
    (path,) = folder.glob("*.jsonl")
    for nonsense in (b"\0" * 100, b"\0\n\xff\n", b"{}\n", b"7\n"):
        whole = path.read_bytes()
        path.write_bytes(whole + nonsense)
        assert reopen(folder).done == {1, 2}
        assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"INPUT.SIZE_TEST": 320}, "INPUT.SIZE_TEST changed from 640 to 320"),
        ({"weights": "b" * 64}, "the weights changed"),
        ({"NEW": 1}, "NEW changed from None to 1"),
    ],
)
def test_another_recipe_starts_over_and_says_why(folder, caplog, change, sentence):
    write(folder, FIRST, SECOND).close()
    (folder / "results-00003.jsonl").write_bytes(b'[{"image_id":5,"boxes":[]}]\n')
    with caplog.at_level(logging.WARNING):
        assert reopen(folder, {**RECIPE, **change}).done == set()
    assert f"Starting over: {sentence} since the interrupted run in {folder}" in caplog.text
    caplog.clear()
    assert reopen(folder, {**RECIPE, **change}).done == set()
    assert not caplog.text


def test_a_key_that_is_gone_is_a_change(folder, caplog):
    write(folder, FIRST, recipe={**RECIPE, "OLD": 1}).close()
    assert reopen(folder).done == set()
    assert "OLD changed from 1 to None" in caplog.text


def test_a_damaged_recipe_starts_over(folder, caplog):
    write(folder, FIRST).close()
    (folder / "recipe.json").write_bytes(b"{")
    assert reopen(folder).done == set()
    assert "recipe.json is damaged" in caplog.text


def test_files_of_more_processes_than_now_count(folder):
    write(folder, FIRST).close()
    (folder / "results-00003.jsonl").write_bytes(json.dumps(SECOND).encode() + b"\n" + b'[{"image_id"')
    assert reopen(folder).done == {1, 2, 3, 4}


def test_results_without_a_recipe_are_nobodys(folder, caplog):
    """What a kill leaves amid the removal."""
    write(folder, FIRST).close()
    (folder / "recipe.json").unlink()
    assert reopen(folder).done == set()
    assert "recipe.json is gone" in caplog.text
    caplog.clear()
    (folder / "recipe.json").unlink()
    assert reopen(folder).done == set()
    assert not caplog.text, "there is nothing that could be another's"


def test_results_of_other_processes_are_emptied_too(folder, monkeypatch):
    """Also those of a number that is now a process of another machine."""
    write(folder, FIRST).close()
    (folder / "results-00001.jsonl").write_bytes(json.dumps(SECOND).encode() + b"\n")
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    monkeypatch.setattr("detectron2.utils.comm.all_gather", lambda x: [x, x])
    monkeypatch.setattr("detectron2.utils.comm.synchronize", lambda: None)
    journal = ResultsJournal(folder, {**RECIPE, "weights": "b" * 64})
    assert journal.done == set() and (folder / "results-00001.jsonl").read_bytes() == b""
    journal.close()


def test_an_image_that_two_processes_have_counts_once(folder):
    write(folder, FIRST).close()
    (folder / "results-00001.jsonl").write_bytes(json.dumps(FIRST[:1]).encode() + b"\n")
    assert len(reopen(folder).detections) == 2


def test_machines_that_share_the_folder_or_not(folder):
    write(folder, FIRST, SECOND).close()
    content = reopen(folder)
    assert_same(_merge(content, content), content)
    other = JournalContent(content.detections[2:], {4}, {})
    mine = JournalContent(content.detections[:2], {1, 2, 3}, content.errors)
    assert_same(_merge(mine, other), content)
    nothing = JournalContent(content.detections[:0], set(), {})
    assert_same(_merge(nothing, content), content)


def assert_same(actual, expected):
    assert (actual.done, actual.errors) == (expected.done, expected.errors)
    for name in ("image_ids", "category_ids", "boxes", "scores"):
        np.testing.assert_array_equal(getattr(actual.detections, name), getattr(expected.detections, name))
