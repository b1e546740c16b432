import shutil

import psutil
import pytest

from pipeline.config.resolution import resolve
from pipeline.errors import MachineUnfitError, WorkspaceError
from pipeline.maintenance import doctor
from pipeline.maintenance.doctor import Finding, examine
from pipeline.tracking.connection import StoreConnection
from pipeline.training.forecaster import ArchitectureMemory, TrainingForecaster
from pipeline.training.memory_forecast import LIBRARIES_MB, Line, StepMemory, TrainingMemory
from pipeline.workspace.manifests import MANIFEST
from pipeline.workspace.paths import Workspace
from sequencer_models.catalog import MODELS
from tuning.capacity import WORKER_MB, Node
from tuning.capped import run_capped as memory
from tuning.machine import Machine

pytestmark = pytest.mark.usefixtures("round_memory_figures")

OF_THE_MACHINE = {"python", "memory", "disk"}


@pytest.fixture(autouse=True)
def _mlflow_settings_of_the_test(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)


PLAIN, CHECKPOINTED = (StepMemory((Line(0.0, each),), (Line(0.0, 0.1),)) for each in (10.0, 4.0))


@pytest.fixture(autouse=True)
def forecasts(monkeypatch):
    """What the process that forecasts would answer of each model: 10 MB an image, 4 with activation checkpointing."""

    class Forecaster(TrainingForecaster):
        fails: list[MachineUnfitError] = []  # noqa: RUF012
        asked: list[str] = []  # noqa: RUF012
        closed = 0

        def memory(self, config, classes):
            Forecaster.asked.append(config.model.name)
            for error in self.fails:
                raise error
            blocks = None if config.model.name == "vanilla" else CHECKPOINTED
            return ArchitectureMemory(TrainingMemory(1.0, PLAIN, blocks, 1e9), 300.0 - LIBRARIES_MB, "cpu")

        def close(self):
            Forecaster.closed += 1

    monkeypatch.setattr(doctor, "TrainingForecaster", Forecaster)
    return Forecaster


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.what: finding for finding in findings}


def test_an_empty_workspace_has_nothing_wrong_with_it_and_stays_empty(tmp_path):
    found = by_name(examine(Workspace(tmp_path)))
    assert {"torch", "torchvision", "processor", "device", "mlflow store", "data set", "stage folders"} <= set(found)
    assert {what for what, finding in found.items() if finding.severity == "bad"} <= OF_THE_MACHINE
    assert found["mlflow store"].found.endswith("not made yet; the first run makes it")
    assert found["data set"].found == "not fetched yet"
    assert found["stage folders"].found == "0 whole, contents verified"
    assert list(tmp_path.iterdir()) == []


def test_every_check_works_where_there_is_no_proc(tmp_path, monkeypatch):
    monkeypatch.setattr(memory.process_memory_mb, "__defaults__", (tmp_path / "no-proc",))
    found = by_name(examine(Workspace(tmp_path)))
    assert found["torch"].severity == "ok"
    assert {what for what, finding in found.items() if finding.severity == "bad"} <= OF_THE_MACHINE


def test_a_check_that_fails_is_a_finding_and_the_others_go_on(tmp_path, monkeypatch):
    def refuse() -> list[Finding]:
        raise OSError("no such sensor")

    def damaged(workspace: Workspace) -> list[Finding]:
        raise WorkspaceError("damaged")

    monkeypatch.setattr(doctor, "_memory", refuse)
    monkeypatch.setattr(doctor, "_store", damaged)
    found = by_name(examine(Workspace(tmp_path)))
    assert found["memory"] == Finding("memory", "bad", "OSError: no such sensor")
    assert found["mlflow store"] == Finding("mlflow store", "bad", "damaged")
    assert found["stage folders"].severity == "ok"


def test_variables_that_change_a_run_are_told_and_those_that_may_not(monkeypatch):
    for name in {*doctor.environment.USER_VARIABLES} & {*doctor.os.environ}:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")  # our own
    monkeypatch.setenv("CC", "clang")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@server:5000")
    monkeypatch.setattr(doctor.environment, "_removed", {"MPLBACKEND": "there is no window"})
    assert doctor._variables() == [
        Finding("MLFLOW_TRACKING_URI", "note", "http://server:5000: where runs are recorded"),
        Finding("CC", "note", "clang: the C compiler that is tried first"),
        Finding("MPLBACKEND", "note", "not used: there is no window"),
    ]


def test_each_model_says_what_it_needs_and_how_many_trials_fit(forecasts, monkeypatch):
    monkeypatch.setattr(doctor.capacity, "this_machine", lambda: Node("here", 8, 5000))
    found = by_name(doctor._models())
    assert list(found) == list(MODELS) == forecasts.asked
    batch = resolve("small").train.batch_size
    states = 2 * (3 + (resolve("small").train.ema_decay is not None))
    whole, least = 300 + states + 10 * batch, 300 + states + 1 + 4
    at_once = 5000 // (whole + WORKER_MB)
    assert found["small"] == Finding(
        "small",
        "ok",
        f"a trial holds {whole} MB, at least {least} with 1 image at once and activation checkpointing; "
        f"{at_once} at once fit here, caps up to {5000 - WORKER_MB} MB",
    )
    assert "with 1 image at once; " in found["vanilla"].found, "it has no blocks"
    assert forecasts.closed == 1


