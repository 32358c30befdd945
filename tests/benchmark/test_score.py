from parking.benchmark.score import run_score_benchmark


def test_scores_are_those_of_faster_coco_eval():
    lines = list(run_score_benchmark(num_images=20, boxes_per_image=10, num_classes=2, num_rounds=1))
    assert lines[0].startswith("20 images")
    assert all(" s" in line for line in lines[1:3])
    assert float(lines[-1].split()[-2]) < 1e-6
