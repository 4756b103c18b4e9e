"""Foreign calls stay quiet and raise our errors; files are written whole or not at all."""

from __future__ import annotations

import logging
import os
import resource
import subprocess
import sys
import threading
import warnings
from contextlib import AbstractContextManager
from pathlib import Path

import click
import pytest

from edgeprune.errors import ExportError, ParityError
from edgeprune.exporting.files import sha256_of, write_file
from edgeprune.exporting.foreign import foreign, quiet


def test_everything_is_silent_inside_and_audible_after(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet():
        print("python")
        os.write(2, b"native\n")
        logging.getLogger("anything").critical("logged")
        warnings.warn("would be an error in this test run", stacklevel=1)
    print("after")
    os.write(2, b"native after\n")
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("after\n", "native after\n")
    with pytest.warns(UserWarning, match="audible"):
        warnings.warn("audible", stacklevel=1)


def test_a_log_handler_installed_inside_does_not_survive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    with quiet():
        logging.warning("installs a handler on the muted stream")
    assert logging.root.handlers == []
    assert logging.getLogger("anything").isEnabledFor(logging.CRITICAL)


def test_streams_come_back_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ExportError, match=r"model\.onnx: converting: ValueError: bad thing"), _converting():
        raise ValueError("bad\n  thing")
    print("audible")
    assert capfd.readouterr().out == "audible\n"


@pytest.mark.parametrize(
    ("text", "operator"),
    [
        ("No ONNX function found for <OpOverload(op='prims.prod', overload='default')>. Failure", "prims.prod"),
        ("Lowering not found: aten.erfinv.default\n\nWhile executing", "aten.erfinv.default"),
        ("error: failed to legalize operation 'stablehlo.fft' that was", "stablehlo.fft"),
        ("Didn't find op for builtin opcode 'STABLEHLO_SORT' version '1'.", "STABLEHLO_SORT"),
    ],
)
def test_the_operator_is_named_wherever_in_the_chain_it_stands(text: str, operator: str) -> None:
    with pytest.raises(ExportError, match=f"operator {operator} is not supported"), _converting():
        raise RuntimeError("step 3/3 failed") from ValueError(text)


def test_our_own_errors_pass_unchanged() -> None:
    with pytest.raises(ParityError, match=r"^link broken$"), _converting():
        raise ParityError("link broken")


def test_a_full_disk_is_named_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write_file(path, b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        with pytest.raises(ExportError, match=r"model\.onnx: cannot write 2,000,000 bytes"):
            write_file(path, bytes(2_000_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_a_file_is_an_export_error(tmp_path: Path) -> None:
    (tmp_path / "artifacts").write_text("in the way")
    with pytest.raises(ExportError, match="cannot write"):
        write_file(tmp_path / "artifacts" / "model.onnx", b"")
    with pytest.raises(ExportError, match="cannot read"):
        sha256_of(tmp_path / "missing.onnx")


def _converting() -> AbstractContextManager[None]:
    return foreign("converting", Path("model.onnx"))


def test_threads_that_are_quiet_together_leave_everything_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    """As when four boards arrive at once: each saves what it finds, in an order in which the last finds it muted."""
    inside, leave = threading.Barrier(5), [threading.Event() for _ in range(4)]
    filters, handlers = list(warnings.filters), list(logging.root.handlers)

    def convert(at: int) -> None:
        with quiet():
            print("python")
            os.write(1, b"native\n")
            inside.wait(20)
            leave[at].wait(20)
            click.echo("python still", err=True)

    threads = [threading.Thread(target=convert, args=(at,)) for at in range(4)]
    for thread in threads:
        thread.start()
    inside.wait(20)
    click.echo("another thread is heard", err=True)
    for at in (2, 0, 3, 1):  # not the order in which they came
        leave[at].set()
        threads[at].join()
    print("after")
    os.write(2, b"native after\n")
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("after\n", "another thread is heard\nnative after\n")
    assert (list(warnings.filters), list(logging.root.handlers)) == (filters, handlers)
    assert logging.getLogger("anything").isEnabledFor(logging.CRITICAL)


def test_quiet_within_quiet_stays_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet():
        with quiet():
            print("inner")
        print("outer")
        os.write(1, b"native\n")
    print("after")
    assert capfd.readouterr().out == "after\n"


def test_a_process_without_standard_error_is_quiet_too() -> None:
    code = (
        "import os, sys; os.close(2); sys.stderr = None\n"
        "from edgeprune.exporting.foreign import quiet\n"
        "with quiet(): print('no')\n"
        "print('yes')"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    assert done.stdout == b"yes\n"
