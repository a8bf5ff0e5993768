"""The trial ledger with several writers at once, one of which is killed while it writes."""
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from quantetf.core import DatasetVersion, find_settings
from quantetf.evaluation.ledger import Outcome, record_trial, trial_returns, trials

ROOT = Path(__file__).resolve().parent.parent
DAYS = np.arange('2015-01-01', '2015-02-01', dtype='datetime64[D]')
VERSION = DatasetVersion('us33', 'ab'*32)
WRITER = '''
import sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from test_ledger import VERSION, outcome, settings_in
from quantetf.evaluation.ledger import record_trial
for n in range(int(sys.argv[2]), int(sys.argv[3])): record_trial(outcome(n), VERSION, settings_in(Path(sys.argv[1])), 'sweep')
'''


def settings_in(folder): return replace(find_settings(ROOT, environ={}), runs=folder)
def outcome(n): return Outcome(dict(n=n), DAYS, np.random.default_rng(n+1).normal(0, .01, len(DAYS)), f'top{n}')


def writer(folder, first, last):
    "A process that records the trials from `first` to before `last`"
    command = [sys.executable, '-c', WRITER, str(folder), str(first), str(last), str(ROOT/'tests')]
    return subprocess.Popen(command, env=os.environ | dict(PYTHONPATH=str(ROOT), OPENBLAS_NUM_THREADS='1'))


def test_four_writers_lose_nothing_and_count_once(tmp_path):
    "They overlap by half, so that each trial is offered twice"
    made = [writer(tmp_path, a, a+20) for a in (0, 10, 20, 30)]
    assert [o.wait(timeout=120) for o in made]==[0]*4
    found = trials('us33', settings_in(tmp_path))
    assert len(found)==found.lines==50
    assert sorted(o.config['n'] for o in found)==list(range(50))
    assert sorted(o.number for o in found)==list(range(1, 51))
    r = trial_returns(found, DAYS)
    for j,o in enumerate(found): assert np.abs(r[:,j]-outcome(o.config['n']).returns).max()==0


def test_a_writer_that_is_killed_leaves_a_ledger_that_can_be_read_and_continued(tmp_path):
    settings = settings_in(tmp_path)
    victim = writer(tmp_path, 0, 100_000)
    until = time.monotonic()+60
    while len(trials('us33', settings))<20 and time.monotonic()<until: time.sleep(.02)
    victim.send_signal(signal.SIGKILL)
    victim.wait(timeout=30)
    there = trials('us33', settings)
    assert len(there)>=20
    assert [o.config['n'] for o in there]==list(range(len(there)))
    assert np.isfinite(trial_returns(there, DAYS)).all()
    record_trial(outcome(-1), VERSION, settings)
    assert [o.config['n'] for o in trials('us33', settings)]==[*range(len(there)), -1]
