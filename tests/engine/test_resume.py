from contextlib import nullcontext

import pytest

from parking.config.checks import Recipe
from parking.engine.resume import check_same_data, check_same_recipe, digest_dataset
from parking.utils.errors import UserError

CONFIG = {
    "SEED": 1,
    "OUTPUT_DIR": "a",
    "MODEL.WEIGHTS": "x.pt",
    "MODEL.YOLO.DEPTH_MULTIPLE": 0.33,
    "SOLVER.MAX_ITER": 10,
    "SOLVER.CHECKPOINT_PERIOD": 5,
    "DATALOADER.NUM_WORKERS": 2,
}


@pytest.mark.parametrize("key", ["SEED", "MODEL.YOLO.DEPTH_MULTIPLE", "SOLVER.MAX_ITER"])
def test_what_changes_the_weights_must_be_the_same(key):
    with pytest.raises(UserError, match=rf"^--resume: {key} is 7, but the training in out began with"):
        check_same_recipe(Recipe({**CONFIG, key: 7}, False), CONFIG, output_dir="out")


@pytest.mark.parametrize("key", ["OUTPUT_DIR", "MODEL.WEIGHTS", "SOLVER.CHECKPOINT_PERIOD", "DATALOADER.NUM_WORKERS"])
def test_the_rest_may_differ(key):
    check_same_recipe(Recipe({**CONFIG, key: 7}, False), CONFIG, output_dir="out")


@pytest.mark.parametrize("key", ["TEST.EVAL_PERIOD", "TEST.DETECTIONS_PER_IMAGE"])
def test_keys_of_evaluations_count_where_scores_steer_the_training(key, caplog):
    def check(is_followed=False, **steering):
        check_same_recipe(Recipe({**steering, key: 6}, is_followed), {**steering, key: 5}, output_dir="out")

    check(**{"DATALOADER.SAMPLER_TRAIN": "TrainingSampler", "SOLVER.EARLY_STOPPING_PATIENCE": 0})
    assert f"{key} is 6 and was 5" in caplog.text
    for steering in (
        {"DATALOADER.SAMPLER_TRAIN": "ClassBalancedTrainingSampler"},
        {"SOLVER.EARLY_STOPPING_PATIENCE": 3},
        {"is_followed": True},
    ):
        with pytest.raises(UserError, match=rf"{key} is 6"):
            check(**steering)


def test_data_to_evaluate_on_count_where_scores_steer_the_training():
    recipe = Recipe({"DATASETS.TRAIN": ["a"], "DATASETS.TEST": ["b"]}, is_followed=False)
    check_same_data(recipe, {"a": "1", "b": "2"}, {"a": "1", "c": "3"}, output_dir="out")
    with pytest.raises(UserError, match=r"of b .*out"):
        followed = recipe._replace(is_followed=True)
        check_same_data(followed, {"a": "1", "b": "2"}, {"a": "1", "c": "3"}, output_dir="out")
    with pytest.raises(UserError, match="of a "):
        check_same_data(recipe, {"a": "1", "b": "2"}, {"a": "3", "b": "2"}, output_dir="out")


def test_a_key_of_another_version_is_not_compared():
    check_same_recipe(Recipe({**CONFIG, "NEW.KEY": 1}, False), {**CONFIG, "OLD": 2}, output_dir="out")


def record(**changes):
    box = {"bbox": [1, 2, 3, 4], "category_id": 0}
    return {"file_name": "x/a.png", "image_id": 1, "height": 4, "width": 5, "annotations": [box], **changes}


def test_the_digest_is_of_the_data_and_not_of_their_place():
    digest = digest_dataset([record(), record(image_id=2)])
    assert digest_dataset([record(file_name="/elsewhere/a.png"), record(image_id=2)]) == digest
    for other in (
        [record(image_id=2), record()],
        [record()],
        [record(annotations=[]), record(image_id=2)],
        [record(annotations=[{"bbox": [1, 2, 3, 4], "category_id": 1}]), record(image_id=2)],
        [record(annotations=[{"bbox": [1, 2, 3, 4.5], "category_id": 0}]), record(image_id=2)],
        [record(file_name="x/b.png"), record(image_id=2)],
    ):
        assert digest_dataset(other) != digest


@pytest.mark.parametrize(("image_format", "is_error"), [("raw", False), ("jpeg", True)])
def test_a_cache_may_be_used_where_it_changes_nothing(image_format, is_error):
    earlier = {"INPUT.CACHE": "none", "INPUT.CACHE_FORMAT": image_format}
    now = Recipe({**earlier, "INPUT.CACHE": "disk"}, is_followed=False)
    with pytest.raises(UserError, match=r"INPUT\.CACHE is 'disk'") if is_error else nullcontext():
        check_same_recipe(now, earlier, output_dir="out")
