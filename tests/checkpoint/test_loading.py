"""Weights into a model: every tensor accounted for, class outputs from where the rules say.

Hand-made heads of two levels, two anchors each. Their rows say where they are from: row r of anchor a of level l holds
1000 l + 100 a + r, in the weight as in the bias; r = 5 + c is the output of class c.
"""

import logging
import math
from pathlib import Path

import pytest
import torch
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from torch import nn
from torch.testing import assert_close

from parking.challenge.classes import CLASS_NAMES
from parking.checkpoint import Weights, load_weights
from parking.checkpoint.formats.families import YOLOV5
from parking.checkpoint.loading import find_class_sources
from parking.config import get_cfg
from parking.modeling import YOLO, ClassRows, DenseHead
from parking.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
HEAD_TENSORS = [f"head.predictors.{level}.{name}" for level in (0, 1) for name in ("weight", "bias")]
NEW = object()  # of a class output: it starts from the prior


class Head(DenseHead):
    def __init__(self, num_classes, keeps_anchors=False):
        super().__init__()
        self.predictors = nn.ModuleList(nn.Conv2d(channels, 2 * (5 + num_classes), 1) for channels in (2, 3))
        self.register_buffer("anchors", torch.ones(2, 2, 2))
        self.keeps_anchors = keeps_anchors

    def class_rows(self):
        priors = {"weight": 0.0, "bias": -3.25}
        return {f"predictors.{level}.{name}": ClassRows(2, 5, priors[name]) for level in (0, 1) for name in priors}

    def adapt_weights(self, state):
        if self.keeps_anchors:
            state["anchors"] = self.anchors
            return ["the anchors are the config's"]
        if (state.get("anchors", self.anchors) <= 0).any():
            raise ValueError("head.anchors has an anchor without a size")
        return []


class Model(nn.Module):
    def __init__(self, num_classes=4, keeps_anchors=False):
        super().__init__()
        self.stem = nn.Conv2d(3, 2, 1)
        self.head = Head(num_classes, keeps_anchors)


def make_weights(num_classes=4, class_names=None, **changes) -> Weights:
    """Weights whose head rows say where they are from; ``changes``: tensors by name, dots as two underscores."""
    state = {name: torch.randn_like(tensor) for name, tensor in Model(num_classes).state_dict().items()}
    for level in (0, 1):
        for name in ("weight", "bias"):
            tensor = state[f"head.predictors.{level}.{name}"]
            for anchor in range(2):
                for row in range(5 + num_classes):
                    tensor[anchor * (5 + num_classes) + row] = 1000 * level + 100 * anchor + row
    state["head.anchors"] = torch.full((2, 2, 2), 7.0)
    for name, tensor in changes.items():
        state[name.replace("__", ".")] = tensor
    return Weights("w.pth", state, class_names=class_names)


def assert_class_rows(model: Model, sources: list, fresh: float = -1e4) -> None:
    """Box and objectness rows are the weights', class i's those of ``sources[i]``; NEW: the same logit anywhere."""
    for level, predictor in enumerate(model.head.predictors):
        for anchor in range(2):
            first = anchor * (5 + len(sources))
            for row, source in enumerate([*range(-5, 0), *sources]):
                bias, weight = predictor.bias[first + row].item(), predictor.weight[first + row].unique().tolist()
                if source is NEW:
                    assert (weight, bias) == ([0.0], fresh), (level, anchor, row)
                else:
                    expected = 1000 * level + 100 * anchor + 5 + source
                    assert (weight, bias) == ([expected], expected), (level, anchor, row)


def assert_equal(first: dict, second: dict) -> None:
    """The same tensors, bit for bit, under the same names."""
    assert_close(dict(first), dict(second), rtol=0, atol=0)


def logged(caplog) -> str:
    (record,) = [record for record in caplog.records if record.levelname == "INFO"]
    return record.getMessage()


@pytest.fixture(autouse=True)
def _log_level(caplog):
    caplog.set_level(logging.INFO, logger="parking.checkpoint.loading")


