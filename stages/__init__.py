"""The stages of dvc.yaml: `python -m stages.<name>`."""

import sys
from importlib.util import find_spec

# before a stage imports its work: DVC runs whatever `python` comes first on the PATH
if lacking := [name for name in ("torch", "pyro", "h5py", "psutil") if find_spec(name) is None]:
    sys.exit(
        f"{sys.executable} lacks {', '.join(lacking)}. Run `source .venv/bin/activate` first, or "
        "`pip install -r requirements.txt` into this Python."
    )
