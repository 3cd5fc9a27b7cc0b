import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.text import LONGEST_CAUSE, cause_of, words

FAILED_TO_START = """\
The deployment failed to start 3 times in a row. This may be due to a problem with its constructor or \
initial health check failing. See controller logs for details. Error:
\x1b[36mray::ServeReplica:a:Model.initialize_and_get_metadata()\x1b[39m (pid=1, ip=10.0.0.1, actor_id=2)
  File "concurrent/futures/_base.py", line 449, in result
    return self.__get_result()
           ^^^^^^^^^^^^^^^^^^^
  File "ray/serve/_private/replica.py", line 1200, in initialize
    raise RuntimeError(traceback.format_exc()) from None
RuntimeError: Traceback (most recent call last):
  File "serve_app/deployment.py", line 38, in __init__
    folder = await asyncio.to_thread(fetch, args.uri, args.revision)
  File "serve_app/loading/sources.py", line 41, in fetch
    raise SourceError(f"{uri}: there is no folder {folder}")
serve_app.loading.sources.SourceError: file:///nope: there is no folder /nope
"""

WAITS_FOR_A_PLACE = (
    "Deployment 'Model' in application 'a' has 1 replicas that have taken more than 30s to be scheduled. "
    "This may be due to waiting for the cluster to auto-scale or for a runtime environment to be installed. "
    'Resources required for each replica: {"CPU": 1.0, "GPU": 1.0, "memory": 2147483648.0}, '
    'total resources available: {"CPU": 2.0}. Use `ray status` for more details.'
)

LOADS_SLOWLY = (
    "Deployment 'Model' in application 'a' has 1 replicas that have taken more than 30s to initialize.\n"
    "This may be caused by a slow __init__ or reconfigure method."
)

CHAINED = """\
Traceback (most recent call last):
ValueError: the first

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
torch.cuda.OutOfMemoryError: CUDA out of memory.
"""


def test_our_own_sentence_stands_alone():
    assert cause_of(FAILED_TO_START) == "file:///nope: there is no folder /nope"


@pytest.mark.parametrize("name", ["SourceError", "ModelLoadError", "ModelFailedError", "StuckModelError"])
def test_a_self_explaining_error_loses_its_name(name):
    assert (
        cause_of(f"Traceback\nserve_app.anywhere.{name}: the sentence: all of it")
        == "the sentence: all of it"
    )


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("ValueError: bad", "ValueError: bad"),
        ("builtins.MemoryError: none left", "MemoryError: none left"),
        ("  package.module.CustomException: bad", "CustomException: bad"),
        ("SystemExit: 1", "SystemExit: 1"),
    ],
)
def test_another_error_keeps_its_name_without_the_module(line, cause):
    assert cause_of(f"Error:\n{line}\n") == cause


def test_the_last_of_several_errors_is_the_cause():
    assert cause_of(CHAINED) == "OutOfMemoryError: CUDA out of memory."


def test_lines_after_the_error_do_not_hide_it():
    assert cause_of("ValueError: bad\nSome advice by a library.") == "ValueError: bad"


def test_a_model_without_a_place_says_what_it_asks_for():
    cause = cause_of(WAITS_FOR_A_PLACE)
    assert '"GPU": 1.0' in cause
    assert "to be scheduled" in cause


def test_a_model_that_loads_slowly_says_so():
    assert "initialize" in cause_of(LOADS_SLOWLY)


def test_an_error_without_a_sentence_is_named():
    assert (
        cause_of("Error:\nTraceback (most recent call last):\n  assert False\nAssertionError\n")
        == "AssertionError"
    )


def test_a_message_of_one_line_is_its_own_cause():
    assert cause_of("  the only line  \n\n") == "the only line"


@pytest.mark.parametrize("message", ["", "\n", "  \n\t\n"])
def test_no_message_is_no_cause(message):
    assert cause_of(message) == ""


@given(st.text(max_size=1000))
def test_a_cause_is_one_line_of_bounded_length(message):
    cause = cause_of(message)
    assert len(cause) <= LONGEST_CAUSE
    assert len(cause.splitlines()) <= 1


def test_a_long_cause_ends_with_a_mark():
    assert cause_of("ValueError: " + "x" * 1000).endswith("x…")


def test_the_words_of_an_error_are_bounded_too():
    assert words(ValueError("no\n such thing")) == "ValueError: no such thing"
    assert words(RuntimeError("x" * 10_000)) == f"RuntimeError: {'x' * (LONGEST_CAUSE - 15)}…"


def test_the_words_of_an_error_in_a_compiled_function_are_its_last_line():
    message = (
        "The following operation failed in the TorchScript interpreter.\n"
        "Traceback of TorchScript (most recent call last):\n"
        '  File "attention.py", line 235, in _attend\n'
        "    own = cache.narrow(0, 5, 3)\n"
        "          ~~~~~~~~~~~~ <--- HERE\n"
        "RuntimeError: start (5) + length (3) exceeds dimension size (2).\n"
    )
    assert words(RuntimeError(message)) == "RuntimeError: start (5) + length (3) exceeds dimension size (2)."
