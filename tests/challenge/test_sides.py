from parking.challenge.sides import find_leaks

NAME = "20201102_경기도_-_-_맑음_주간_실외_right_{:06d}_{:07d}.png"


def test_neighbours_on_the_other_side():
    # Frames 0, 30, 95 and 200 of sequence 1 are for training, the rest of it and all of sequence 2 for validation.
    frames = [(1, 0), (1, 30), (1, 61), (1, 95), (1, 125), (1, 200), (1, 300), (2, 31), (2, 32)]
    names = {i: NAME.format(*frame) for i, frame in enumerate(frames)}
    names[9] = "else.png"
    val_ids = {2, 4, 6, 7, 8}
    # 95 and 125 are 30 apart; 30 and 61 are 31 apart.
    assert find_leaks(names, val_ids) == [3, 4]
    assert find_leaks(names, val_ids, num_frames=31) == [1, 2, 3, 4]
    assert find_leaks(names, set()) == []


def test_a_frame_of_the_own_side_in_between_hides_nothing():
    names = {i: NAME.format(1, 10 * i) for i in range(4)}
    assert find_leaks(names, {3}) == [0, 1, 2, 3]
    assert find_leaks(dict(reversed(names.items())), {3}, num_frames=20) == [3, 2, 1]
