from parking.utils.errors import UserError


def test_a_message_is_one_line_of_bounded_length():
    assert str(UserError("'a\nb' is missing.")) == "'a\\nb' is missing."
    text = str(UserError("config key " + "x" * 10**6 + " is unknown."))
    assert len(text) < 5000 and text.startswith("config key xx") and text.endswith("xx is unknown.")


def test_the_message_of_a_data_worker_is_its_last_line():
    raised = UserError(
        "Caught UserError in DataLoader worker process 0.\nOriginal Traceback:\n a.UserError: Too bad.\n"
    )
    assert str(raised) == "Too bad."
