import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuning.cluster.join_code import LETTERS, JoinCode, short_hash
from tuning.errors import ClusterError

CODE = JoinCode("0123456789ABCDEFGHJKM", "PQRST")


def test_a_code_is_six_groups_of_five_and_is_read_back():
    assert re.fullmatch(rf"([{LETTERS}]{{5}}-){{5}}[{LETTERS}]{{5}}", str(CODE))
    assert JoinCode.parse(str(CODE)) == CODE


@pytest.mark.parametrize("write", [str.lower, lambda code: code.replace("-", " "), lambda code: f" {code}\n"])
def test_case_spaces_and_dashes_do_not_matter(write):
    assert JoinCode.parse(write(str(CODE))) == CODE


def test_letters_that_look_alike_are_read_as_the_code_s_own():
    assert JoinCode.parse(str(CODE).replace("0", "o").replace("1", "l")) == CODE
    assert JoinCode.parse(str(CODE).replace("0", "O").replace("1", "I")) == CODE


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no join code was given"),
        (" - ", "no join code was given"),
        ("hello!", "is no join code"),
        ("UUUUU", "is no join code"),
        ("ABCDE-FGHJK", "too short: it has 30 letters and digits, not 10"),
        (f"{CODE}-AAAAA", "too long"),
    ],
)
def test_what_is_no_code_is_told_in_one_line(text, said):
    with pytest.raises(ClusterError, match=said) as raised:
        JoinCode.parse(text)
    assert "\n" not in str(raised.value)


@given(st.integers(0, 29), st.sampled_from(LETTERS))
def test_one_wrong_letter_is_noticed(place, letter):
    typed = str(CODE).replace("-", "")
    wrong = typed[:place] + letter + typed[place + 1 :]
    if wrong != typed:
        with pytest.raises(ClusterError, match="mistyped"):
            JoinCode.parse(wrong)


@given(st.integers(0, 28))
def test_two_letters_in_the_wrong_order_are_noticed(place):
    typed = str(CODE).replace("-", "")
    with pytest.raises(ClusterError, match="mistyped"):
        JoinCode.parse(typed[:place] + typed[place + 1] + typed[place] + typed[place + 2 :])


def test_every_code_has_a_secret_and_a_token_of_its_own():
    codes = [JoinCode.new("PQRST") for _ in range(50)]
    assert len({code.token for code in codes}) == len({code.secret for code in codes}) == 50
    assert {code.digest for code in codes} == {"PQRST"}
    assert all(JoinCode.parse(str(code)) == code for code in codes)
    assert len(codes[0].secret) * 5 >= 100, "bits"


def test_neither_the_secret_nor_the_token_is_in_what_a_program_prints_of_it():
    assert CODE.secret not in repr(CODE)
    assert CODE.secret not in CODE.token
    assert CODE.token == JoinCode(CODE.secret, "00000").token, "it is the secret's alone"


def test_a_short_hash_is_of_the_code_s_letters_and_changes_with_the_text():
    hashes = {short_hash(str(number), 5) for number in range(200)}
    assert len(hashes) == 200
    assert set("".join(hashes)) == set(LETTERS)
