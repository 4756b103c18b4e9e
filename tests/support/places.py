"""Where things lie in the repository."""

from __future__ import annotations

from pathlib import Path

SUPPORT = Path(__file__).parent
ROOT = SUPPORT.parent.parent
DEPLOY = ROOT / "deploy"
AGENT = DEPLOY / "agent"
RECORDS = SUPPORT / "device_records"
RECIPES = SUPPORT / "recipes"