# What fits


def test_weights_of_the_same_model_are_copied_whole(caplog):
    model, weights = Model(), make_weights()
    load_weights(model, weights)
    assert_equal(model.state_dict(), weights.state_dict)
    # stem 2, anchors 1, heads 2 * 2
    assert logged(caplog) == "Loaded all 7 tensors of w.pth"


def test_the_model_does_not_share_memory_with_the_weights():
    model, weights = Model(3), make_weights(4, ["a", "b", "c", "d"])
    before = {name: tensor.clone() for name, tensor in weights.state_dict.items()}
    load_weights(model, weights, class_names=["c", "b", "a"])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(-1)
    assert_equal(weights.state_dict, before)


def test_half_precision_is_loaded_into_float32():
    model, weights = Model(2), make_weights(4, ["a", "b", "c", "d"])
    halves = {name: tensor.half() for name, tensor in weights.state_dict.items()}
    load_weights(model, Weights("half.pth", halves, class_names=weights.class_names), class_names=["d", "new"])
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}
    assert torch.equal(model.stem.weight, halves["stem.weight"].float())
    assert_class_rows(model, [3, NEW])


@pytest.mark.parametrize(
    ("changes", "dropped", "message"),
    [
        ({}, ["stem.bias"], "stem.bias is missing; use the config they were trained with"),
        ({}, ["head.anchors"], "head.anchors is missing"),
        ({}, ["head.predictors.1.bias"], "head.predictors.1.bias is missing"),
        ({"extra__weight": torch.zeros(1)}, [], "extra.weight is left over"),
        ({"head__predictors__2__bias": torch.zeros(18)}, [], "head.predictors.2.bias is left over"),
        ({"stem__bias": torch.zeros(9)}, [], r"stem.bias has shape \(9,\) instead of \(2,\)"),
        (
            {"head__anchors": torch.ones(3, 2, 2)},
            [],
            r"head.anchors has shape \(3, 2, 2\) instead of \(2, 2, 2",
        ),
        # 2 * (5 + 4) rows, but for 5 input channels instead of 3
        (
            {"head__predictors__1__weight": torch.zeros(18, 5, 1, 1)},
            [],
            r"head.predictors.1.weight has shape \(\d+, 5, 1, 1\) instead of \(\d+, 3, 1, 1\)",
        ),
        ({"head__predictors__1__bias": torch.zeros(16)}, [], r"head.predictors.1.bias has shape \(16,\) instead of"),
        ({"head__predictors__1__bias": torch.zeros(())}, [], r"head.predictors.1.bias has shape \(\) instead of"),
        ({}, ["head.predictors.0.bias"], "head.predictors.0.bias is missing"),
        ({}, HEAD_TENSORS, "head.predictors.0.weight is missing, .* and 1 more; use the config"),
        (
            {"a": torch.ones(1), "b": torch.ones(1), "c": torch.ones(1)},
            ["stem.bias", "stem.weight"],
            "stem.weight is missing, stem.bias is missing, a is left over and 2 more",
        ),
    ],
)
@pytest.mark.parametrize("num_classes", [4, 2])
def test_every_tensor_counts(changes, dropped, message, num_classes):
    """Also where the number of classes differs, and training would excuse new class outputs."""
    weights = make_weights(4, ["a", "b", "c", "d"], **changes)
    state = {name: tensor for name, tensor in weights.state_dict.items() if name not in dropped}
    weights = Weights("w.pth", state, class_names=weights.class_names)
    model = Model(num_classes)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match=rf"weights w\.pth do not fit the model of the config: (.*, )?{message}"):
        load_weights(model, weights, class_names=["a", "b", "c", "d"][:num_classes], will_train=True)
    assert_equal(model.state_dict(), before)


