"""A laptop that joins in the middle of a search, leaves in order, or is no longer fit: disk, clock, code."""

import sys
import time

import pytest
from cluster_of_laptops import EPOCHS, cluster, lost_s, quiet_within, record, separate
from laptop import REPOSITORY, why_not
from product import SEQPIPE
from two_laptops import NETWORK

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
MANY = 60


@pytest.fixture
def two(tmp_path):
    with cluster(tmp_path) as made:
        yield made


@pytest.fixture
def apart(tmp_path):
    """The head is up, and nobody has joined."""
    with cluster(tmp_path, join=False) as made:
        yield made


def interrupted(driver):
    done = driver.leave()
    assert done.code == 130, done.err
    assert "Traceback" not in done.err


def test_b_joins_in_the_middle_of_a_search_and_is_used_within_15_s(apart):
    driver = apart.tune(MANY, epochs=20)
    apart.wait_for_row_on(apart.a, driver)
    began = time.monotonic()
    join_s = apart.join(apart.b)
    used_s = driver.wait_for(lambda: apart.of("started", node=apart.b.name), 60)
    from_command_s = time.monotonic() - began
    first_epoch_s = used_s + driver.wait_for(lambda: apart.row_on(apart.b) is not None, 60)
    interrupted(driver)
    apart.check_sound()
    record(
        "b joins in the middle", join_s=join_s, used_s=used_s, from_command_to_start_s=from_command_s,
        first_epochs_s=first_epoch_s,
    )  # fmt: skip
    assert used_s < 15


@pytest.mark.parametrize("how", ["Ctrl-C on B", "leave on A"])
def test_b_leaves_in_order_and_its_trial_loses_less_than_five_seconds(two, how):
    driver = two.tune(MANY, epochs=20)
    row = two.wait_for_row_on(two.b, driver)
    starts = len(two.of("started", row=row))
    began = time.monotonic()
    if how == "leave on A":
        done = two.run("leave", two.b.name)
        assert done.code == 0, done.err
    else:
        two.members[two.b.name].send(2)
    member = two.members[two.b.name].wait(30)
    left_s = time.monotonic() - began
    assert member.code in ((0,) if how == "leave on A" else (0, 130)), member.err
    quiet_s = quiet_within(two.b, 5)
    driver.wait_for(lambda: len(two.of("started", row=row)) > starts, 120)
    driver.wait_for(lambda: len(two.of("report", row=row)) >= 4 or two.of("finished", row=row), 60)
    assert two.b.name not in two.nodes()
    lost = lost_s(two.events(), row)
    assert "lost its process" not in driver.err, "a trial that leaves is not lost"
    interrupted(driver)
    two.check_sound()
    record(f"b leaves: {how}", left_s=left_s, quiet_s=quiet_s, work_lost_s=lost)
    assert lost < 5


def test_b_with_a_full_disk_takes_no_more_work_and_gets_some_when_there_is_room(two):
    driver = two.tune(MANY, epochs=20)
    two.wait_for_row_on(two.b, driver)
    member = two.members[two.b.name]
    said = len(member.out + member.err)
    two.b.fill_disk()
    said_s = member.wait_for(lambda: "disk" in (member.out + member.err)[said:], 60)
    goes_on_without(two, driver)
    seen = len(two.of("started", node=two.b.name))
    two.b.empty_disk()
    again_s = driver.wait_for(lambda: two.of("started", node=two.b.name)[seen:], 90)
    interrupted(driver)
    two.check_sound()
    record("b's disk full", said_s=said_s, works_again_s=again_s)


def goes_on_without(two, driver):
    """B gets no more work, and A goes on."""
    driver.wait_for(lambda: two.trials_on(two.b) == [], 120, 0.5)
    starts, told = len(two.of("started", node=two.b.name)), len(two.of("report"))
    driver.wait_for(lambda: len(two.of("report")) > told + EPOCHS, 90)
    assert len(two.of("started", node=two.b.name)) == starts
    assert driver.poll() is None


def test_a_clock_an_hour_off_is_said_in_one_line_when_b_joins(apart):
    member = apart.begin_join(apart.b, **apart.b.run_ahead(3600))
    said_s = member.wait_until_said("clock", 60)
    lines = [line for line in (member.out + member.err).splitlines() if "clock" in line]
    print(lines)
    driver = apart.tune(2)
    done = driver.wait(120)
    assert done.code == 0, done.err
    apart.check_whole(2)
    record("b's clock an hour off", said_s=said_s, rows_on_b=len(apart.of("started", node=apart.b.name)))


