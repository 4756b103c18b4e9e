import subprocess
import sys

import pytest


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from edgeprune.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'scipy', 'paramiko', 'litert_torch'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [["deploi"], ["deploy", "--speedup", "0.5"], ["deploy", "--run"], ["gate"]])
def test_wrong_call_is_exit_code_2(words: list[str]) -> None:
    call = [sys.executable, "-m", "edgeprune.cli", *words]
    done = subprocess.run(call, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "Error" in done.stderr
