"""Whether a release was signed by a key that this board trusts. Keys and signatures are OpenSSH's; ssh-keygen verifies.

/etc/edgeprune/allowed_signers    the administrator's; where it is there, it alone counts
releases/allowed_signers          what `edgeprune devices trust-key` writes; neither file: every release is taken

The second lies beside the releases, and not in a home: run.py must find it whoever runs it, in whatever environment.
A line: edgeprune namespaces="edgeprune-release" ssh-ed25519 KEY NAME    (ssh-keygen(1), ALLOWED SIGNERS)
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from edgeprune_agent.errors import AgentError

SYSTEM, OWN = Path("/etc/edgeprune/allowed_signers"), "allowed_signers"
KEYGEN = "ssh-keygen"
IDENTITY, NAMESPACE = "edgeprune", "edgeprune-release"
VERIFY_S = 30


def find_signers(folder: Path) -> Path | None:
    """The file that says whose releases are taken; one that is there counts, be it a broken link or without any key."""
    return next((path for path in (SYSTEM, folder / OWN) if path.is_symlink() or path.exists()), None)


def check_signature(content: bytes, signature: bytes, signers: Path) -> None:
    """Require that `content` was signed by a key of the file `signers`.

    Raises:
        AgentError: it was not, or that cannot be verified here.
    """
    if not signature:
        raise AgentError("signature", f"is not signed; this board takes what is signed by a key of {signers}")
    with tempfile.NamedTemporaryFile() as file:
        file.write(signature)
        file.flush()
        command = [KEYGEN, "-Y", "verify", "-f", str(signers), "-I", IDENTITY, "-n", NAMESPACE, "-s", file.name]
        try:
            process = subprocess.run(command, input=content, capture_output=True, timeout=VERIFY_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise AgentError(
                "signature", f"its signature cannot be verified here: {exc}; install OpenSSH's {KEYGEN}, 8.1 or newer"
            ) from exc
    if process.returncode != 0:
        lines = process.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {process.returncode}"]
        raise AgentError("signature", f"is not signed by a key of {signers}: {lines[0][:200]}")
