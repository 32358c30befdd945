from parking.challenge.leaks import compare_splits, find_leaks

NAME = "20201102_경기도_-_-_맑음_주간_실외_right_{:06d}_{:07d}.png"


def test_neighbours_on_the_other_side():
    # Of sequence 1: training 0, 30, 95 and 200, validation 61, 125 and 300; sequence 2: validation only.
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


def test_splits_are_compared():
    names = {i: NAME.format(i // 50, i % 50) for i in range(4000)}
    counts = {i: {0: 1, 1: i % 2} for i in names}
    sequence, entry, everything = compare_splits(names, counts, val_fraction=0.1)
    assert [s.split for s in (sequence, entry, everything)] == ["sequence", "entry", "all"]
    assert (sequence.num_images, sequence.leaking) == ((3600, 400), [])
    assert sequence.num_boxes == {0: (3600, 400), 1: (1800, 200)}
    assert entry.num_images == (1000, 3000)
    # Drawn at random from sequences of 50 frames: next to none has all of its 30 neighbours on its own side.
    assert len(entry.leaking) > 3900
    assert (everything.num_images, everything.leaking) == ((4000, 0), [])


def test_an_impossible_split_says_why():
    names = {i: NAME.format(1, i) for i in range(9)}
    sequence, entry, everything = compare_splits(names, {})
    assert "one sequence" in sequence.note
    assert "3000 images" in entry.note
    assert (everything.num_images, everything.note) == ((9, 0), "")
