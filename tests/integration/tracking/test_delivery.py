"""What is delivered arrives once, whatever happens between and after deliveries."""

import shutil
import time
from collections import Counter

from tracked_workspace import RUN, TRAIN, closed_port, expected

from pipeline.tracking import connection, delivery_state
from pipeline.tracking.journal import Journal
from pipeline.tracking.sending import RUN_KEY_TAG


def test_everything_in_a_journal_arrives(tracked):
    journal = tracked.journal
    journal.tags({"mlflow.note.content": "**why**", "mlflow.source.git.commit": "f00"})
    journal.params({f"p{i:03}": i for i in range(230)})  # more than MLflow takes at once
    data = {"name": "cifar10", "digest": "d" * 64, "context": "training", "profile": {"images": 18000}}
    journal.dataset(data)
    journal.dataset(data | {"context": "validation", "digest": "e" * 64})
    journal.metrics({f"m{i:04}": i for i in range(1100)}, 0)
    journal.metrics({"train/loss": float("nan")}, 1)
    (tracked.folder / "plots").mkdir()
    (tracked.folder / "plots" / "c.txt").write_text("figure")
    journal.artifact(tracked.folder / "plots" / "c.txt", "plots")

    tracker = tracked.tracker()
    assert tracker.deliver(RUN, TRAIN, tracked.folder, status="FINISHED")
    journal.params({"p000": "another value"})  # a resume on a machine that resolved it otherwise
    assert tracker.deliver(RUN, TRAIN, tracked.folder)
    assert tracked.problems == []

    client = tracker.connection.client()
    run = client.get_run(tracker.run_id(RUN))
    assert run.info.run_name == RUN.name
    assert run.info.status == "FINISHED"
    assert run.info.end_time >= run.info.start_time
    assert len(run.data.params) == 230
    assert run.data.params["p000"] == "0"
    assert run.data.tags["mlflow.note.content"] == "**why**"
    assert run.data.tags["mlflow.source.name"] == "seqpipe run"
    assert run.data.tags[RUN_KEY_TAG] == RUN.key
    assert len(tracked.rows()) == 1101
    contexts = {one.tags[0].value: one.dataset.digest for one in run.inputs.dataset_inputs}
    assert contexts == {"training": "d" * 36, "validation": "e" * 36}
    artifact = tracked.workspace.root / "mlartifacts" / run.info.run_id / "artifacts/plots/c.txt"
    assert artifact.read_text() == "figure"
    assert run.info.run_id in tracker.location(RUN)


def test_only_what_is_durable_is_delivered(tracked):
    durable = tracked.epochs(1, 2)
    tracked.epochs(3, 3)
    tracker = tracked.tracker()
    assert tracker.deliver(RUN, TRAIN, tracked.folder, upto=durable)
    assert tracked.rows() == expected(2)
    assert tracker.connection.client().get_run(tracker.run_id(RUN)).info.status == "RUNNING"


def test_a_crash_after_creating_the_run_makes_no_second_one(tracked, monkeypatch):
    tracked.epochs(1, 1)
    with monkeypatch.context() as broken:
        broken.setattr(delivery_state, "write_store", lambda *_: (_ for _ in ()).throw(OSError("killed here")))
        assert not tracked.tracker().deliver(RUN, TRAIN, tracked.folder)
    assert tracked.tracker().deliver(RUN, TRAIN, tracked.folder)
    assert len(tracked.rows("runs", "run_uuid")) == 1
    assert tracked.rows() == expected(1)


def test_a_crash_between_sending_and_remembering_doubles_nothing(tracked, monkeypatch):
    tracker = tracked.tracker()
    tracked.epochs(1, 1)
    tracker.deliver(RUN, TRAIN, tracked.folder)
    before = delivery_state.store_path(tracked.workspace, RUN.key, tracker.settings.address).read_bytes()
    tracked.epochs(2, 3)
    tracker.deliver(RUN, TRAIN, tracked.folder)
    delivery_state.store_path(tracked.workspace, RUN.key, tracker.settings.address).write_bytes(before)
    again = tracked.tracker()
    assert again.deliver(RUN, TRAIN, tracked.folder)
    assert tracked.rows() == expected(3)
    delivery_state.store_path(tracked.workspace, RUN.key, tracker.settings.address).unlink()  # and all memory lost
    assert again.deliver(RUN, TRAIN, tracked.folder)
    assert tracked.rows() == expected(3)


