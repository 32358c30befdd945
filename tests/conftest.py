"""Fixtures that several folders share."""

import gc
import os
import shutil
import sys
import tempfile
import tracemalloc

import pytest


def pytest_configure(config):
    # Tests, and the tools that they start, may cache images: not beside those of the person who runs them.
    config.cache_home = os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="parking_tests_")


def pytest_unconfigure(config):
    shutil.rmtree(config.cache_home, ignore_errors=True)


@pytest.fixture(scope="session")
def measure_work():
    """``measure_work(function)``: how many calls, of Python and of C, and how many bytes at its peak it takes.

    To be compared for an input and one of twice the size, which no clock can do on a busy machine.
    """

    def measure(function):
        calls = 0

        def count(frame, event, argument):
            nonlocal calls
            calls += event in ("call", "c_call")

        sys.setprofile(count)
        try:
            function()
        finally:
            sys.setprofile(None)
        # Freed objects of earlier tests may be used again, which is not counted.
        gc.collect()
        tracemalloc.start()
        try:
            function()
            return calls, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    return measure


@pytest.fixture(scope="session")
def tiny_scenes(tmp_path_factory):
    """The layout of the challenge's data with a few small synthetic scenes; not to be written to."""
    from parking.synthetic import make_dataset

    root = tmp_path_factory.mktemp("scenes") / "data"
    make_dataset(root, num_train=24, num_test=3, size=(160, 96), seed=3, balanced=True, workers=1)
    return root


@pytest.fixture(scope="session")
def make_weights():
    """``make_weights(path, *opts, seed=0)``: writes a small model of the classes cat (category 7) and dog (3).

    It finds something in every picture. Its scores spread the more, the smaller ``std`` is; with the usual one, many
    are 0 or 1 to the last digit.
    """

    # The imports take ten seconds, which many tests do without.
    import cv2
    import numpy as np
    import torch
    from torch import nn

    from parking.checkpoint import Weights, write_weights
    from parking.config import get_cfg
    from parking.config.plain import describe_config
    from parking.inference.build import build_model

    def make(path, *opts, seed=0, std=0.2, category_ids=(7, 3)):
        cfg = get_cfg()
        cfg.MODEL.DEVICE = "cpu"
        cfg.MODEL.YOLO.WIDTH_MULTIPLE = 0.125
        cfg.MODEL.YOLO.NUM_CLASSES = 2
        cfg.INPUT.SIZE_TEST = 96
        cfg.merge_from_list(list(opts))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = build_model(cfg)
            for name in model.head.class_rows():
                parameter = model.head.get_parameter(name)
                if parameter.dim() > 1:
                    nn.init.normal_(parameter, std=std)
                else:
                    nn.init.zeros_(parameter)
            # Without statistics of real activations, these fade from layer to layer and all scores are the same.
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = 1.0
            noise = (np.random.default_rng(i).integers(0, 256, (12, 12, 3), dtype=np.uint8) for i in range(8))
            photos = np.stack([cv2.resize(image, (96, 96), interpolation=cv2.INTER_CUBIC) for image in noise])
            with torch.no_grad():
                model.predict(model.normalize(torch.from_numpy(photos).permute(0, 3, 1, 2)))
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        config = describe_config(cfg)
        write_weights(
            str(path), Weights(str(path), state, config, class_names=["cat", "dog"], category_ids=list(category_ids))
        )
        return path

    return make


@pytest.fixture(scope="session")
def weights_file(make_weights, tmp_path_factory):
    return make_weights(tmp_path_factory.mktemp("weights") / "weights.pth")


@pytest.fixture(scope="session")
def mild_weights_file(make_weights, tmp_path_factory):
    return make_weights(tmp_path_factory.mktemp("weights") / "mild.pth", std=0.01)
