import json

from hypothesis import given
from hypothesis import strategies as st

from pipeline.workspace.fingerprints import canonical_json, fingerprint

plain = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
plain |= st.lists(plain, max_size=3) | st.dictionaries(st.text(max_size=5), plain, max_size=3)


@given(st.dictionaries(st.text(max_size=5), plain, min_size=2, max_size=5))
def test_the_order_of_keys_does_not_change_a_fingerprint(reads):
    turned = dict(reversed(reads.items()))
    assert fingerprint("train", 1, reads, {}) == fingerprint("train", 1, turned, {})
    assert json.loads(canonical_json(turned)) == reads


def test_a_fingerprint_depends_on_each_of_its_parts():
    prints = {
        fingerprint("train", 1, {"seed": 0}, {"prepare": "a"}),
        fingerprint("evaluate", 1, {"seed": 0}, {"prepare": "a"}),
        fingerprint("train", 2, {"seed": 0}, {"prepare": "a"}),
        fingerprint("train", 1, {"seed": 1}, {"prepare": "a"}),
        fingerprint("train", 1, {"seed": 0}, {"prepare": "b"}),
    }
    assert len(prints) == 5
    assert all(len(one) == 16 for one in prints)
