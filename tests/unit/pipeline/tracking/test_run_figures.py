import pytest

from pipeline.errors import ConfigError
from pipeline.tracking import run_figures
from pipeline.tracking.journal import FILE_NAME, Journal
from pipeline.tracking.run_figures import RunFigures, check_known, conditions, sort_key


@pytest.fixture
def journal(tmp_path):
    with Journal(tmp_path) as made:
        made.params({"model.name": "small", "model.parameters": 7_400_000, "seed": 1, "train.epochs": 3})
        for step, accuracy in enumerate((0.5, 0.7, 0.6), start=1):
            made.metrics({"validation/accuracy": accuracy, "images_per_second": 100.0 + step}, step)
        for memory in (900.0, 1100.0, 1000.0):
            made.metrics({"system/process_tree_memory_megabytes": memory}, 4)
        made.metrics({"peak_memory_mb": 1200.0}, 3)
        made.metrics({"test/accuracy": 0.91, "test/loss": 0.3}, 2)
    return tmp_path / FILE_NAME


def test_a_run_shows_its_last_test_figures_its_best_validation_and_its_highest_memory(journal):
    row = run_figures.read("a run", "FINISHED", [(journal, journal.stat().st_size)])
    expected = {
        "name": "a run", "model": "small", "seed": 1, "epochs": 3, "status": "FINISHED", "accuracy": 0.91,
        "validation": 0.7, "loss": 0.3, "parameters": 7_400_000, "images_per_s": 103.0, "memory_mb": 1200.0,
    }  # fmt: skip
    assert expected.items() <= dict(row.columns).items()
    assert set(row.columns) == set(run_figures.COLUMNS)
    assert row.get("train.epochs") == 3


def test_what_is_not_durable_does_not_count_and_what_is_not_known_is_left_out(journal):
    first = journal.read_bytes().index(b"\n") + 1
    row = run_figures.read("a run", "RUNNING", [(journal, first)])
    assert row.get("model") == "small"
    assert not {"accuracy", "validation", "memory_mb"} & set(row.columns)
    assert run_figures.read("none", "RUNNING", []).columns == {"name": "none", "status": "RUNNING"}


RUN = RunFigures({"model": "small", "accuracy": 0.9, "name": "small, 4 classes"}, {"train.epochs": 11.0})


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("model=small", True),
        ("model == small and accuracy>=0.9", True),
        ("model=small and accuracy>0.9", False),
        ("model!=small", False),
        ("accuracy<0.95", True),
        ("accuracy <= 0.9 AND train.epochs=11", True),
        ("train.epochs > 11", False),
        ("name='small, 4 classes'", True),
        ('name="small"', False),
        ("loss<1", False),  # not known
        ("loss!=1", False),
        ("model=1", False),  # a word against a figure
        ("model!=1", True),
        ("model>1", False),
        ("accuracy=high", False),
    ],
)
def test_conditions(text, holds):
    assert all(condition.holds(RUN) for condition in conditions(text)) is holds


@pytest.mark.parametrize(
    "text", ["", "small", "accuracy>", ">0.9", "accuracy>0.9 or model=small", "accuracy>0.9 and", "a=1 b=2", "a='x"]
)
def test_what_cannot_be_read_is_told_with_an_example(text):
    with pytest.raises(ConfigError, match="--where"):
        conditions(text)


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean accuracy"):
        check_known(["acuracy"], [RUN])
    check_known(["accuracy", "train.epochs", "loss"], [RUN])


def test_the_order_is_the_best_first_and_unknown_last():
    runs = [
        RunFigures({"accuracy": value, "name": name} if value else {"name": name}, {})
        for name, value in (("a", 0.5), ("b", None), ("c", 0.9))
    ]
    assert [run.get("name") for run in sorted(runs, key=lambda run: sort_key(run, "accuracy"))] == ["c", "a", "b"]
    assert [run.get("name") for run in sorted(runs, key=lambda run: sort_key(run, "name"))] == ["a", "b", "c"]
