"""Notebooks as tests: `pytest nbs/modules/15_view.ipynb` runs the cells of that notebook, in a process of its own.

A fresh process per notebook is what nbdev does too. Starting one costs seconds, nearly all of them spent importing the same
libraries, so they are imported here once, and each notebook runs in a forked copy of this process. Notebooks that wait their
turn are started ahead, one per core.
"""
import faulthandler
import importlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent
SECONDS = 180 # A notebook that takes longer hangs
HEAVY = ('numpy', 'pandas', 'scipy.stats', 'matplotlib.pyplot', 'matplotlib_inline.backend_inline', 'pydantic', 'yaml', 'jinja2',
    'sklearn.covariance', 'pyarrow.parquet', 'exchange_calendars', 'nbdev.test', 'IPython.core.interactiveshell')

os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')


def run_notebook(path):
    "True if every cell of the notebook ran; its output goes to stdout and stderr"
    from nbdev.test import test_nb
    return test_nb(path, basepath=ROOT)[0]


def fork(path, log):
    "Run a notebook in a copy of this process; returns the child's id"
    sys.stdout.flush()
    sys.stderr.flush()
    if pid := os.fork(): return pid
    code = 70
    try:
        os.setpgid(0, 0)
        for fd in (1, 2): os.dup2(log.fileno(), fd)
        sys.stdout,sys.stderr = (open(fd, 'w', buffering=1, encoding='utf-8', closefd=False) for fd in (1, 2))
        sys.__stdout__,sys.__stderr__ = sys.stdout,sys.stderr
        faulthandler.enable(log.fileno())
        code = 0 if run_notebook(path) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Forked:
    "A notebook running in a forked child"
    def __init__(self, path):
        self.log,self.since = tempfile.TemporaryFile(),time.monotonic()
        self.pid = fork(path, self.log)

    def code(self):
        "Exit code, negative for a signal; None while it runs"
        pid,status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def kill(self):
        os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


class Spawned:
    "A notebook running in a new process, where there is no fork"
    def __init__(self, path):
        self.log,self.since = tempfile.TemporaryFile(),time.monotonic()
        self.process = subprocess.Popen([sys.executable, __file__, str(path)], cwd=ROOT, stdout=self.log, stderr=self.log)

    def code(self): return self.process.poll()

    def kill(self):
        self.process.kill()
        self.process.wait()


class Notebooks:
    "Starts notebooks in the order of the tests, as many at a time as there are cores"
    def __init__(self): self.waiting,self.running = [],{}

    def start(self):
        "Keep every core busy"
        forking = hasattr(os, 'fork')
        if forking and len(self.waiting)>1:
            for name in HEAVY: importlib.import_module(name)
        while self.waiting and len(self.running) < (os.cpu_count() or 1):
            path = self.waiting.pop(0)
            self.running[path] = (Forked if forking else Spawned)(path)

    def finish(self, path):
        "(exit code or None if it hung, output) of the next notebook, waiting for it"
        self.start()
        child = self.running[path]
        while (code := child.code()) is None and time.monotonic()-child.since<SECONDS: time.sleep(.02)
        if code is None: child.kill()
        del self.running[path]
        self.start()
        child.log.seek(0)
        return code, child.log.read().decode(errors='replace')


notebooks = Notebooks()


class NotebookFailed(Exception):
    "A notebook that did not run to its end; the text is what a reader needs to see"


class NotebookItem(pytest.Item):
    def runtest(self):
        code,output = notebooks.finish(self.path)
        if code==0: return
        how = {None: f'did not end within {SECONDS} s and was killed', 1: 'failed'}
        raise NotebookFailed(f'{self.path.name} {how.get(code, f"crashed with exit code {code}")}\n{output[-8000:]}')

    def repr_failure(self, excinfo):
        return str(excinfo.value) if isinstance(excinfo.value, NotebookFailed) else super().repr_failure(excinfo)

    def reportinfo(self): return self.path, None, self.path.name


class NotebookFile(pytest.File):
    def collect(self): yield NotebookItem.from_parent(self, name='cells')


def pytest_collect_file(file_path, parent):
    if file_path.suffix=='.ipynb' and file_path.parent==ROOT/'nbs'/'modules': return NotebookFile.from_parent(parent, path=file_path)


def pytest_collection_finish(session):
    notebooks.waiting = [o.path for o in session.items if isinstance(o, NotebookItem)]


def pytest_sessionfinish():
    for child in notebooks.running.values(): child.kill()


if __name__=='__main__': sys.exit(not run_notebook(Path(sys.argv[1])))
