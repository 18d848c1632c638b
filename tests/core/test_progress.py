"""Progress whose reader has gone stops no work."""

import subprocess
import sys

from tests.clone import ROOT

WORK = """
import multiprocessing, sys
from pathlib import Path
from pmmo.core.progress import Monitor, Progress
with Monitor("row", 1) as monitor:
    monitor.epoch(0, 0.5)
with Progress("movies", 1):
    pass
child = multiprocessing.get_context("fork").Process(target=int)  # flushes both streams first
child.start()
child.join()
Path("done").touch()
"""


def test_work_goes_on_and_may_fork(tmp_path):
    (tmp_path / "work.py").write_text(WORK)
    line = f"set -o pipefail; (sleep 0.2; exec {sys.executable} work.py) 2>&1 | true"
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, check=False
    )
    assert (done.returncode, (tmp_path / "done").exists()) == (0, True)