def test_weights_with_more_anchors_do_not_pass_for_other_classes():
    # Three anchors of 4 classes make 27 rows, which are no multiple of the model's two anchors.
    weights = make_weights(
        4,
        head__predictors__0__weight=torch.zeros(27, 2, 1, 1),
        head__predictors__0__bias=torch.zeros(27),
        head__predictors__1__weight=torch.zeros(27, 3, 1, 1),
        head__predictors__1__bias=torch.zeros(27),
    )
    with pytest.raises(UserError, match=r"head.predictors.0.weight has shape \(27, 2, 1, 1\) instead of \(18, 2, 1, 1"):
        load_weights(Model(4), weights, will_train=True)


# Another head


@pytest.mark.parametrize(
    ("head", "head_state"),
    [
        ("PointHead", {"head.outputs.bias": torch.ones(9)}),
        (None, {}),
        ("PointHead", {}),
        (type(Model().head).__name__, {}),
    ],
)
def test_training_starts_from_backbone_and_neck_alone_and_says_so(caplog, head, head_state):
    """The weights' head is of another kind, or they have none, whatever head their config names."""
    state = {"stem.weight": torch.ones(2, 3, 1, 1), "stem.bias": torch.ones(2)}
    config = {"MODEL": {"HEAD": {"NAME": head}}} if head else None
    weights = Weights("w.pth", {**state, **head_state}, config=config)
    model = Model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    load_weights(model, weights, class_names=list("abcd"), class_map=[("a", "x")], will_train=True)
    assert_equal(model.state_dict(), {**before, **state})
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    found = f"{head if head_state else 'missing'}."
    assert {"(2", "w.pth,", "Head,", found, "MODEL.YOLO.CLASS_MAP"} <= set(record.getMessage().split())
    with pytest.raises(UserError, match=r"head\.predictors\.0\.weight is missing"):
        load_weights(Model(), weights)


def test_a_head_that_a_function_builds_is_the_same_head():
    """Its name in the registry, which a config states, is that of the function."""
    weights = make_weights()
    weights = Weights("w.pth", weights.state_dict, config={"MODEL": {"HEAD": {"NAME": "build_head"}}})
    model = Model()
    load_weights(model, weights, will_train=True)
    assert_equal(model.state_dict(), weights.state_dict)


def test_backbone_and_neck_must_be_whole():
    weights = Weights("w.pth", {"stem.weight": torch.ones(2, 3, 1, 1)})
    with pytest.raises(UserError, match=r"w\.pth .* stem\.bias is missing"):
        load_weights(Model(), weights, will_train=True)


def test_the_config_of_a_published_size_is_named():
    state = {"backbone.bottom_up.stem.conv.weight": torch.zeros(32, 3, 6, 6), "head.predictors.0.bias": torch.zeros(9)}
    weights = Weights("s.pt", state, family=YOLOV5)
    with pytest.raises(UserError, match=r"use configs/yolov5/s\.yaml"):
        load_weights(Model(), weights, will_train=True)
    with pytest.raises(UserError, match=r"use configs/coco/yolov5s\.yaml"):
        load_weights(Model(), weights)


# Anchors


def test_what_the_head_refuses_is_told_with_the_file():
    with pytest.raises(UserError, match=r"w\.pth.*head\.anchors"):
        load_weights(Model(), make_weights(head__anchors=torch.zeros(2, 2, 2)))


def test_anchors_of_the_config_can_be_kept(caplog):
    model = Model(keeps_anchors=True)
    load_weights(model, make_weights())
    assert model.head.anchors.eq(1).all()
    assert_class_rows(model, [0, 1, 2, 3])
    assert logged(caplog) == "Loaded all 7 tensors of w.pth; the anchors are the config's"


# Class outputs


ABCD = ["a", "b", "c", "d"]
COCO = ["person", "bicycle", "car", "bus"]
SAME = ["car", "person", "car", "bus"]


