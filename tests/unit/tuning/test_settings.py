import pytest

from tuning.settings import Settings


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"trials": 0}, "trials must be at least 1, not 0"),
        ({"max_epochs": 0}, "max_epochs must be at least 1"),
        ({"grace_epochs": 0}, "grace_epochs must be at least 1"),
        ({"failures_to_stop": 0}, "failures_to_stop must be at least 1"),
        ({"cap_mb": 0}, "cap_mb must be above 0, not 0"),
        ({"concurrency": -1}, "concurrency must be above 0"),
        ({"cpus_per_trial": 0.0}, "cpus_per_trial must be above 0"),
        ({"reserve_mb": -1}, "reserve_mb must be above 0"),
        ({"grace_epochs": 4}, "grace_epochs 4 is more than the 3 epochs of a trial"),
        ({"reduction_factor": 1.0}, "reduction_factor must be above 1"),
    ],
)
def test_a_choice_that_cannot_work_is_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        Settings(**{"trials": 2, "max_epochs": 3} | changes)


def test_the_smallest_choices_are_accepted():
    Settings(trials=1, max_epochs=1, cap_mb=1, concurrency=1, cpus_per_trial=0.5, grace_epochs=1, failures_to_stop=1)
