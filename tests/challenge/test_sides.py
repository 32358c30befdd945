from parking.challenge.sides import find_leaks

NAME = "20201102_경기도_-_-_맑음_주간_실외_right_{:06d}_{:07d}.png"


def test_neighbours_on_the_other_side():
    # Frames 0, 30, 95 and 200 of sequence 1 are for training, the rest of it and all of sequence 2 for validation.
    frames = [(1, 0), (1, 30), (1, 61), (1, 95), (1, 125), (1, 200), (1, 300), (2, 31), (2, 32)]
    names = [*(NAME.format(*frame) for frame in frames), "else.png"]
    # 95 and 125 are 30 apart; 30 and 61 are 31 apart.
    assert find_leaks(names, [0, 0, 1, 0, 1, 0, 1, 1, 1, 0]) == [3, 4]
    assert find_leaks(names, [0] * 10) == []


def test_a_frame_of_the_own_side_in_between_hides_nothing():
    names = [NAME.format(1, 10 * i) for i in range(5)]
    assert find_leaks(names, [0, 0, 0, 0, 1]) == [1, 2, 3, 4]
    assert find_leaks(names[::-1], [1, 0, 0, 0, 0]) == [0, 1, 2, 3]
    assert find_leaks(names, [0, 1, 1, 1, 2]) == [0, 1, 2, 3, 4]
