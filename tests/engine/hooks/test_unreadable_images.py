import os

from parking.engine.hooks import UnreadableImagesHook

from .stand_ins import make_trainer


def test_images_left_out_are_told_once_and_listed_at_the_end(tmp_path, caplog):
    hook = UnreadableImagesHook(str(tmp_path / "unreadable_images.txt"))
    hook.trainer = make_trainer(max_iter=3)
    hook.trainer.last_batch = [{"unreadable": ["b.png"]}, {}]
    hook.after_step()
    hook.after_step()
    assert caplog.text.count("b.png") == 1
    again = UnreadableImagesHook(str(tmp_path / "unreadable_images.txt"))
    again.load_state_dict(hook.state_dict())
    again.trainer = make_trainer(max_iter=3)
    again.trainer.last_batch = [{"unreadable": ["a.png", "b.png"]}]
    again.trainer.iter = 3
    again.after_step()
    again.after_train()
    assert (tmp_path / "unreadable_images.txt").read_text() == "a.png\nb.png\n"
    assert "left out: 2, see" in caplog.text


def test_a_name_that_is_no_text_is_listed_as_it_is(tmp_path):
    hook = UnreadableImagesHook(str(tmp_path / "unreadable_images.txt"))
    hook.trainer = make_trainer(max_iter=3)
    hook.trainer.iter = 3
    hook.trainer.last_batch = [{"unreadable": [os.fsdecode(b"\xc7\xd1.png")]}]
    hook.after_step()
    hook.after_train()
    assert (tmp_path / "unreadable_images.txt").read_bytes() == b"\xc7\xd1.png\n"


def test_no_list_without_images_left_out(tmp_path):
    hook = UnreadableImagesHook(str(tmp_path / "unreadable_images.txt"))
    hook.trainer = make_trainer(max_iter=3)
    hook.trainer.iter = 3
    hook.trainer.last_batch = [{}]
    hook.after_step()
    hook.after_train()
    assert list(tmp_path.iterdir()) == []
