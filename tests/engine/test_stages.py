from pathlib import Path

import pytest

from parking.config import get_cfg
from parking.config.checks import find_value
from parking.config.stages import read_stages, select_stages
from parking.engine.run import check_stages_fit
from parking.engine.stages import choose_start, mark_finished, share_of_budget
from parking.inference.models import last_stage_with_weights
from parking.utils.errors import UserError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


@pytest.fixture
def two_stages(tmp_path):
    write(tmp_path / "stages" / "one.yaml", "SOLVER: {BASE_LR: 0.1}\n")
    write(tmp_path / "stages" / "two.yaml", "SOLVER: {BASE_LR: 0.2, MAX_ITER: 100}\n")
    return write(
        tmp_path / "config.yaml",
        f"OUTPUT_DIR: {tmp_path}/out\n"
        "SOLVER:\n  MAX_ITER: 300\n  BASE_LR: 0.5\n  STAGES: [[one, stages/one.yaml], [two, stages/two.yaml]]\n",
    )


def test_a_stage_is_the_config_then_its_file_then_the_command_line(two_stages, tmp_path):
    one, two = read_stages(two_stages, ["SOLVER.MOMENTUM", "0.7"])
    assert [one.name, two.name] == ["one", "two"]
    assert [one.cfg.SOLVER.BASE_LR, two.cfg.SOLVER.BASE_LR] == [0.1, 0.2]
    assert [one.cfg.SOLVER.MAX_ITER, two.cfg.SOLVER.MAX_ITER] == [300, 100]
    assert [one.cfg.SOLVER.MOMENTUM, two.cfg.SOLVER.MOMENTUM] == [0.7, 0.7]
    assert [f"{tmp_path}/out/one", f"{tmp_path}/out/two"] == [one.cfg.OUTPUT_DIR, two.cfg.OUTPUT_DIR]
    assert one.cfg.SOLVER.STAGES == two.cfg.SOLVER.STAGES == []
    assert read_stages(two_stages, ["SOLVER.BASE_LR", "0.9"])[1].cfg.SOLVER.BASE_LR == 0.9


def test_no_stages_are_one_training_in_the_folder_itself(two_stages, tmp_path):
    (only,) = read_stages(two_stages, ["SOLVER.STAGES", "[]"])
    assert (only.name, only.cfg.OUTPUT_DIR, only.cfg.SOLVER.BASE_LR) == ("", f"{tmp_path}/out", 0.5)


def test_stages_of_a_base_are_found_beside_it(two_stages, tmp_path):
    derived = write(tmp_path / "elsewhere" / "mine.yaml", "_BASE_: ../config.yaml\nSEED: 3\n")
    assert [stage.cfg.SOLVER.BASE_LR for stage in read_stages(derived, [])] == [0.1, 0.2]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("MODEL: {YOLO: {WIDTH_MULTIPLE: 0.5}}", "backbone.bottom_up.stem.conv.weight has shape"),
        ("MODEL: {BACKBONE: {NAME: build_resnet_fpn_backbone}}", "backbone.fpn_lateral3.weight is missing"),
        ("MODEL: {YOLO: {NUM_CLASSES: 3, NORM: SyncBN, ANCHORS_FROM_WEIGHTS: False}}", None),
    ],
)
def test_models_of_stages_must_fit_before_the_first_begins(two_stages, tmp_path, text, wrong):
    write(tmp_path / "stages" / "two.yaml", text)
    stages = read_stages(two_stages, ["MODEL.DEVICE", "cpu"])
    if wrong is None:
        check_stages_fit(stages)
    else:
        with pytest.raises(UserError, match=rf"stage two .*stage one.*{wrong}"):
            check_stages_fit(stages)
    check_stages_fit(stages[1:])


def test_a_stage_starts_from_what_the_one_before_chose(two_stages, tmp_path):
    one, two = read_stages(two_stages, [])
    choose_start(one)
    assert one.cfg.MODEL.WEIGHTS == get_cfg().MODEL.WEIGHTS
    with pytest.raises(UserError, match=r"stage two starts from .* but .*/out/one holds none"):
        choose_start(two)
    write(tmp_path / "out" / "one" / "model_final.pth", "")
    choose_start(two)
    assert f"{tmp_path}/out/one/model_final.pth" == two.cfg.MODEL.WEIGHTS
    write(tmp_path / "out" / "one" / "model_best.pth", "")
    choose_start(two)
    assert f"{tmp_path}/out/one/model_best.pth" == two.cfg.MODEL.WEIGHTS


