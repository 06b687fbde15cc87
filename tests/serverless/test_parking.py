from contextlib import ExitStack

from runpod_comfy.serverless.parking import Parking


def held(places):
    return [place.held.is_set() for place in places]


def test_places_go_to_jobs_in_their_order_and_are_kept_until_the_end():
    parking = Parking(2)
    with ExitStack() as stack:
        first, second, third, fourth = places = [parking.place() for _ in range(4)]
        for place in places[1:]:
            stack.enter_context(place)
        assert held(places) == [False, True, True, False]
        with first:
            assert held(places) == [False, True, True, False]
    assert held(places) == [False] * 4
    assert (second, third, fourth) == tuple(places[1:])


def test_a_place_that_is_left_goes_to_the_next():
    parking = Parking(1)
    a, b, c = (parking.place() for _ in range(3))
    a.__enter__()
    b.__enter__()
    c.__enter__()
    b.__exit__()
    a.__exit__()
    assert held([a, b, c]) == [False, False, True]


def test_a_refusal_leaves_fewer_places_and_answers_bring_them_back():
    parking = Parking(40)
    places = [parking.place() for _ in range(41)]
    for place in places:
        place.__enter__()
    assert sum(held(places)) == 40
    places[7].refused()
    assert sum(held(places)) == 39
    for place in places[:14]:
        place.__exit__()
    late = [parking.place() for _ in range(6)]
    for place in late:
        place.__enter__()
    assert sum(held(places[14:] + late)) == 30  # three quarters of what there were
    places[20].answered()
    assert sum(held(places[14:] + late)) == 31