@pytest.mark.parametrize(
    ("theirs", "ours", "class_map", "sources", "told"),
    [
        # Several classes may start from one.
        (
            COCO,
            ["sedan", "adult", "van"],
            [["sedan", "car"], ["van", "car"], ["adult", "person"]],
            [2, 0, 2],
            "sedan, van from car; adult from person",
        ),
        # The map comes before the namesake.
        (COCO, ["person", "bus"], [("person", "car"), ("bus", "person")], [2, 0], "person from car; bus from person"),
        # As many classes of other names are not kept by their position.
        (ABCD, ["d", "x", "b", "y"], [], [3, NEW, 1, NEW], "d from d; b from b; x, y never predicted"),
        # One class in common is enough to predict.
        (ABCD, ["x", "b"], [], [NEW, 1], "b from b; x never predicted"),
        # The same classes in another order need no map.
        (ABCD, ["c", "a", "d", "b"], [], [2, 0, 3, 1], "c from c; a from a; d from d; b from b"),
        (ABCD, ["c", "a", "d", "b"], [["c", "a"]], [2, 0, 3, 1], "c from c; a from a; d from d; b from b"),
        (ABCD, ["c", "a", "d", "b"], [["no such", "class"]], [2, 0, 3, 1], "c from c; a from a; d from d; b from b"),
        # The same classes in the same order stay untouched.
        (ABCD, tuple(ABCD), [["a", "b"]], [0, 1, 2, 3], None),
        # Category lists may have a name twice, and the weights trained with them do then.
        (SAME, SAME, [], [0, 1, 2, 3], None),
        # As many classes without names stay as they are.
        (None, ["x", "y", "z", "u"], [], [0, 1, 2, 3], None),
        (None, None, [], [0, 1, 2, 3], None),
    ],
)
def test_where_class_outputs_come_from(caplog, theirs, ours, class_map, sources, told):
    model = Model(len(sources))
    load_weights(model, make_weights(4, theirs), class_names=ours, class_map=class_map)
    assert_class_rows(model, sources)
    assert model.head.anchors.eq(7).all()
    classes = f"; class outputs of {', '.join(HEAD_TENSORS)}: {told}" if told else ""
    assert logged(caplog) == "Loaded all 7 tensors of w.pth" + classes


def test_classes_that_the_map_leaves_out_start_from_their_namesake_or_the_prior(caplog):
    model, weights = Model(5), make_weights(4, COCO)
    classes = {"class_names": ["bus", "cart", "taxi", "bicycle", "stroller"], "class_map": [("taxi", "car")]}
    load_weights(model, weights, **classes)
    assert_class_rows(model, [3, NEW, 2, 1, NEW])
    assert logged(caplog).endswith(
        ": bus from bus; taxi from car; bicycle from bicycle; cart, stroller never predicted"
    )
    assert "cart, stroller: no class of w.pth, so never found" in caplog.text
    load_weights(model, weights, **classes, will_train=True)
    assert_class_rows(model, [3, NEW, 2, 1, NEW], fresh=-3.25)
    assert caplog.messages[-1].endswith("; cart, stroller from the prior")


def test_a_name_that_the_weights_have_twice_is_told(caplog):
    model, names = Model(3), ["thing", "bus", "thing", "x\u200b"]
    load_weights(model, make_weights(4, names), class_names=["bus", "thing", "x\u200b"])
    assert_class_rows(model, [1, 0, 3])
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "'thing'" in record.getMessage() and "2 classes" in record.getMessage()
    assert all(message.isprintable() for message in caplog.messages)


def test_there_and_back_again():
    """A permutation of the classes, undone by the opposite one, leaves the head as it was."""
    there, back, weights = Model(4), Model(4), make_weights(4, ABCD)
    load_weights(there, weights, class_names=["b", "d", "a", "c"])
    permuted = Weights("t", there.state_dict(), class_names=["b", "d", "a", "c"])
    load_weights(back, permuted, class_names=ABCD)
    assert_equal(back.state_dict(), weights.state_dict)


