"""What this costs and is worth, measured. Each module is a command: `python -m benchmarks.NAME --help`."""

import os

# numpy reads these once, and nothing has imported it yet: on matrices this small more threads cost twice the CPU
for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
