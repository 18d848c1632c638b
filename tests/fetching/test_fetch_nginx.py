"""Fetch against a real nginx that serves a file of the published size."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx (apt-get install nginx)")
def test_full_size(tmp_path):
    if shutil.disk_usage(tmp_path).free < 3e9:
        pytest.skip("needs 3 GB of disk")
    command = [sys.executable, "-m", "scripts.show_fetch", "--ranges", "--json"]
    run = subprocess.run(
        command, cwd=ROOT, env={"TMPDIR": str(tmp_path), "PATH": "/usr/sbin:/usr/bin:/bin"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    figures = json.loads(run.stdout.splitlines()[-1])
    assert figures["file_bytes"] > 15e9
    assert figures["identical"]
    assert figures["ranges"]["bytes"] <= 465e6
    assert figures["ranges"]["requests"] <= 30
    assert figures["ranges"]["peak_memory_bytes"] <= 200e6
