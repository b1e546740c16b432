import os
import signal

import pytest

from pipeline import stop
from pipeline.cli import app
from pipeline.errors import ConfigError, InterruptedRunError


@pytest.fixture(autouse=True)
def handlers():
    before = stop.listen(stop._raise_interrupted)
    yield
    stop.restore(before)


def after_a_swallowed_signal(error: Exception):
    def command():
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except InterruptedRunError:
            raise error from None

    return command


def test_a_signal_that_native_code_made_an_import_error_of_is_told_as_the_signal(monkeypatch, capsys):
    monkeypatch.setattr(app, "_command", after_a_swallowed_signal(ImportError("initialization failed")))
    assert app.run_words(debug=False) == 130
    assert capsys.readouterr().err == "seqpipe: interrupted (Ctrl-C); the same command resumes from where it was\n"


def test_an_error_of_the_user_s_is_told_although_a_signal_came_before(monkeypatch, capsys):
    monkeypatch.setattr(app, "_command", after_a_swallowed_signal(ConfigError("train.epochs = 0: too few")))
    assert app.run_words(debug=False) == 2
    assert capsys.readouterr().err == "seqpipe: train.epochs = 0: too few\n"


def test_without_a_signal_an_unexpected_error_is_told_as_a_fault(monkeypatch, capsys):
    monkeypatch.setattr(app, "_command", lambda: 1 // 0)
    assert app.run_words(debug=False) == 1
    assert "unexpected error: ZeroDivisionError" in capsys.readouterr().err
