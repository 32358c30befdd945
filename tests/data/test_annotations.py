import logging

import pytest

from parking.data.annotations import check_learnable
from parking.utils.errors import UserError

CROWD, CAR = {"category_id": 1, "iscrowd": 1}, {"category_id": 0, "iscrowd": 0}


def test_what_teaches_nothing_is_refused():
    crowds = [{"annotations": [CROWD]}] * 3
    with pytest.raises(UserError, match=r"own_train.*iscrowd 1, 3 of them"):
        check_learnable(crowds, ["car", "van"], ["own_train"])
    with pytest.raises(UserError, match=r"own_train.* 5 images"):
        check_learnable([{"annotations": []}] * 5, ["car", "van"], ["own_train"])
    check_learnable([*crowds, {"annotations": [CAR]}], ["car", "van"], ["own_train"])


def test_classes_without_a_box_are_named(caplog):
    with caplog.at_level(logging.WARNING):
        check_learnable([{"annotations": [CAR, {"category_id": 1}]}], ["car", "van"], ["own_train"])
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        check_learnable([{"annotations": [CAR, CROWD]}], ["car", "van\t"], ["own_train"])
    assert "1 of 2 classes" in caplog.text and r"van\t" in caplog.text
