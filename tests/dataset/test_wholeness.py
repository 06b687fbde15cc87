import itertools

from hypothesis import given
from hypothesis import strategies as st

from runpod_comfy.dataset.manifest import TaskRecord
from runpod_comfy.dataset.wholeness import SampleNumbers, batches_in, missing_stretches


def test_the_last_batch_counts_though_it_makes_more_than_was_asked_for():
    assert [batches_in(samples, 2) for samples in (1, 2, 3, 4)] == [1, 1, 2, 2]


@given(st.sets(st.integers(0, 12)), st.integers(0, 10))
def test_stretches_hold_each_missing_batch_once_and_nothing_else(whole, count):
    stretches = list(missing_stretches(whole, count))
    assert [batch for stretch in stretches for batch in stretch] == [n for n in range(count) if n not in whole]
    assert all(later.start > earlier.stop for earlier, later in itertools.pairwise(stretches))


def record(*samples):
    return TaskRecord(index=0, images={sample: {"batch": batch} for sample, batch in samples})


def test_an_image_that_is_made_again_has_the_number_that_its_place_has_had():
    numbers = SampleNumbers(record((0, 0), (1, 0), (2, 1)), batch_size=2)
    assert [numbers.next_of(1), numbers.next_of(0), numbers.next_of(1), numbers.next_of(0)] == [2, 0, 3, 1]


@given(st.lists(st.integers(0, 3), max_size=20), st.dictionaries(st.integers(0, 9), st.integers(0, 3)))
def test_no_two_images_of_a_task_get_one_number(arrivals, there):
    numbers = SampleNumbers(record(*there.items()), batch_size=2)
    given_numbers = [(batch, numbers.next_of(batch)) for batch in arrivals]
    assert len({number for _, number in given_numbers}) == len(given_numbers)
    # What is there of another batch is never written over.
    assert all(there.get(number, batch) == batch for batch, number in given_numbers)
