import json
import math

import pytest

from tuning.forecast import Forecast
from tuning.ledger import EpochReport, Finish
from tuning.on_ray import messages

REPORT = EpochReport(2, 0.5, {"loss": 0.1}, peak_mb=70.0)
FORECAST = Forecast(480.0, "8 at once")
FINISH = Finish("completed", value=0.5, node="here", epochs=2)


class Recorder:
    """In place of the decisions."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return lambda *arguments, **words: self.calls.append((name, *arguments, *words.values()))


def delivered(message, attempt=3, stopped=False):
    recorder = Recorder()
    travelled = json.loads(json.dumps(messages.as_result(message, attempt)["message"]))
    messages.deliver(travelled, 7, recorder, stopped=stopped)
    return recorder.calls


@pytest.mark.parametrize(
    ("message", "calls"),
    [
        (messages.started("there"), [("started", 7, 3, "there")]),
        (messages.fitted(FORECAST), [("fitted", 7, 3, FORECAST)]),
        (messages.reported(REPORT), [("reported", 7, 3, REPORT, False)]),
        (messages.finished(FINISH), [("finished", 7, 3, FINISH)]),
        (messages.note("disk full"), [("noted", 7, "disk full")]),
        (messages.PAUSED, []),
        (messages.waiting("waits"), [("waits", 7, 3, "waits")]),
        (messages.left_node("left there"), [("left_node", 7, 3, "left there")]),
        (messages.described({"precision": "bf16"}), [("described", 7, 3, {"precision": "bf16"})]),
    ],
)
def test_a_message_arrives_as_what_it_was(message, calls):
    assert delivered(message) == calls


def test_a_report_that_the_scheduler_stops_the_trial_for_says_so():
    assert delivered(messages.reported(REPORT), stopped=True) == [("reported", 7, 3, REPORT, True)]


def test_ray_s_schedulers_see_epoch_and_value_of_a_report_and_nan_otherwise():
    result = messages.as_result(messages.reported(REPORT), 1)
    assert (result["epoch"], result["value"]) == (2, 0.5)
    result = messages.as_result(messages.started("here"), 1)
    assert result["epoch"] == 0
    assert math.isnan(result["value"])
