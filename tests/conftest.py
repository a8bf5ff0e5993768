import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from types import ModuleType

import pytest

from quantetf.cli import main

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='session')
def root(): return ROOT


@pytest.fixture(scope='session')
def data(tmp_path_factory):
    "A data folder for the whole session, so that the demo market is made once"
    return tmp_path_factory.mktemp('data')


@pytest.fixture
def place(tmp_path, data):
    "Environment of a process that publishes into a folder of its own"
    scripts = str(Path(sys.executable).parent)
    return {**os.environ, 'QUANTETF_DATA':str(data), 'QUANTETF_RUNS':str(tmp_path/'runs'), 'PATH':scripts+os.pathsep+os.environ['PATH']}


def in_a_copy(command, cwd, env):
    """The `quantetf` command in a forked copy of this process, which has imported what a new one would spend seconds on

    Its own environment, folder, standard streams and exit code, as a process has."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        if not (pid := os.fork()):
            code = 70
            try:
                os.chdir(cwd)
                os.environ.clear()
                os.environ.update(env)
                for fd,file in ((0, open(os.devnull)), (1, out), (2, err)): os.dup2(file.fileno(), fd) # noqa: SIM115
                sys.stdout,sys.stderr = (open(fd, 'w', encoding='utf-8', closefd=False) for fd in (1, 2)) # noqa: SIM115
                sys.argv,sys.modules['__main__'] = command,ModuleType('__main__')
                code = code_of(main)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        shown = []
        for file in (out, err):
            file.seek(0)
            shown.append(file.read().decode())
    return subprocess.CompletedProcess(command, code, *shown)


def code_of(f):
    "The exit code of a process that does nothing but call `f`"
    try: f()
    except SystemExit as e:
        if isinstance(e.code, str): print(e.code, file=sys.stderr)
        return 1 if isinstance(e.code, str) else e.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


@pytest.fixture
def call(place):
    """Run a command as a person would, without a terminal; stdin is empty and not a pipe unless given

    `quantetf` is run in a copy of this process, unless `new` asks for a process of its own."""
    def call(*command, cwd=ROOT, new=False, **kwargs):
        command = list(map(str, command))
        if command[0]=='quantetf' and hasattr(os, 'fork') and not new and not kwargs: return in_a_copy(command, cwd, place)
        if 'input' not in kwargs: kwargs.setdefault('stdin', subprocess.DEVNULL)
        return subprocess.run(command, cwd=cwd, env=place, capture_output=True, text=True, timeout=120, **kwargs)
    return call
