"""`python -m flows.serving.parent_watch PARENT MODULE ARGUMENTS...`: a module that ends with the process PARENT.

It runs as `python -m MODULE ARGUMENTS...` would. A parent that is killed by SIGKILL can end nothing itself, so its
child looks once a second whether it has another parent by now.
"""

import os
import runpy
import signal
import sys
import threading
import time


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with, args=(int(sys.argv[1]),), daemon=True).start()
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
