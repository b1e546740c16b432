from pipeline.inference.prediction import Prediction


def test_the_most_probable_classes_come_first():
    prediction = Prediction(("a", "b", "c"), (0.2, 0.5, 0.3))
    assert (prediction.best, prediction.probability) == ("b", 0.5)
    assert prediction.top(2) == [("b", 0.5), ("c", 0.3)]
    assert prediction.top(9) == [("b", 0.5), ("c", 0.3), ("a", 0.2)]


def test_equals_keep_the_order_of_the_model():
    assert Prediction(("b", "a"), (0.5, 0.5)).top(2) == [("b", 0.5), ("a", 0.5)]
