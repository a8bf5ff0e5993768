"""Tasks for the tests of many runs, in a module of their own because other processes import it"""
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from quantetf.parallel import Shared, map_runs


def note(folder, what, text=''):
    "Leave a trace in a folder, whichever process this is"
    with open(Path(folder)/f'{what}-{os.getpid()}', 'a') as f: f.write(f'{text}\n')


def opened(folder):
    note(folder, 'opened')
    return np.random.default_rng(5).normal(size=(300, 300))


def big(folder): return Shared(opened, (str(folder),), 'a matrix of the tests')


def product(task, matrix):
    "A product whose last bits depend on the number of BLAS threads"
    return dict(sum=float((matrix@matrix.T).sum()), row=matrix[task['row']]@matrix, pid_is_int=isinstance(os.getpid(), int))


def threads(task):
    from threadpoolctl import threadpool_info
    np.ones((2, 2))@np.ones((2, 2))
    return sorted({o['num_threads'] for o in threadpool_info() if o['user_api']=='blas'})


def slow(task):
    note(task['folder'], 'ran', task['i'])
    time.sleep(task['seconds'])
    return dict(i=task['i'])


def deadly(task):
    "Task 3 takes its process along; with `once`, only the first time"
    note(task['folder'], 'ran', task['i'])
    mark = Path(task['folder'])/'died'
    if task['i']==3 and not (task['once'] and mark.exists()):
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(.05)
    return task['i']


def doubled(task): return 2*task


def ran(folder, what='ran'):
    "The lines that were noted, over all processes"
    return [o for f in Path(folder).glob(f'{what}-*') for o in f.read_text().split('\n')[:-1]]


if __name__=='__main__': # A sweep that somebody interrupts: folder, number of tasks, workers
    from parallel_tasks import slow as task
    folder,n,workers = sys.argv[1],int(sys.argv[2]),sys.argv[3]
    found = map_runs(task, [dict(i=i, seconds=.15, folder=folder) for i in range(n)],
        workers=int(workers) if workers.isdigit() else workers, keep=Path(folder)/'keep')
    print([o['i'] for o in found])