def test_nothing_in_common_is_a_mistake_unless_it_will_be_trained(caplog):
    weights = make_weights(4, ["a", "b", "c", "d"])
    with pytest.raises(UserError, match=r"weights w\.pth have 4 classes, but the model has 2, and none of .*CLASS_MAP"):
        load_weights(Model(2), weights, class_names=["x", "y"])
    model = Model(2)
    load_weights(model, weights, class_names=["x", "y"], will_train=True)
    assert_class_rows(model, [NEW, NEW], fresh=-3.25)
    assert logged(caplog).endswith(": x, y from the prior")


@pytest.mark.parametrize(("ours", "theirs"), [(["x", "y"], None), (None, ["a", "b", "c", "d"]), (None, None)])
def test_another_number_of_classes_without_names(caplog, ours, theirs):
    weights = make_weights(4, theirs)
    with pytest.raises(UserError, match=r"have 4 classes( without names)?, but the model has 2"):
        load_weights(Model(2), weights, class_names=ours)
    model = Model(2)
    load_weights(model, weights, class_names=ours, will_train=True)
    assert_class_rows(model, [NEW, NEW], fresh=-3.25)
    assert logged(caplog) == (
        f"Loaded all 7 tensors of w.pth; class outputs of {', '.join(HEAD_TENSORS)}: all from the prior"
    )


def test_a_map_needs_names_in_the_weights():
    with pytest.raises(UserError, match=r"w\.pth carry no class names to which MODEL\.YOLO\.CLASS_MAP could apply"):
        load_weights(Model(2), make_weights(4), class_names=["x", "y"], class_map=[["x", "a"]], will_train=True)


def test_weights_must_name_as_many_classes_as_they_predict():
    with pytest.raises(UserError, match=r"weights w\.pth name 3 classes, but predict 4"):
        load_weights(Model(4), make_weights(4, ["a", "b", "c"]), class_names=["a", "b", "c", "d"], will_train=True)


# The rules alone


@pytest.mark.parametrize(
    ("class_names", "weights_class_names", "class_map", "sources"),
    [
        (["a", "b"], ["b", "a"], [], [1, 0]),
        (["a", "b"], ["b", "a", "c"], [], [1, 0]),
        (["a", "b", "c"], ["c"], [], [None, None, 0]),
        (["a", "b", "c"], ["c"], [["a", "c"], ["b", "c"]], [0, 0, 0]),
        (["a", "b"], ["x", "y"], (("b", "y"),), [None, 1]),
        (["a", "b"], ["x", "y"], [], [None, None]),
        # The k-th of a name starts from the k-th of that name, else from the first.
        (["a", "a", "b"], ["b", "a", "a"], [], [1, 2, 0]),
        (["a", "a", "a", "x"], ["a", "b", "a"], [], [0, 2, 0, None]),
        (["a", "c"], ["b", "a", "a"], [["c", "a"]], [1, 1]),
        # A class mapped to nothing starts from the prior, unless the classes are the very same.
        (["car", "bus"], ["bus", "car"], [["car", ""]], [1, 0]),
        (["car", "van"], ["bus", "car"], [["car", ""], ["van", "bus"]], [None, 0]),
        # Letters count: such near misses are for the user's map to bridge. What does not show counts for nothing.
        (["Car", "car "], ["car"], [], [None, 0]),
        (["cafe\u0301", "\ufeffbus"], ["bus", "caf\xe9", "x"], [], [1, 0]),
        (["car\xa0", "b"], ["x", "y\u200b"], [["car", "y"]], [1, None]),
    ],
)
def test_class_sources(class_names, weights_class_names, class_map, sources):
    assert find_class_sources(class_names, weights_class_names, class_map) == sources


