import logging
import os
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from parking.inference.sinks import journal as journal_module
from parking.inference.sinks.journal import JournalContent, ResultsJournal, _merge, remove_journal_folder
from parking.utils.errors import UserError
from parking.utils.marks import make_own_folder

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


def lines_of(folder, *batches):
    """The bytes of a file with these batches."""
    write(folder.parent / "other", *batches).close()
    (path,) = (folder.parent / "other").glob("results-*.jsonl")
    return path.read_bytes()


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


@pytest.mark.parametrize("change", ["removed", "moved", "replaced"])
def test_results_that_would_be_lost_end_the_run(folder, tmp_path, change):
    journal = write(folder, FIRST)
    if change == "removed":
        shutil.rmtree(tmp_path / "out")
    else:
        folder.rename(tmp_path / "elsewhere")
    if change == "replaced":
        write(folder, FIRST)
    with pytest.raises(UserError, match=r"results-00000\.jsonl"):
        journal.append(SECOND)


def test_wherever_the_file_is_cut_off_whole_batches_are_kept(folder):
    write(folder, FIRST, SECOND).close()
    (path,) = folder.glob("results-*.jsonl")
    whole = path.read_bytes()
    first_line = whole.index(b"\n") + 1
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        # The last byte of a line, its end, may be missing.
        expected = set() if size < first_line - 1 else {1, 2} if size < len(whole) - 1 else {1, 2, 3, 4}
        journal = ResultsJournal(folder, RECIPE)
        assert journal.done == expected, size
        # What is written now stands on a line of its own.
        journal.append([{"image_id": 9, "boxes": []}])
        assert journal.gather().done == expected | {9}
        journal.close()


def test_lines_that_are_not_ours_or_were_edited_do_not_count(folder, caplog):
    write(folder, FIRST, SECOND).close()
    (path,) = folder.glob("results-*.jsonl")
    whole = path.read_bytes()
    for nonsense in (b"\0" * 100, b"\0\n\xff\n", b"{}\n7\n"):
        path.write_bytes(nonsense + b"\n" + whole + nonsense)
        assert reopen(folder).done == {1, 2, 3, 4}
    path.write_bytes(whole)
    caplog.clear()
    reopen(folder)
    assert not caplog.text
    path.write_bytes(whole.replace(b"0.25,2]", b"0.35,2]"))
    assert reopen(folder).done == {3, 4}
    assert f"'{folder}': 1 lines are cut off, damaged or edited" in caplog.text


def test_a_line_of_many_bytes_is_not_read_at_once(folder, monkeypatch):
    monkeypatch.setattr(journal_module, "MAX_JOURNAL_LINE_BYTES", 1 << 20)
    write(folder, FIRST).close()
    (path,) = folder.glob("results-*.jsonl")
    os.truncate(path, 64 << 20)
    tracemalloc.start()
    try:
        assert reopen(folder).done == {1, 2}
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"INPUT.SIZE_TEST": 320}, "INPUT.SIZE_TEST changed from 640 to 320"),
        ({"weights": "b" * 64}, "the weights changed"),
        ({"NEW": 1}, "NEW changed from None to 1"),
        ({"OLD": None}, "OLD changed from 1 to None"),
    ],
)
def test_another_recipe_starts_over_and_says_why(folder, caplog, change, sentence):
    write(folder, FIRST, SECOND, recipe={**RECIPE, "OLD": 1}).close()
    (folder / "results-00003.jsonl").write_bytes(lines_of(folder, FIRST))
    with caplog.at_level(logging.WARNING):
        assert reopen(folder, {**RECIPE, "OLD": 1, **change}).done == set()
    assert f"Starting over: {sentence} since the interrupted run in {folder}" in caplog.text
    assert [path.name for path in folder.glob("results-*")] == ["results-00000.jsonl"], "others' are removed, too"
    caplog.clear()
    assert reopen(folder, {**RECIPE, "OLD": 1, **change}).done == set()
    assert not caplog.text


