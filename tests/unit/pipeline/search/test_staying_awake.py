from pipeline.search.staying_awake import StaysAwake
from tuning.observer import Snapshot


class Kept(list):
    def keep(self, is_busy):
        self.append(is_busy)


def snapshot(*running):
    return Snapshot((), frozenset(running), 3, 1, 500, 0.0, 1.0, None, False)


def test_a_laptop_is_kept_awake_from_the_first_trial_on_while_any_runs():
    kept = Kept()
    watching = StaysAwake(kept)
    watching.ticked(snapshot())
    watching.started(object())
    watching.ticked(snapshot(0))
    watching.ticked(snapshot())
    assert kept == [False, True, True, False]
