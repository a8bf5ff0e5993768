"""Notebooks as tests, and as many files of tests at a time as there are cores.

`pytest nbs/modules/15_view.ipynb` runs the cells of that notebook, in a process of its own. A fresh process per notebook is what
nbdev does too. Starting one costs seconds, nearly all of them spent importing the same libraries, so they are imported here once,
and each notebook runs in a forked copy of this process.

More than one file is shared out among forked copies of this process in the same way, one per core: each asks for a file, runs its
tests, and sends what came of them. With `-s`, `--pdb` or `--trace`, and where there is no fork, one file follows the other.
"""
import faulthandler
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from itertools import groupby
from multiprocessing.connection import wait
from pathlib import Path

import pytest

ROOT = Path(__file__).parent
TAUGHT = ROOT/'nbs'/'modules',ROOT/'nbs'/'tutorials' # Notebooks whose cells are tests
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


class NotebookFailed(Exception):
    "A notebook that did not run to its end; the text is what a reader needs to see"


class NotebookItem(pytest.Item):
    def runtest(self):
        child,code = (Forked if hasattr(os, 'fork') else Spawned)(self.path),None
        try:
            while (code := child.code()) is None and time.monotonic()-child.since<SECONDS: time.sleep(.02)
        finally:
            if code is None: child.kill()
        if code==0: return
        child.log.seek(0)
        how = {None: f'did not end within {SECONDS} s and was killed', 1: 'failed'}.get(code, f'crashed with exit code {code}')
        raise NotebookFailed(f'{self.path.name} {how}\n{child.log.read().decode(errors="replace")[-8000:]}')

    def repr_failure(self, excinfo):
        return str(excinfo.value) if isinstance(excinfo.value, NotebookFailed) else super().repr_failure(excinfo)

    def reportinfo(self): return self.path, None, self.path.name


class NotebookFile(pytest.File):
    def collect(self): yield NotebookItem.from_parent(self, name='cells')


def pytest_collect_file(file_path, parent):
    if file_path.suffix=='.ipynb' and file_path.parent in TAUGHT: return NotebookFile.from_parent(parent, path=file_path)


def pytest_collection_finish(session):
    if hasattr(os, 'fork') and sum(isinstance(o, NotebookItem) for o in session.items)>1:
        for name in HEAVY: importlib.import_module(name)


# Files shared out among copies of this process

class Relay:
    "A plugin of a copy: sends what is reported to the process that prints it"
    def __init__(self, config, pipe): self.config,self.pipe,self.reports = config,pipe,[]

    def pytest_runtest_logstart(self, nodeid, location):
        self.reports = []
        self.pipe.send(('started', (nodeid, location)))

    def pytest_runtest_logreport(self, report):
        self.reports.append(self.config.hook.pytest_report_to_serializable(config=self.config, report=report))

    def pytest_runtest_logfinish(self, nodeid, location): self.pipe.send(('finished', (nodeid, location, self.reports)))

    def pytest_warning_recorded(self, warning_message, when, nodeid, location):
        w = warning_message
        w = warnings.WarningMessage(str(w.message), w.category, w.filename, w.lineno)
        self.pipe.send(('warned', dict(warning_message=w, when=when, nodeid=nodeid, location=location)))


def asked_for(files, pipe):
    "The tests of one file after the other, as long as there are any"
    while True:
        pipe.send(('free', None))
        if (k := pipe.recv()) is None: return
        yield from files[k]


def work(session, files, pipe, folder):
    "What a copy does: run tests, print nothing, keep temporary files in a folder of its own"
    config = session.config
    signal.signal(signal.SIGTERM, signal.default_int_handler) # So that what is open is closed
    config.pluginmanager.getplugin('terminalreporter')._tw._file = open(os.devnull, 'w') # noqa: SIM115
    capture = config.pluginmanager.getplugin('capturemanager')
    capture.stop_global_capturing()
    capture.start_global_capturing()
    capture.suspend_global_capture()
    config._tmp_path_factory._basetemp = folder
    config.pluginmanager.register(Relay(config, pipe))
    try:
        tests = asked_for(files, pipe)
        test = next(tests, None)
        while test is not None:
            following = next(tests, None) # What is shared with the next test is not torn down
            config.hook.pytest_runtest_protocol(item=test, nextitem=following)
            test = following
        pipe.send(('done', None))
    except KeyboardInterrupt: pass # The other process says so


class Copy:
    "A forked copy of this process that runs tests"
    def __init__(self, session, files, n):
        folder = session.config._tmp_path_factory.getbasetemp()/f'copy{n}'
        folder.mkdir()
        context = multiprocessing.get_context('fork')
        self.pipe,its = context.Pipe()
        self.process,self.test = context.Process(target=work, args=(session, files, its, folder)),None
        self.process.start()
        its.close()

    def heard(self, hook, config, todo):
        "Pass on what the copy says; False when it has nothing to do any more"
        what,said = self.pipe.recv()
        if what=='free': self.pipe.send(next(todo, None))
        elif what=='started': self.test = said
        elif what=='warned': hook.pytest_warning_recorded.call_historic(kwargs=said)
        elif what=='finished':
            nodeid,location,reports = said
            hook.pytest_runtest_logstart(nodeid=nodeid, location=location)
            for o in reports: hook.pytest_runtest_logreport(report=hook.pytest_report_from_serializable(config=config, data=o))
            hook.pytest_runtest_logfinish(nodeid=nodeid, location=location)
        return what!='done'

    def end(self):
        if self.process.is_alive(): self.process.terminate()
        self.process.join()


def pytest_runtestloop(session):
    "As many files at a time as there are cores; None, and with it pytest's own loop, where one has to follow the other"
    option,files = session.config.option,[list(o) for _,o in groupby(session.items, key=lambda o: o.path)]
    alone = option.collectonly or option.usepdb or option.trace or option.capture=='no' or getattr(option, 'numprocesses', None)
    count = min(os.cpu_count() or 1, len(files))
    if alone or session.testsfailed or count<2 or not hasattr(os, 'fork'): return None
    sys.stdout.flush()
    todo,copies = iter(range(len(files))),[]
    try:
        copies.extend(Copy(session, files, n) for n in range(count))
        busy = {o.pipe:o for o in copies}
        while busy:
            for pipe in wait(list(busy)):
                try: more = busy[pipe].heard(session.config.hook, session.config, todo)
                except EOFError: raise session.Interrupted(f'the process that ran {busy[pipe].test} is dead') from None
                if not more: del busy[pipe]
                if session.shouldfail: raise session.Failed(session.shouldfail)
                if session.shouldstop: raise session.Interrupted(session.shouldstop)
    finally:
        for o in copies: o.end()
    return True


if __name__=='__main__': sys.exit(not run_notebook(Path(sys.argv[1])))
