import os
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.fixture
def call(place):
    "Run a command as a person would, without a terminal; stdin is empty and not a pipe unless given"
    def call(*command, cwd=ROOT, **kwargs):
        if 'input' not in kwargs: kwargs.setdefault('stdin', subprocess.DEVNULL)
        return subprocess.run(list(map(str, command)), cwd=cwd, env=place, capture_output=True, text=True, timeout=120, **kwargs)
    return call
