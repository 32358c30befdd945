import cv2
import numpy as np

from parking.visualization.data_charts import (
    draw_class_examples,
    encode_png,
    plot_box_sizes,
    plot_boxes_per_image,
    plot_class_counts,
    plot_conditions,
)


def decode(png):
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert image.std() > 1
    return image


def texts(axes):
    return [text.get_text().strip() for text in axes.texts]


def test_class_counts_are_written_beside_the_bars():
    figure = plot_class_counts(["a", "b"], {"training": [30, 10], "validation": [0, 4]})
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [30, 10, 0, 4]
    assert texts(axes) == ["30  (75.0 %)", "10  (25.0 %)", "none", "4  (100.0 %)"]
    decode(encode_png(figure))


def test_box_sizes():
    # Square roots of the areas: 20, 40 and 100; one each is small, medium and large.
    figure = plot_box_sizes(np.array([[20, 20], [80, 20], [50, 200]]))
    _, size, ratio = figure.axes[:3]
    assert sum(bar.get_height() for bar in size.patches) == 3
    labels = [text.get_text() for text in size.get_legend().get_texts()]
    assert labels == ["median 40 pixels", "small (< 32): 33.3 %", "medium: 33.3 %", "large (≥ 96): 33.3 %"]
    assert [text.get_text() for text in ratio.get_legend().get_texts()] == ["median 1.00"]
    decode(encode_png(figure))


def test_boxes_per_image():
    figure = plot_boxes_per_image({"training": np.array([0, 2, 2]), "validation": np.array([2])})
    (axes,) = figure.axes
    assert [bar.get_height() for bar in axes.patches] == [1, 0, 2, 0, 0, 1]
    decode(encode_png(figure))


def test_conditions_have_a_panel_each():
    counts = {
        "Weather": {"training": {"clear": 3, "rain": 1}, "validation": {"rain": 4}},
        "Region": {"training": {"Seoul": 4}, "validation": {"Seoul": 4}},
    }
    weather, region = plot_conditions(counts).axes[:2]
    assert [label.get_text() for label in weather.get_yticklabels()] == ["rain", "clear"]
    assert [bar.get_width() for bar in weather.patches] == [1, 3, 4, 0]
    assert texts(region) == ["8"]
    decode(encode_png(plot_conditions(counts)))


def test_little_or_no_data():
    for figure in [
        *(plot_class_counts([], {}), plot_class_counts(["a"], {"all": [0]})),
        *(plot_box_sizes(np.zeros((0, 2))), plot_box_sizes(np.array([[7.0, 7.0]]))),
        *(plot_boxes_per_image({}), plot_boxes_per_image({"all": np.zeros(0, dtype=int)})),
        plot_conditions({"Weather": {}}),
    ]:
        decode(encode_png(figure))


def test_the_examples_stand_in_rows_in_the_order_of_the_classes():
    red, green = (np.full((24, 24, 3), color, np.uint8) for color in ((255, 0, 0), (0, 255, 0)))
    sheet = draw_class_examples(["a", "b"], {1: [green], 0: [red, red]}, [2, 1], per_class=3)
    red_rows, red_columns = np.nonzero((sheet == (255, 0, 0)).all(axis=2))
    green_rows, green_columns = np.nonzero((sheet == (0, 255, 0)).all(axis=2))
    assert red_rows.max() < green_rows.min()
    assert len(red_rows) == 2 * 24 * 24
    assert len(green_rows) == 24 * 24
    assert red_columns.min() == green_columns.min()
