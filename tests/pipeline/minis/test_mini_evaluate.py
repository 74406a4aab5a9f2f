from pipeline.minis.evaluate import outside_interval


def test_figures_outside_the_interval_are_named():
    shipped = {"colour": 0.9, "colour_held_out": 0.7, "num_scenes": 500}
    assert outside_interval(shipped, {"colour": 0.92, "colour_held_out": 0.61, "num_scenes": 30}) == []
    assert outside_interval(shipped, {"colour": 0.86, "colour_held_out": 0.59, "num_scenes": 500}) == [
        "colour",
        "colour_held_out",
    ]
