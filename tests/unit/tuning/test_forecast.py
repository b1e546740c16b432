import math

import pytest

from tuning.forecast import Forecast


@pytest.mark.parametrize("peak_mb", [0, -1.0, math.nan, math.inf])
def test_a_forecast_is_a_finite_number_above_zero(peak_mb):
    with pytest.raises(ValueError, match="above 0"):
        Forecast(peak_mb)


def test_nothing_is_said_of_a_trial_that_fits_as_it_is():
    assert Forecast(800).fitted == ""
