from measuring.timing import Times, interleaved, speedup


def test_ways_are_taken_in_turn_and_warmed_up_first() -> None:
    calls: list[str] = []
    times = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3, warm_up=1)

    assert calls == ["a", "b"] * 4
    assert [len(taken.seconds) for taken in times.values()] == [3, 3]


def test_a_speedup_is_the_ratio_of_the_medians_with_the_quartiles_of_the_rounds() -> None:
    found = speedup(Times((2.0, 4.0, 9.0)), Times((1.0, 2.0, 3.0)))

    assert found == {"speedup": 2.0, "speedup_quartile_1": 2.0, "speedup_quartile_3": 2.5}
