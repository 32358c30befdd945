"""Fixtures that several folders share."""

import os
import shutil
import tempfile

import pytest


def pytest_configure(config):
    # Tests, and the tools that they start, cache sizes of images: not beside those of the person who runs them.
    config.cache_home = os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="parking_tests_")


def pytest_unconfigure(config):
    shutil.rmtree(config.cache_home, ignore_errors=True)


@pytest.fixture(scope="session")
def tiny_scenes(tmp_path_factory):
    """The layout of the challenge's data with a few small synthetic scenes; not to be written to."""
    from parking.synthetic import make_dataset

    root = tmp_path_factory.mktemp("scenes") / "data"
    make_dataset(root, num_train=24, num_test=3, size=(160, 96), seed=3, balanced=True, workers=1)
    return root
