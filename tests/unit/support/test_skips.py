"""What is skipped is judged: only what the committed list names may be."""

from types import SimpleNamespace

import pytest

from support.skips import ALLOWED, SkipGuard, read_allowed

LISTED = "tests/e2e/test_gpu.py::test_fast[fp8] # no GPU\n"


def skip(guard: SkipGuard, nodeid: str, reason: str = "no GPU: none is lent") -> None:
    guard.pytest_runtest_logreport(
        pytest.TestReport(
            nodeid=nodeid,
            location=("", 0, ""),
            keywords={},
            outcome="skipped",
            longrepr=("test_gpu.py", 1, f"Skipped: {reason}"),
            when="setup",
        )
    )


class Ended:
    """As much of a pytest session as the guard looks at."""

    exitstatus: int = pytest.ExitCode.OK
    config = SimpleNamespace()


def status_after(guard: SkipGuard) -> int:
    session = Ended()
    guard.pytest_sessionfinish(session)  # type: ignore[arg-type]
    return session.exitstatus


def test_a_skip_that_the_list_does_not_name_fails_the_run() -> None:
    guard = SkipGuard(read_allowed(LISTED), fail=True)
    skip(guard, "tests/e2e/test_gpu.py::test_fast[fp8]")
    assert status_after(guard) == pytest.ExitCode.OK
    skip(guard, "tests/e2e/test_gpu.py::test_fast[fp8-large]")
    assert guard.unexpected() == ["tests/e2e/test_gpu.py::test_fast[fp8-large]"]
    assert status_after(guard) == pytest.ExitCode.TESTS_FAILED


def test_a_skip_for_another_reason_than_the_listed_one_fails_the_run() -> None:
    guard = SkipGuard(read_allowed(LISTED), fail=True)
    skip(guard, "tests/e2e/test_gpu.py::test_fast[fp8]", reason="out of order")
    assert status_after(guard) == pytest.ExitCode.TESTS_FAILED


def test_what_a_worker_process_noted_is_judged_by_its_controller() -> None:
    worker, controller = SkipGuard({}, fail=True), SkipGuard({}, fail=True)
    skip(worker, "tests/e2e/test_gpu.py")
    ended = Ended()
    ended.config = SimpleNamespace(workeroutput={})
    worker.pytest_sessionfinish(ended)  # type: ignore[arg-type]
    assert ended.exitstatus == pytest.ExitCode.OK
    controller.pytest_testnodedown(ended.config)
    assert status_after(controller) == pytest.ExitCode.TESTS_FAILED


def test_where_nobody_insists_a_skip_is_only_listed() -> None:
    guard = SkipGuard({}, fail=False)
    skip(guard, "tests/e2e/test_gpu.py::test_slow")
    assert guard.unexpected()
    assert status_after(guard) == pytest.ExitCode.OK


def test_every_line_of_the_list_gives_its_reason() -> None:
    assert read_allowed(f"# a comment\n\n{LISTED}") == {
        "tests/e2e/test_gpu.py::test_fast[fp8]": "no GPU"
    }
    for wrong in ("tests/e2e/test_gpu.py", "tests/e2e/test_gpu.py # "):
        with pytest.raises(ValueError, match="no reason"):
            read_allowed(wrong)
    read_allowed(ALLOWED.read_text("utf-8"))