@pytest.mark.parametrize(("memory_mb", "severity"), [(300, "note"), (480, "ok")])
def test_a_model_of_which_no_trial_fits_is_a_note(monkeypatch, memory_mb, severity):
    monkeypatch.setattr(doctor.capacity, "this_machine", lambda: Node("here", 8, memory_mb))
    found = by_name(doctor._models())["small"]
    assert found.severity == severity
    assert f"; 0 at once fit here, caps up to {max(0, memory_mb - WORKER_MB)} MB" in found.found


def test_models_that_cannot_be_forecast_are_one_finding(tmp_path, forecasts):
    forecasts.fails = [MachineUnfitError("no forecast within 300 s")]
    findings = examine(Workspace(tmp_path))
    assert Finding("models", "bad", "no forecast within 300 s") in findings
    assert "small" not in by_name(findings)
    assert forecasts.closed == 1


@pytest.mark.parametrize(("free_mb", "verdict"), [(1499, "bad"), (1501, "ok")])
def test_too_little_free_memory_is_bad(monkeypatch, free_mb, verdict):
    class Memory:
        available = free_mb * 1e6
        total = 8e9

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    (finding,) = doctor._memory()
    assert finding.severity == verdict
    assert finding.found.startswith(f"{free_mb} of 8000 MB available")


def test_a_server_that_gives_no_answer_is_a_finding(tmp_path, monkeypatch):
    class Client:
        def get_experiment_by_name(self, name):
            raise Exception("Max retries exceeded\nand more")  # MLflow's own is no kind of ours

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(StoreConnection, "client", lambda self: Client())
    finding = by_name(examine(Workspace(tmp_path)))["mlflow store"]
    assert finding.severity == "bad"
    assert finding.found.startswith("MLflow store http://127.0.0.1:9: Max retries exceeded;")
    assert "\n" not in finding.found


def test_what_a_container_leaves_of_the_machine_is_said(monkeypatch):
    monkeypatch.setattr(doctor.machine, "this_machine", lambda: Machine(2 * 10**9, 10**9, 0.5, 2 * 10**9, 0.5))
    memory, container = doctor._memory()
    assert (memory.severity, memory.found.split(";")[0]) == ("bad", "1000 of 2000 MB available")
    assert container == Finding("container", "note", "limited to 2 GB and 0.5 cores by a control group")


@pytest.mark.parametrize(("free_mb", "verdict"), [(1999, "bad"), (2001, "ok")])
def test_too_little_free_disk_is_bad(tmp_path, monkeypatch, free_mb, verdict):
    class Usage:
        free = free_mb * 1e6

    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage)
    assert doctor._disk(Workspace(tmp_path))[0].severity == verdict


def test_a_folder_that_cannot_be_written_is_bad(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    (finding,) = doctor._disk(Workspace(tmp_path))
    assert (finding.severity, "cannot be written" in finding.found) == ("bad", True)


def test_altered_missing_and_damaged_stage_folders_are_each_told(house):
    house.run()
    assert doctor._stage_folders(house.workspace) == [Finding("stage folders", "ok", "4 whole, contents verified")]
    (house.folder("prepare") / "work").write_text("altered")
    (house.folder("train") / "work").unlink()
    (house.folder("evaluate") / MANIFEST).write_text("{")
    (house.folder("register") / MANIFEST).unlink()
    findings = doctor._stage_folders(house.workspace)
    assert [finding.severity for finding in findings] == ["bad"] * 4
    assert all("remove th" in finding.found for finding in findings)
    words = ("altered", "work: missing", "damaged manifest", "its manifest is missing")
    for finding, word in zip(findings, words, strict=True):
        assert word in finding.found


def test_unfinished_work_is_nothing_bad(house):
    house.fails.add("prepare")
    with pytest.raises(RuntimeError):
        house.run()
    assert doctor._stage_folders(house.workspace) == [Finding("stage folders", "ok", "0 whole, contents verified")]


def test_a_damaged_data_set_is_told_with_what_to_do(tmp_path):
    from pipeline.data import sources
    from pipeline.data.synthetic import SyntheticSpec

    workspace = Workspace(tmp_path)
    sources.obtain(
        "synthetic",
        folder=None,
        cache=workspace.data,
        synthetic_spec=SyntheticSpec(train_per_class=2, test_per_class=1),
    )
    assert doctor._data(workspace) == [Finding("data set", "ok", "synthetic: contents verified")]
    (path,) = workspace.data.glob("*/test_labels.npy")
    path.write_bytes(path.read_bytes()[:-1] + b"\x63")
    (finding,) = doctor._data(workspace)
    assert finding.severity == "bad"
    assert "test_labels.npy: altered" in finding.found
    assert "makes it again" in finding.found


def test_a_store_that_is_away_is_a_note_and_one_that_needs_the_user_is_bad(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    (finding,) = doctor._store(Workspace(tmp_path))
    assert (finding.severity, "nothing is lost" in finding.found) == ("note", True)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    (tmp_path / "mlflow.db").mkdir()
    (finding,) = doctor._store(Workspace(tmp_path))
    assert (finding.severity, "move it away" in finding.found) == ("bad", True)


def test_a_check_that_failed_ends_the_command_and_notes_do_not():
    doctor.require_fit([Finding("a", "ok", ""), Finding("b", "note", "")])
    with pytest.raises(MachineUnfitError, match="1 of 3 checks failed: c") as caught:
        doctor.require_fit([Finding("a", "ok", ""), Finding("b", "note", ""), Finding("c", "bad", "")])
    assert caught.value.exit_code == 6


def test_a_finding_in_json_has_the_keys_that_scripts_know():
    assert Finding("disk", "bad", "full").to_json() == {"what": "disk", "verdict": "bad", "found": "full"}
