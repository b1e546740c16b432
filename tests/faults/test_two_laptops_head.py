"""A search on two laptops whose head or driver is lost: A's processes, A itself, its address, the command."""

import json
import signal
import time

import pytest
from cluster_of_laptops import cluster, lost_s, quiet_within, record
from laptop import why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
TRIALS = 5
LOST_S = 10.0


@pytest.fixture
def two(tmp_path):
    with cluster(tmp_path) as made:
        yield made


def rays_of_a(two, name):
    """Processes of A's whose command line begins with one of Ray's programs."""
    return [each for each in two.a.processes() if name in (each.cmdline() or [""])[0]]


def in_the_middle(two, **words):
    driver = two.tune(TRIALS, epochs=20, **words)
    two.wait_for_row_on(two.b, driver)
    return driver


def go_on(two, before):
    """The same command on the same cluster, to its end: nothing lost, nothing twice, at most an epoch repeated."""
    finished = {each["row"] for each in before if each["event"] == "finished"}
    driver = two.tune(TRIALS, epochs=20)
    first_s = driver.wait_for(lambda: len(two.of("report")) > len(of(before, "report")), 90)
    on_b_s = driver.wait_for(lambda: two.of("started", node=two.b.name)[len(of(before, "started", two.b.name)) :], 90)
    done = driver.wait(240)
    assert done.code == 0, done.err
    two.check_whole(TRIALS)
    assert finished <= {each["row"] for each in two.of("finished")}
    lost = [lost_s(two.events(), row) for row in range(TRIALS)]
    assert max(lost) < LOST_S
    return {"first_report_s": first_s, "b_works_s": first_s + on_b_s, "work_lost_s": max(lost)}


def of(events, kind, node=None):
    return [each for each in events if each["event"] == kind and node in (None, each.get("node"))]


def test_as_head_killed_ends_the_driver_in_order_and_the_same_two_commands_go_on(two):
    driver = in_the_middle(two)
    killed, joins = time.monotonic(), two.joins(two.b)
    for server in rays_of_a(two, "gcs_server"):
        server.kill()
    ended = driver.wait(60)
    ended_s = time.monotonic() - killed
    assert ended.code == 6, ended.err
    assert len(ended.errors) == 1, ended.err
    assert ended_s < 10
    assert two.head is not None
    head = two.head.wait(30)
    assert head.code in (1, 6), head.err
    quiet_s = quiet_within(two.a, 10)
    before, code = two.events(), two.code
    up_s = two.up()
    assert two.code == code, "after an unclean end the code stays good"
    rejoined_s = two.rejoins(two.b, joins)
    went_on = go_on(two, before)
    record(
        "a's head killed", driver_ended_s=ended_s, a_quiet_s=quiet_s, up_s=up_s, b_rejoined_s=rejoined_s, **went_on
    )


def test_a_rebooted_goes_on_and_b_rejoins_by_itself(two):
    in_the_middle(two)
    joins = two.joins(two.b)
    two.a.reboot()
    before, code = two.events(), two.code
    up_s = two.up()
    assert two.code == code
    rejoined_s = two.rejoins(two.b, joins)
    record("a rebooted", up_s=up_s, b_rejoined_s=rejoined_s, **go_on(two, before))


def free_again_within(two, seconds):
    """Seconds until no trial runs on B or A."""
    return two.head.wait_for(lambda: two.trials_on(two.a) == two.trials_on(two.b) == [], seconds)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_without_its_driver_nothing_runs_on_and_b_is_free_within_ten_seconds(two, number, code):
    driver = in_the_middle(two)
    ended = driver.leave(number)
    assert ended.code == code, ended.err
    free_s = free_again_within(two, 10)
    before = two.events()
    record(f"driver ended by {signal.Signals(number).name}", free_s=free_s, **go_on(two, before))


def test_a_closed_terminal_is_as_ctrl_c(two):
    screen = two.tune_in_terminal(TRIALS, epochs=20)
    two.wait_for_row_on(two.b, screen)
    screen.close()
    assert screen.wait(30).code == 129
    free_s = free_again_within(two, 10)
    before = two.events()
    record("terminal closed", free_s=free_s, **go_on(two, before))


def test_a_comes_back_with_another_address(two):
    """Its head stays bound to the old one: `cluster up` says the new line, and B says what to type."""
    driver = in_the_middle(two)
    two.a.change_address("10.77.0.11")
    ended = driver.wait(120)
    assert ended.code in (0, 6), ended.err
    head = two.head
    assert head is not None
    said_s = head.wait_for(lambda: head.poll() is not None or "10.77.0.11" in head.out + head.err, 60)
    if head.poll() is None:
        assert two.run("down").code == 0
    before = two.events()
    up_s = two.up()
    assert "10.77.0.11" in two.head.out
    member = two.members[two.b.name]
    told_s = member.wait_until_said("seqpipe cluster join", 90)  # its head has to be silent for 75 s
    assert member.leave().code in (0, 130, 6)
    joined_s = two.join(two.b)
    record(
        "a has another address", head_said_s=said_s, up_s=up_s, b_told_s=told_s, joined_s=joined_s,
        **go_on(two, before),
    )  # fmt: skip


def test_a_search_over_the_cluster_goes_on_on_one_laptop_alone_and_the_other_way_round(two):
    driver = in_the_middle(two)
    assert driver.leave().code == 130
    here = len(two.events())
    alone = two.tune(TRIALS, "--local", epochs=20)
    alone.wait_for(lambda: len([each for each in two.events()[here:] if each["event"] == "report"]) >= 3, 90)
    assert alone.leave().code == 130
    assert {each["node"] for each in two.events()[here:] if each["event"] == "started"} == {two.a.name}
    before = two.events()
    record("a search moved to one laptop and back", **go_on(two, before))


def test_down_leaves_nothing_on_either_side(two):
    driver = in_the_middle(two)
    down = two.run("down")
    assert down.code == 0, down.err
    ended = driver.wait(30)
    assert ended.code in (4, 6, 130, 143), ended.err
    assert two.head is not None
    assert two.head.wait(20).code == 0
    a_s = quiet_within(two.a, 10)
    assert two.members[two.b.name].wait(30).code == 0
    b_s = quiet_within(two.b, 10)
    assert not two.code_file.exists(), "a code is good for one up"
    assert not list((two.a.work / ".seqpipe" / "cluster").glob("code"))
    two.check_sound()
    record("down in the middle of a search", down_s=down.seconds, a_quiet_s=a_s, b_quiet_s=b_s)


def test_the_status_never_prints_the_code(two):
    done = two.run("status", "--json")
    assert done.code == 0, done.err
    said = json.dumps(json.loads(done.out))
    assert two.code not in said
    assert two.code.replace("-", "") not in said
    for laptop in two.laptops.all:
        assert not any(two.code in line for line in laptop.lines()), "nor does ps"
