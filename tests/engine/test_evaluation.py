"""Evaluations while training: of a copy of the model, in half precision where that holds the weights."""

import logging

import pytest
import torch
from detectron2.utils import comm

from parking.engine import Trainer
from parking.engine.evaluation import evaluate_dataset
from parking.inference.build import NotFiniteError

from .test_trainer import make_cfg


@pytest.fixture
def make_trainer(tiny_scenes, tmp_path):
    def make(*opts):
        cfg = make_cfg(tiny_scenes, tmp_path, *opts)
        torch.manual_seed(0)
        trainer = Trainer(cfg)
        for predictor in trainer._bare_model.head.predictors:
            torch.nn.init.normal_(predictor.weight, std=0.5)
        trainer._ema.restart_from(trainer._bare_model)
        return trainer

    return make


def evaluate(trainer):
    return trainer._test_weights(trainer.release_state_dict(), with_pictures=False)["bbox"]


def is_same(one, two):
    return all(one[name] == two[name] or (one[name] != one[name] and two[name] != two[name]) for name in one)


def test_the_model_in_training_is_not_touched(make_trainer):
    trainer = make_trainer("TEST.DTYPE", "bfloat16")
    model = trainer._bare_model.train()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modules, rng = [type(module) for module in model.modules()], torch.get_rng_state()
    evaluate(trainer)
    assert model.training and modules == [type(module) for module in model.modules()]
    assert torch.equal(rng, torch.get_rng_state())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad.eq(1).all() and parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_no_score_depends_on_the_batch(make_trainer):
    trainer = make_trainer()
    expected = evaluate(trainer)
    for size in (2, 3, 5, 8):
        trainer.cfg.TEST.IMS_PER_BATCH = size
        assert is_same(evaluate(trainer), expected)


def test_weights_that_half_precision_cannot_hold_are_evaluated_in_float32(make_trainer, caplog):
    trainer = make_trainer()
    with torch.no_grad():
        trainer._ema.state_dict()["average"]["head.predictors.0.bias"][0] = 1e6
    expected = evaluate(trainer)
    assert "float32" not in caplog.text
    trainer.cfg.TEST.DTYPE = "float16"
    with caplog.at_level(logging.WARNING):
        assert is_same(evaluate(trainer), expected)
    assert "float16" in caplog.text and "float32" in caplog.text


def test_all_processes_give_up_where_one_finds_an_output_that_is_too_large(make_trainer, monkeypatch):
    trainer = make_trainer()
    gather = comm.all_gather
    monkeypatch.setattr(
        comm, "all_gather", lambda data: [NotFiniteError("elsewhere")] if data is None else gather(data)
    )
    evaluator = trainer.build_evaluator(trainer.cfg, "parking_val")
    with pytest.raises(NotFiniteError, match="elsewhere"):
        evaluate_dataset(trainer.cfg, trainer._bare_model, "parking_val", evaluator, leave_out=evaluator.leave_out)
