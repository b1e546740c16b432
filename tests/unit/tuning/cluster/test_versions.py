import shutil
from dataclasses import replace

import pytest

from tuning.cluster.versions import Versions, code_of, of_this_machine

VERSIONS = Versions("3.12.3", "2.60.0", "2.13.0+cpu", "cafe")


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "one" / "package"
    (folder / "room").mkdir(parents=True)
    (folder / "__init__.py").write_text('"""It."""\n')
    (folder / "room" / "kernel.c").write_text("int x;\n")
    return folder


def test_only_what_must_be_the_same_is_in_the_digest():
    assert replace(VERSIONS, python="3.12.9", torch="2.13.1").digest == VERSIONS.digest
    for changed in ({"python": "3.13.3"}, {"ray": "2.60.1"}, {"code": "beef"}):
        assert replace(VERSIONS, **changed).digest != VERSIONS.digest


def test_the_same_code_in_another_place_is_the_same(package, tmp_path):
    other = shutil.copytree(package, tmp_path / "two" / "package")
    assert code_of([package]) == code_of([other])


def test_changed_added_and_renamed_source_files_are_other_code(package):
    before = code_of([package])
    (package / "room" / "kernel.c").write_text("int y;\n")
    changed = code_of([package])
    (package / "more.py").touch()
    added = code_of([package])
    (package / "more.py").rename(package / "much.py")
    assert len({before, changed, added, code_of([package])}) == 4


def test_what_running_leaves_behind_is_no_code(package):
    before = code_of([package])
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "x.pyc").write_bytes(b"1")
    (package / "README.md").write_text("read me")
    assert code_of([package]) == before


def test_the_order_of_the_packages_does_not_matter(package, tmp_path):
    other = tmp_path / "another"
    other.mkdir()
    (other / "x.py").write_text("1\n")
    assert code_of([package, other]) == code_of([other, package]) != code_of([package])


def test_this_machine_s_versions_are_known_and_a_package_that_lacks_is_not(package, monkeypatch):
    from tuning.cluster import versions

    here = of_this_machine([package])
    assert here.ray.startswith("2.")
    assert here.python.count(".") == 2
    assert here.code == code_of([package])
    monkeypatch.setattr(versions.metadata, "version", _not_found)
    assert of_this_machine([package]).torch == ""


def _not_found(name):
    from importlib import metadata

    raise metadata.PackageNotFoundError(name)