def test_b_whose_seqpipe_changed_since_it_joined_takes_no_more_work(tmp_path):
    with cluster(tmp_path, join=False) as two:
        two.b.own_source()
        two.join(two.b)
        driver = two.tune(MANY, epochs=20)
        two.wait_for_row_on(two.b, driver)
        member = two.members[two.b.name]
        said = len(member.out + member.err)
        with two.b.path(str(REPOSITORY / "pipeline" / "training" / "loop.py")).open("a") as file:
            file.write("\n# another version\n")
        said_s = member.wait_for(lambda: "seqpipe" in (member.out + member.err)[said:], 60)
        goes_on_without(two, driver)
        interrupted(driver)
        two.check_sound()
        record("b's seqpipe changed", said_s=said_s)


def test_a_third_laptop_works(tmp_path):
    with cluster(tmp_path, 3) as three:
        assert set(three.nodes()) == {"laptop-a", "laptop-b", "laptop-c"}
        driver = three.tune(6)
        done = driver.wait(240)
        assert done.code == 0, done.err
        three.check_whole(6)
        nodes = {each["node"] for each in three.of("finished")}
        record("three laptops", nodes=sorted(nodes))
        assert len(nodes) == 3


def test_a_second_laptop_of_one_name_gets_another_name(tmp_path):
    with cluster(tmp_path, 3, join=False) as three:
        third = three.laptops.all[2]
        assert third.run("hostname", "laptop-b", at="/").code == 0
        three.join(three.b)
        member = three.begin_join(third)
        member.wait_for(lambda: len(three.nodes()) == 3, 60, 0.3)
        assert set(three.nodes()) == {"laptop-a", "laptop-b", "laptop-b-2"}


def test_a_name_in_place_of_an_address(apart):
    apart.b.knows(laptop_a=f"{NETWORK}.1")
    member = apart.begin_join(apart.b, address="laptop-a")
    apart.rejoins(apart.b, 0)
    assert member.leave().code in (0, 130)
    quiet_within(apart.b, 5)


def test_over_ipv6(tmp_path):
    with separate(tmp_path) as two:
        for number, laptop in enumerate(two.laptops.all, start=1):
            words = f"ip -6 addr add fd77::{number}/64 dev {laptop.device} nodad".split()
            assert laptop.run(*words, at="/").code == 0
        two.up("--bind", "fd77::1")
        assert "fd77::1" in two.head.out
        two.begin_join(two.b, address="[fd77::1]")
        two.rejoins(two.b, 0)
        driver = two.tune(4)
        done = driver.wait(180)
        assert done.code == 0, done.err
        two.check_whole(4)
        assert {each["node"] for each in two.of("finished")} == {two.a.name, two.b.name}


def test_another_patch_release_of_python_joins_and_works(apart):
    minor = ".".join(map(str, sys.version_info[:2]))
    member = apart.begin_join(apart.b, **apart.b.has_python(f"{minor}.99"))
    apart.rejoins(apart.b, 0)
    assert f"{minor}.99" in member.out + member.err, "the table shows it"
    driver = apart.tune(4)
    done = driver.wait(180)
    assert done.code == 0, done.err
    apart.check_whole(4)
    assert {each["node"] for each in apart.of("finished")} == {apart.a.name, apart.b.name}


def test_another_minor_version_of_python_is_refused(apart):
    given = {"SEQPIPE_JOIN_CODE": apart.code, **apart.b.has_python("3.99.1")}
    done = apart.b.run(SEQPIPE, "cluster", "join", apart.a.address, **given)
    assert done.code == 6, done.err
    assert "3.99.1" in done.out + done.err
    quiet_within(apart.b, 5)


def test_tune_while_a_node_is_leaving_goes_on_without_it(two):
    leaving = two.a.start(SEQPIPE, "cluster", "leave", two.b.name)
    driver = two.tune(2)
    assert leaving.wait(30).code == 0
    done = driver.wait(120)
    assert done.code == 0, done.err
    two.check_whole(2)
    assert {each["node"] for each in two.of("finished")} == {two.a.name}
