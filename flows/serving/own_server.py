"""`python -m flows.serving.own_server PARENT PORT`: a Prefect server for the process PARENT alone, which it ends with.

It is what `prefect server start` runs, without that command: it answers after 2.5 s instead of 3.7 s (two quiet cores),
since the modules of Prefect's command line are not imported, and memory is not searched for garbage while others are. A
parent that is killed by SIGKILL can end nothing itself, so the server looks once a second whether it has another
parent by now.
"""

import gc
import os
import signal
import sys
import threading
import time


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def _serve(port: int) -> None:
    gc.disable()
    import uvicorn
    from prefect.server.api.server import create_app

    app = create_app(ephemeral=True)
    gc.freeze()
    gc.enable()
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error")


if __name__ == "__main__":
    threading.Thread(target=_end_with, args=(int(sys.argv[1]),), daemon=True).start()
    _serve(int(sys.argv[2]))