def test_machines_that_share_the_folder_may_start_over_at_the_same_time(folder, monkeypatch):
    write(folder, FIRST).close()
    unlink = Path.unlink

    def be_slower_than_another_machine(path, **kwargs):
        unlink(path, missing_ok=True)
        unlink(path, **kwargs)

    monkeypatch.setattr(Path, "unlink", be_slower_than_another_machine)
    assert reopen(folder, {**RECIPE, "INPUT.SIZE_TEST": 320}).done == set()


def test_files_of_more_processes_than_now_count_and_each_image_once(folder):
    write(folder, FIRST).close()
    (folder / "results-00003.jsonl").write_bytes(lines_of(folder, FIRST[:1], SECOND, FIRST)[:-9])
    content = reopen(folder)
    assert content.done == {1, 2, 3, 4} and len(content.detections) == 3


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


def test_ids_are_exact(folder):
    boxes = [[1, 2, 3, 4, 0.5, i] for i in (2**53 + 1, 2**70, 2, 2**53)]
    write(folder, [{"image_id": "가", "boxes": boxes}]).close()
    found = reopen(folder).detections
    assert found.category_ids.tolist() == [row[-1] for row in boxes] and set(found.image_ids) == {"가"}


@pytest.mark.parametrize(
    ("name", "kind"), [("recipe.json", "link"), ("results-00000.jsonl", "fifo"), ("results-00004.jsonl", "folder")]
)
def test_only_regular_files_are_read_and_written(folder, tmp_path, name, kind):
    write(folder, FIRST).close()
    path, target = folder / name, tmp_path / "target"
    target.write_text("mine")
    path.unlink(missing_ok=True)
    {"link": lambda: path.symlink_to(target), "fifo": lambda: os.mkfifo(path), "folder": path.mkdir}[kind]()
    with pytest.raises(UserError, match=f"{name}.*remove"):
        reopen(folder)
    assert target.read_text() == "mine"


@pytest.mark.parametrize("content", [b"{", b"[]", b"7", b"[" * 100_000, b"\xff"])
def test_nonsense_for_a_recipe_starts_over(folder, caplog, content):
    write(folder, FIRST).close()
    (folder / "recipe.json").write_bytes(content)
    assert reopen(folder).done == set()
    assert "recipe.json is damaged" in caplog.text


def test_only_our_folder_is_used_and_removed(tmp_path, caplog):
    journal = tmp_path / ".parking-journal"
    make_own_folder(journal)
    write(journal / "model-0", FIRST).close()
    make_own_folder(journal)
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "results-00000.jsonl").write_text("mine")
    (journal / "model-1").symlink_to(tmp_path / "target")
    (journal / "model-2").mkdir()
    (journal / "model-2" / "results-00000.jsonl").write_text("mine")
    (journal / "model-0" / "results-mine.jsonl").write_text("mine")
    assert reopen(journal / "model-0").done == {1, 2}
    remove_journal_folder(journal)
    assert {path.name for path in journal.glob("model-?")} == {"model-0", "model-2"} and "left there" in caplog.text
    assert (journal / "model-0" / "results-mine.jsonl").read_text() == "mine"
    assert (journal / "model-2" / "results-00000.jsonl").read_text() == "mine"
    assert (tmp_path / "target" / "results-00000.jsonl").read_text() == "mine"
    for name in ("model-0", "model-2"):
        shutil.rmtree(journal / name)
    remove_journal_folder(journal)
    assert not journal.exists()


@pytest.mark.parametrize("kind", ["folder", "link", "file"])
def test_a_folder_that_is_not_ours_is_refused(tmp_path, kind):
    path, target = tmp_path / ".parking-journal", tmp_path / "target"
    (path if kind == "folder" else target).mkdir()
    {"folder": (path / "precious").touch, "file": path.touch, "link": lambda: path.symlink_to(target)}[kind]()
    with pytest.raises(UserError, match="parking-journal"):
        make_own_folder(path)