def test_selecting(two_stages, tmp_path):
    stages = read_stages(two_stages, [])
    assert select_stages(stages, None) == stages
    assert select_stages(stages, "two") == stages[1:]
    with pytest.raises(UserError, match=r"--stage three: .* it has one, two\."):
        select_stages(stages, "three")
    assert last_stage_with_weights(stages).name == "one"
    write(tmp_path / "out" / "one" / "model_best.pth", "")
    assert last_stage_with_weights(stages).name == "one"
    write(tmp_path / "out" / "two" / "model_best.pth", "")
    assert last_stage_with_weights(stages).name == "two"


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ("[[one]]", r"SOLVER\.STAGES is \[\['one'\]\]"),
        ("[one]", r"SOLVER\.STAGES is \['one'\]"),
        ("[[one, 3]]", r"SOLVER\.STAGES is \[\['one', 3\]\]"),
        ("[[one, stages/one.yaml], [one, stages/two.yaml]]", "'one' occurs twice"),
        ("[[../one, stages/one.yaml]]", "SOLVER.STAGES: "),
        ("[[one, none.yaml]]", "none.yaml does not exist"),
    ],
)
def test_mistakes(two_stages, tmp_path, stages, message):
    path = write(tmp_path / "wrong.yaml", f"_BASE_: config.yaml\nSOLVER: {{STAGES: {stages}}}\n")
    with pytest.raises(UserError, match=message):
        read_stages(path, [])


def test_the_budget_is_shared_by_iterations(two_stages):
    one, two = stages = read_stages(two_stages, ["SOLVER.MAX_HOURS", "4"])
    # 300 and 100 iterations: three hours and one.
    assert [share_of_budget(stage, stages, []) for stage in stages] == [3 * 3600, 3600]
    Path(one.cfg.OUTPUT_DIR).mkdir(parents=True)
    mark_finished(one, seconds=2 * 3600)
    assert share_of_budget(two, stages, [one]) == 2 * 3600
    # With --overwrite, the time of an earlier training does not count.
    assert share_of_budget(one, stages, []) == 3 * 3600
    assert [share_of_budget(stage, stages, []) for stage in read_stages(two_stages, [])] == [None, None]


# yolo_spec §7, typed from there: values of the baseline and of the fine-tuning.
RECIPE = {
    "SOLVER.BASE_LR": (0.01, 0.0032),
    "SOLVER.LR_FINAL_FACTOR": (0.01, 0.12),
    "SOLVER.MOMENTUM": (0.937, 0.843),
    "SOLVER.WEIGHT_DECAY": (0.0005, 0.00036),
    "SOLVER.WARMUP_ITERS": (3 * 723, 2 * 723),
    "SOLVER.WARMUP_MOMENTUM": (0.8, 0.5),
    "SOLVER.WARMUP_BIAS_LR": (0.1, 0.05),
    "SOLVER.MAX_ITER": (50 * 723, 15 * 723),
    "MODEL.ANCHOR_HEAD.LOSS.BOX_GAIN": (0.05, 0.0296),
    "MODEL.ANCHOR_HEAD.LOSS.CLS_GAIN": (0.5, 0.243),
    "MODEL.ANCHOR_HEAD.LOSS.CLS_POS_WEIGHT": (1.0, 0.631),
    "MODEL.ANCHOR_HEAD.LOSS.OBJ_GAIN": (1.0, 0.301),
    "MODEL.ANCHOR_HEAD.LOSS.OBJ_POS_WEIGHT": (1.0, 0.911),
    "MODEL.ANCHOR_HEAD.ANCHOR_RATIO": (4.0, 2.91),
    "INPUT.AUG.HSV_H": (0.015, 0.0),
    "INPUT.AUG.HSV_S": (0.7, 0.0),
    "INPUT.AUG.HSV_V": (0.4, 0.4),
    "INPUT.AUG.TRANSLATE": (0.1, 0.1),
    "INPUT.AUG.SCALE": (0.5, 0.9),
    "INPUT.AUG.FLIP_LR_PROB": (0.5, 0.5),
    "INPUT.AUG.MOSAIC_PROB": (1.0, 1.0),
    "DATALOADER.SAMPLER_TRAIN": ("ClassBalancedTrainingSampler", "TrainingSampler"),
}
BOTH = {
    "SOLVER.IMS_PER_BATCH": 2,
    "SOLVER.NOMINAL_BATCH_SIZE": 64,
    "SOLVER.ITERS_PER_EPOCH": 723,
    "SOLVER.LR_DECAY_PER": "epoch",
    "SOLVER.LR_SCHEDULER_NAME": "linear",
    "SOLVER.NESTEROV": True,
    "SOLVER.EMA.DECAY": 0.9999,
    "SOLVER.EMA.WARMUP": 2000,
    "INPUT.SIZE_TRAIN": [1280, 1280],
    "INPUT.SIZE_TEST": 1536,
    "INPUT.AUG.STRONG_OFF_ITERS": 0,
    "INPUT.AUG.MIXUP_PROB": 0.0,
    "MODEL.YOLO.SCORE_THRESH_TEST": 0.01,
    "MODEL.YOLO.NMS_THRESH_TEST": 0.7,
    "MODEL.YOLO.MULTI_LABEL_TEST": True,
    "TEST.DETECTIONS_PER_IMAGE": 50,
    "TEST.AUG.ENABLED": True,
    "DATASETS.SPLIT": "sequence",
    "MODEL.WEIGHTS": "weights/yolov5x6.pt",
}


def test_the_recipe_has_the_values_of_the_entry():
    stages = read_stages(CONFIGS / "yolo.yaml", [])
    assert [stage.name for stage in stages] == ["baseline", "finetune"]
    for i, stage in enumerate(stages):
        for key, expected in {**BOTH, **{key: values[i] for key, values in RECIPE.items()}}.items():
            assert find_value(stage.cfg, key) == expected, (stage.name, key)
