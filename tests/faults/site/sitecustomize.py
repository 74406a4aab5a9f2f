"""Arms a fault in a process of the job under test: Python imports this module at start, from PYTHONPATH.

The job is the real command, and its worker processes are reached too. See `fault_points` for what can be armed.
"""

import os
import sys

if "FINECLIP_FAULT" in os.environ:
    sys.path.append(os.environ["FINECLIP_FAULT_MODULES"])
    import fault_points

    fault_points.arm(os.environ["FINECLIP_FAULT"])
