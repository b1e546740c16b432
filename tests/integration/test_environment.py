"""A whole run in surroundings that once ended it, or had it run or record what is not ours."""

import subprocess

from product import set_traps, sprung, tiny

from pipeline.provenance import git_commit


def test_a_run_is_the_same_whatever_it_inherits(place):
    other = place.root / "somebodys"
    subprocess.run(["git", "init", "-q", other], check=True)
    set_traps(place.root)
    place.set(
        MPLBACKEND="module://matplotlib_inline.backend_inline",
        GIT_DIR=str(other / ".git"),
        TORCH_LOGS="rubbish",
        MLFLOW_ENABLE_WORKSPACES="true",
        MLFLOW_TRACKING_URI=None,
        OMP_THREAD_LIMIT="1",
        PYTHONWARNINGS="error",
        RAY_ADDRESS="127.0.0.1:9",
        HOME="relative",
        TMPDIR="relative",
    )
    done = place.run("run", "all", *tiny(train__epochs=1), "--max-memory-mb", "2000")
    assert (done.code, done.errors) == (0, []), done.err
    assert "warning" not in done.err
    assert f'"{git_commit()}' in (place.whole("train") / "journal.jsonl").read_text()
    assert sprung(place.root) == []
    assert not (place.root / "relative").exists()
