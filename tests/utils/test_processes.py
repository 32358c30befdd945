import pytest

from parking.utils.processes import run_in_processes


def invert(number):
    return 1 / number


@pytest.mark.parametrize(("num_workers", "chunk_size"), [(1, 1), (2, 1), (2, 3)])
def test_results_are_in_order_and_errors_come_through(num_workers, chunk_size):
    done = []
    how = {"num_workers": num_workers, "chunk_size": chunk_size}
    assert run_in_processes(invert, [1, 2, 4, 8], **how, done=done.append) == [1, 0.5, 0.25, 0.125]
    assert done == [1, 2, 4, 8]
    assert run_in_processes(invert, [], **how) == []
    with pytest.raises(ZeroDivisionError):
        run_in_processes(invert, [1, 2, 0, 4], **how)
