import os

from parking.engine.hooks.unreadable_images import UnreadableImagesHook

from .stand_ins import make_trainer


def make_hook(folder, batch, iteration=0):
    hook = UnreadableImagesHook(str(folder / "unreadable_images.txt"), lambda: batch)
    hook.trainer = make_trainer(max_iter=3)
    hook.trainer.iter = iteration
    return hook


def test_images_left_out_are_told_once_and_listed_at_the_end(tmp_path, caplog):
    hook = make_hook(tmp_path, [{"unreadable": ["b.png"]}, {}])
    hook.after_step()
    hook.after_step()
    assert caplog.text.count("b.png") == 1
    again = make_hook(tmp_path, [{"unreadable": ["a.png", "b.png"]}], iteration=3)
    again.load_state_dict(hook.state_dict())
    again.after_step()
    again.after_train()
    assert (tmp_path / "unreadable_images.txt").read_text() == "a.png\nb.png\n"
    assert "left out: 2, see" in caplog.text


def test_a_name_that_is_no_text_is_listed_as_it_is(tmp_path):
    hook = make_hook(tmp_path, [{"unreadable": [os.fsdecode(b"\xc7\xd1.png")]}], iteration=3)
    hook.after_step()
    hook.after_train()
    assert (tmp_path / "unreadable_images.txt").read_bytes() == b"\xc7\xd1.png\n"


def test_no_list_without_images_left_out(tmp_path):
    hook = make_hook(tmp_path, [{}], iteration=3)
    hook.after_step()
    hook.after_train()
    assert list(tmp_path.iterdir()) == []
