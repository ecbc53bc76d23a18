"""The `heed` command, imported once and forked for each call: real processes that can be killed, without their imports.

Belongs here: the program that waits. Does not belong here: faults.

A line of standard input is one order: {"arguments", "environment", "output", "file_limit"} begins a command in a
process group of its own and answers with its pid; {"wait": pid} answers with its exit status, negative for a signal.
"""

import atexit
import json
import os
import resource
import sys
import threading


def main() -> None:
    import lightgbm  # noqa: F401

    import dagster_project.definitions  # noqa: F401
    from dagster_project import cli
    from dagster_project.resources.expectations.validation import load_suite

    load_suite("alert_outcomes")
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            _, status = os.waitpid(order["wait"], 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        pid = os.fork()
        if pid:
            print(pid, flush=True)
            continue
        os.setsid()
        output = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for stream, file in ((0, nothing), (1, output), (2, output)):
            os.dup2(file, stream)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115  (it stays open)
        os.environ.clear()
        os.environ.update(order["environment"])
        if order.get("file_limit"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_limit"],) * 2)
        sys.argv = ["heed", *order["arguments"]]
        try:
            cli.main(prog_name="heed")
        except SystemExit as ended:
            # What a process does at its end, but for the destructors of C++: libraries that had threads in the parent
            # may find them missing here, and abort ("terminate called"). Only a fork without exec knows this.
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(ended.code if isinstance(ended.code, int) else int(ended.code is not None))


if __name__ == "__main__":
    main()