@pytest.mark.parametrize(
    ("class_map", "message"),
    [
        ([["sedna", "car"]], "names 'sedna', which is no class of the data; these are sedan, bus, cart"),
        ([["sedan", "cat"]], "names 'cat', which is no class of the weights; these are person, car, bus"),
        ([["car", "sedan"]], "names 'car', which is no class of the data"),  # the two sides exchanged
        ([["sedan", "car"], ["bus", "bus"], ["sedan", "bus"]], "has a class of the data twice"),
        ([["sedan", "car"], ["sedan", "car"]], "has a class of the data twice"),
        ([["sedan", "car", "bus"]], r"is \[\['sedan', 'car', 'bus'\]\]; give pairs \[class of the data, class of the"),
        *(
            (value, "is .*; give pairs")
            for value in ([["sedan"]], ["sedan", "car"], [1], [None], [[["sedan", "cart"], "car"]])
        ),
        ([["sedan", ["car", "bus"]]], r"names \['car', 'bus'\], which is no class of the weights"),
        ([["sedan", None]], "names None, which is no class of the weights"),
        ([[7, "car"]], "names 7, which is no class of the data"),
    ],
)
def test_mistakes_in_the_map_are_named(class_map, message):
    with pytest.raises(UserError, match=rf"^MODEL\.YOLO\.CLASS_MAP {message}"):
        find_class_sources(["sedan", "bus", "cart"], ["person", "car", "bus"], class_map)


# Which class of COCO each class of the challenge starts from; None: the prior.
PARKING_SOURCES = {
    **dict.fromkeys(["sedan", "SUV", "van", "taxi"], "car"),
    **dict.fromkeys(["bus", "school bus"], "bus"),
    **dict.fromkeys(["adult", "child"], "person"),
    **{name: name for name in ("truck", "motorcycle", "bicycle")},
    "kickboard": "skateboard",
    **dict.fromkeys(["stroller", "cart"]),
}


def test_the_map_of_the_competition_recipe():
    cfg = get_cfg()
    cfg.merge_from_file(str(ROOT / "configs/yolo.yaml"))
    coco = [category["name"] for category in COCO_CATEGORIES if category["isthing"]]
    assert len(coco) == 80
    sources = find_class_sources(CLASS_NAMES, coco, cfg.MODEL.YOLO.CLASS_MAP)
    found = [None if source is None else coco[source] for source in sources]
    assert dict(zip(CLASS_NAMES, found, strict=True)) == PARKING_SOURCES


# The real head


def make_yolo(num_classes):
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.YOLO.WIDTH_MULTIPLE = 0.125
    cfg.MODEL.YOLO.NUM_CLASSES = num_classes
    return YOLO(cfg).eval()


@torch.no_grad()
def test_a_mapped_model_predicts_what_the_weights_predict_for_the_source():
    torch.manual_seed(0)
    old, new = make_yolo(4), make_yolo(3)
    for predictor in old.head.predictors:
        nn.init.normal_(predictor.bias, std=2)
    weights = Weights("four.pth", old.state_dict(), class_names=["person", "bicycle", "car", "bus"])
    load_weights(new, weights, class_names=["taxi", "cart", "person"], class_map=[["taxi", "car"]], will_train=True)
    images = torch.rand(2, 3, 64, 96)
    theirs, ours = old.predict(images), new.predict(images)
    assert theirs.scores.std() > 0.1
    assert_close(ours.boxes, theirs.boxes, rtol=1e-5, atol=1e-3)
    assert_close(ours.upper_bound, theirs.upper_bound, rtol=1e-5, atol=1e-5)
    assert_close(ours.scores[..., 0], theirs.scores[..., 2], rtol=1e-5, atol=1e-6)
    assert_close(ours.scores[..., 2], theirs.scores[..., 0], rtol=1e-5, atol=1e-6)
    # Of three classes a new one starts at log(0.6 / (3 - 0.99999)), wherever it looks: a probability of 0.2307.
    prior = 1 / (1 + math.exp(-math.log(0.6 / 2.00001)))
    assert prior == pytest.approx(0.2307, abs=1e-4)
    assert_close(ours.scores[..., 1] / ours.upper_bound, torch.full_like(ours.upper_bound, prior))


def test_a_map_that_cannot_be_applied_is_told(caplog):
    load_weights(Model(4), make_weights(4), class_names=list("abcd"), class_map=[["a", "b"]])
    assert "w.pth carry no class names: MODEL.YOLO.CLASS_MAP is not applied" in caplog.text
