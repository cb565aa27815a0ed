from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest
import typer

import mope
from mope import cli
from mope.errors import BundleError, MopeError, TrainingError


def run(argv: Sequence[str]) -> int:
    """Exit code of the command line, as a shell would see it."""
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    assert isinstance(caught.value.code, int)
    return caught.value.code


def app_that_raises(error: BaseException) -> typer.Typer:
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    def fail() -> None:
        raise error

    return app


def test_help_lists_every_command_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    out = capsys.readouterr().out
    listed = {words[0]: words[1:] for line in out.splitlines() if (words := line.split())}
    for name in cli.COMMANDS:
        assert listed.get(name), f"{name} has no line of help"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_commands_help_ends_with_an_example_of_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    last = capsys.readouterr().out.rstrip().splitlines()[-1]
    assert last.strip() == cli.COMMANDS[name]
    assert last.split()[:2] == ["mope", name]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"mope {mope.__version__}\n"


@pytest.mark.parametrize("argv", [["nonsense"], ["--nonsense"], ["predict", "--nonsense"], []])
def test_wrong_usage_exits_2_and_leaves_stdout_alone(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(argv) == 2
    captured = capsys.readouterr()
    assert "Usage: mope" in captured.out + captured.err
    assert not argv or not captured.out


@pytest.mark.parametrize(
    ("error", "code"),
    [(BundleError("a folder", "a bundle", "train one"), 2), (TrainingError("loss is NaN"), 1)],
)
def test_our_errors_become_one_line_on_stderr(
    error: MopeError, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "build_app", lambda: app_that_raises(error))
    assert run([]) == code
    captured = capsys.readouterr()
    assert captured.err == f"error: {error}\n"
    assert not captured.out


def test_a_message_with_brackets_is_printed_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    message = "install with: pip install 'mope-llm[train]'; " + "x" * 300
    monkeypatch.setattr(cli, "build_app", lambda: app_that_raises(MopeError(message)))
    run([])
    assert message in capsys.readouterr().err


def test_an_interrupt_exits_130(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "build_app", lambda: app_that_raises(KeyboardInterrupt()))
    assert run([]) == 130


def test_a_bug_is_not_dressed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "build_app", lambda: app_that_raises(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        cli.main([])


def test_python_m_mope_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mope", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"mope {mope.__version__}\n"
