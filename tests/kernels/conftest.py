"""The folder `interpreted` is for processes of its own: see test_interpreted.py."""

from __future__ import annotations

import os

collect_ignore = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["interpreted"]
