import pytest

from pipeline.data.prepared import PreparedData
from pipeline.stages.results import Evaluation, Results


def test_results_are_found_by_their_type(tmp_path):
    made = Results()
    assert made.get(Evaluation) is None
    with pytest.raises(AssertionError, match="no Evaluation"):
        made[Evaluation]
    figures = dict.fromkeys(("loss", "accuracy", "accuracy_low", "accuracy_high", "macro_f1", "ece"), 0.5)
    result = Evaluation(folder=tmp_path, images=6, **figures)
    made.add(result)
    assert made[Evaluation] is made.get(Evaluation) is result
    assert made.get(PreparedData) is None