def test_a_journal_that_was_cut_back_and_made_anew_doubles_no_step(tracked):
    tracker = tracked.tracker()
    checkpoint = tracked.epochs(1, 2)
    tracker.deliver(RUN, TRAIN, tracked.folder, upto=tracked.epochs(3, 4))
    tracked.journal.truncate(checkpoint)  # the newest checkpoint was damaged, an older one is gone on from
    time.sleep(0.002)
    for epoch in range(3, 7):
        tracked.journal.metrics({"train/loss": 1 / epoch, "validation/accuracy": 1 - 1 / epoch}, epoch)
    assert tracker.deliver(RUN, TRAIN, tracked.folder)
    assert Counter(tracked.rows()) == Counter(expected(6))


def test_nothing_is_missing_after_an_outage(tracked):
    port = closed_port()
    tracked.journal.params({"train.epochs": 3})
    tracked.epochs(1, 2)
    offline = tracked.tracker(MLFLOW_TRACKING_URI=f"http://127.0.0.1:{port}")
    start = time.monotonic()
    assert not offline.deliver(RUN, TRAIN, tracked.folder)
    assert not offline.deliver(RUN, TRAIN, tracked.folder, force=True)
    assert not offline.deliver(RUN, TRAIN, tracked.folder, upto=tracked.epochs(3, 3), status="FINISHED", force=True)
    assert time.monotonic() - start < 5
    assert len(tracked.problems) == 1, "said once"
    assert f"127.0.0.1:{port}" in tracked.problems[0]
    assert "nothing is lost" in tracked.problems[0]
    assert offline.run_id(RUN) is None
    tracked.folder.rename(tracked.folder.with_name("abc"))  # the stage is whole meanwhile

    back = tracked.tracker()
    assert back.deliver_pending() == 1
    assert tracked.rows() == expected(3)
    run = back.connection.client().get_run(back.run_id(RUN))
    assert run.info.status == "FINISHED"
    assert run.data.params == {"train.epochs": "3"}
    assert back.deliver_pending() == 0


def test_a_store_that_failed_is_left_alone_for_a_while(tracked, monkeypatch):
    tracker = tracked.tracker(MLFLOW_TRACKING_URI=f"http://127.0.0.1:{closed_port()}")
    probes = []
    real = connection.probe
    monkeypatch.setattr(connection, "probe", lambda uri: (probes.append(uri), real(uri)))
    tracked.epochs(1, 1)
    for _ in range(3):
        assert not tracker.deliver(RUN, TRAIN, tracked.folder)
    assert len(probes) == 1
    assert not tracker.deliver(RUN, TRAIN, tracked.folder, force=True)
    assert len(probes) == 2


def test_a_new_address_is_told_all_journals_from_the_start(tracked, tmp_path, made_store):
    tracked.epochs(1, 2)
    tracked.tracker().deliver(RUN, TRAIN, tracked.folder)
    evaluation = tracked.workspace.stage("evaluate") / "def"
    evaluation.mkdir(parents=True)
    with Journal(evaluation) as journal:
        journal.metrics({"test/accuracy": 0.9}, 2)
    shutil.copy(made_store, tmp_path / "other.db")
    elsewhere = tracked.tracker(MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/other.db")
    assert elsewhere.deliver(RUN, "evaluate/def", evaluation, status="FINISHED")
    run = elsewhere.connection.client().get_run(elsewhere.run_id(RUN))
    assert set(run.data.metrics) == {"train/loss", "validation/accuracy", "test/accuracy"}
    assert run.info.run_id != tracked.tracker().run_id(RUN)
    assert tracked.tracker().deliver_pending() == 1  # and the first address catches up
    assert len(tracked.rows()) == 5


def test_a_run_deleted_in_mlflow_is_made_again_whole(tracked):
    tracked.epochs(1, 2)
    tracker = tracked.tracker()
    tracker.deliver(RUN, TRAIN, tracked.folder)
    tracker.connection.client().delete_run(tracker.run_id(RUN))
    assert tracker.deliver(RUN, TRAIN, tracked.folder, upto=tracked.epochs(3, 3))
    history = tracker.connection.client().get_metric_history(tracker.run_id(RUN), "train/loss")
    assert [metric.step for metric in history] == [1, 2, 3]
