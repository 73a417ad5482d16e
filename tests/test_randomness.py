"""Random numbers: each address has its own, whoever asks and whenever, today and in the next version."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convlstm.randomness import generator

words = st.integers(0, 2**64 - 1)
# Words that a detour through float64 would make alike, and words at the ends.
near_words = st.integers(0, 3).flatmap(lambda low: st.sampled_from([low, 2**53 + low, 2**63 + low, 2**64 - 1 - low]))
addresses = st.tuples(near_words, st.sampled_from(["a", "b", "parameter/W_h", ""]), near_words, near_words)


# Of an address the first two numbers, (word >> 11)·2⁻⁵³ of Philox 4×64-10's first block.  A second program computed
# them, in plain integers from the paper's definition.
KNOWN = {
    (0, "parameter/W_x", 0, 0): ("0x1.3fbd99abffb22p-2", "0x1.3712e05e96c4cp-2"),
    (1, "parameter/W_h", 0, 0): ("0x1.92714c090bea6p-1", "0x1.97cbdc65d6606p-1"),  # a key with the highest bit set
    (2**64 - 1, "digits/train", 2**64 - 1, 7): ("0x1.dbcb4ededc64cp-3", "0x1.037ef27744880p-3"),
}


@pytest.mark.parametrize(("address", "numbers"), KNOWN.items())
def test_the_numbers_are_these(address: tuple[int, str, int, int], numbers: tuple[str, str]) -> None:
    """They decide initial weights and data: if they change, so does every recorded result."""
    assert tuple(float(x).hex() for x in generator(*address).random(2)) == numbers


@settings(deadline=None)
@given(words, st.text(), words, words)
def test_an_address_always_gives_the_same_numbers(seed: int, purpose: str, sample: int, step: int) -> None:
    one, other = (generator(seed, purpose, sample, step) for _ in range(2))
    one.random(100)  # drawing from one moves no other
    np.testing.assert_array_equal(other.random(3), generator(seed, purpose, sample, step).random(3), strict=True)


@settings(deadline=None)
@given(st.lists(addresses, min_size=2, max_size=6, unique=True))
def test_different_addresses_give_different_numbers(some: list[tuple[int, str, int, int]]) -> None:
    assert len({generator(*address).bytes(16) for address in some}) == len(some)


@settings(deadline=None)
@given(st.permutations(range(6)))
def test_the_order_of_draws_does_not_matter(order: list[int]) -> None:
    in_turn = [generator(3, "order", sample=i).random() for i in range(6)]
    assert {i: generator(3, "order", sample=i).random() for i in order} == dict(enumerate(in_turn))


def test_threads_do_not_matter() -> None:
    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(lambda i: generator(3, "order", sample=i).random(), range(50)))
    assert drawn == [generator(3, "order", sample=i).random() for i in range(50)]


def test_streams_of_neighbours_do_not_overlap() -> None:
    """Samples and steps stand in the counter: a neighbour's stream must not be this one's, some blocks further on."""
    long = generator(0, "overlap").random(10_000)
    for neighbour in (generator(0, "overlap", sample=1), generator(0, "overlap", step=1)):
        assert not np.isin(neighbour.random(1000), long).any()


def test_numpys_global_generator_is_left_alone() -> None:
    before: Any = np.random.get_state()
    generator(0, "global").random(10)
    after: Any = np.random.get_state()
    assert before[2:] == after[2:]
    np.testing.assert_array_equal(before[1], after[1])


def test_numpy_integers_are_integers() -> None:
    assert generator(0, "n", sample=np.int64(5)).random() == generator(0, "n", sample=5).random()  # type: ignore[arg-type]


@pytest.mark.parametrize("word", ["seed", "sample", "step"])
@pytest.mark.parametrize("value", [-1, 2**64, 1.5, "1", None])
def test_a_word_outside_its_range(word: str, value: Any) -> None:
    given_: dict[str, Any] = {"seed": 0, "purpose": "range", **{word: value}}
    with pytest.raises(ValueError, match=rf"^{word} must lie in 0 … 2\*\*64 - 1 and be an integer; got {value!r}$"):
        generator(**given_)
