"""Whatever bytes are sent: an answer below 500, one sentence in JSON. `tests/faults` sends more."""

from fuzzed_bodies import requests


def test_no_body_whatever_is_in_it_is_a_fault_of_the_server(client, reports):
    statuses = set()
    for path, kind, body in requests(120, seed=0):
        answer = client.post(path, content=body, headers={"content-type": kind})
        statuses.add(answer.status_code)
        assert answer.status_code < 500, (path, kind, body[:200], answer.text)
        if answer.status_code != 200:
            [sentence] = answer.json().values()
            assert sentence
            assert "Traceback" not in sentence
            assert "\n" not in sentence
    assert {200, 400, 413, 415, 422} <= statuses, "the bodies are of all sorts"
    assert reports == []
