from detectron2.data import DatasetCatalog

from parking.benchmark.load import run_load_benchmark


def test_lines_name_seconds_and_memory():
    lines = list(run_load_benchmark(num_images=300, num_boxes=900))
    assert lines[0] == "300 images, 900 boxes"
    assert len(lines) == 4
    assert all(" s" in line and "MB" in line for line in lines[1:])
    assert "parking_train" not in DatasetCatalog
