"""What the scripts share.

Importing this (or `model` or `dataset`, which do it first) before torch lets torch's threads sleep while they wait.
By default they spin, and take the cores from NNPACK's threads, which are others: convolutions of both kinds alternate
in `model.fast`, and frames took 1.2 times as long. An OMP_WAIT_POLICY that is set already stays.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
