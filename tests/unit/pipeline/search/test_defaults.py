from pathlib import Path

from pipeline.search.defaults import LEAST_TRIAL_MB

README = Path(__file__).parents[4] / "README.md"


def test_the_readme_states_the_default_memory_of_a_trial():
    assert f"{LEAST_TRIAL_MB / 1000:g} GB or more to each trial" in README.read_text()
