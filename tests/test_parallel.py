"""Many runs in processes and on a real cluster: the same results, and what is left of them when something dies."""
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from parallel_tasks import big, deadly, doubled, product, ran, slow, threads

from quantetf import parallel
from quantetf.core import QuantETFError
from quantetf.data.snapshot import open_snapshot
from quantetf.data.view import shared_panel
from quantetf.parallel import Failed, map_runs

HERE = Path(__file__).resolve().parent
PLACES = os.pathsep.join([str(HERE), str(HERE.parent)])
ENV = {k:v for k,v in os.environ.items() if not k.endswith('_NUM_THREADS')}
ENV |= dict(PYTHONPATH=PLACES, DASK_DISTRIBUTED__WORKER__DAEMON='False')


def same(a, b):
    if isinstance(a, dict): return a.keys()==b.keys() and all(same(a[k], b[k]) for k in a)
    return np.array_equal(a, b) and type(a) is type(b)


def until(holds, seconds=30):
    "Wait for something, or give up"
    end = time.monotonic() + seconds
    while time.monotonic()<end:
        if holds(): return
        time.sleep(.02)
    raise TimeoutError('it did not happen')


def worker(address, folder):
    log = open(folder/'worker.log', 'a') # noqa: SIM115
    command = '-m distributed.cli.dask_worker --nthreads 1 --no-nanny --no-dashboard --host 127.0.0.1'.split()
    return subprocess.Popen([sys.executable, *command, address], env=ENV, cwd=folder, stdout=log, stderr=log)


@pytest.fixture(scope='module')
def cluster(tmp_path_factory):
    "A scheduler and two workers, each a process of its own, on loopback"
    pytest.importorskip('distributed')
    folder = tmp_path_factory.mktemp('cluster')
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        address = f'tcp://127.0.0.1:{s.getsockname()[1]}'
    log = open(folder/'scheduler.log', 'a') # noqa: SIM115
    command = '-m distributed.cli.dask_scheduler --no-dashboard --host 127.0.0.1 --port'.split()
    scheduler = subprocess.Popen([sys.executable, *command, address.rpartition(':')[2]], env=ENV, cwd=folder, stdout=log, stderr=log)
    workers = [worker(address, folder) for _ in range(2)]
    from distributed import Client
    with Client(address, timeout=60, set_as_default=False) as client: client.wait_for_workers(2, timeout=60)
    yield address,workers,folder
    for o in (*workers, scheduler): o.kill()
    for o in (*workers, scheduler): o.wait()


def test_the_same_bits_here_in_processes_and_on_a_cluster(cluster, tmp_path):
    tasks = [dict(row=i) for i in range(12)]
    here,there,far = (map_runs(product, tasks, big(tmp_path), workers=o) for o in (1, 2, cluster[0]))
    assert all(same(a, b) and same(a, c) for a,b,c in zip(here, there, far))
    assert here[3]['row'].shape==(300,)


@pytest.mark.parametrize('where', ['processes', 'cluster'])
def test_what_is_shared_is_opened_once_by_each_process(where, cluster, tmp_path):
    place = 2 if where=='processes' else cluster[0]
    shared = parallel.Shared(big(tmp_path).open, (str(tmp_path),), f'for {tmp_path}')
    found = map_runs(product, [dict(row=i) for i in range(20)], shared, workers=place)
    assert len(found)==20 and not any(isinstance(o, Failed) for o in found)
    files = list(tmp_path.glob('opened-*'))
    assert 1<=len(files)<=2 and all(f.read_text()=='\n' for f in files), 'once by each of two processes'
    assert f'opened-{os.getpid()}' not in [f.name for f in files], 'the work was done elsewhere'


@pytest.mark.parametrize('where', [1, 2, 'cluster'])
def test_one_blas_thread(where, cluster):
    from threadpoolctl import threadpool_limits
    with threadpool_limits(2): # What this process has, the others have not heard of
        found = map_runs(threads, [1, 2], workers=cluster[0] if where=='cluster' else where)
    assert found==[[1], [1]]


def market(task, panel):
    "A figure of real arrays, and who computed it"
    return dict(tr=float(np.nansum(panel.view(panel.sessions[task['row']]).lag('tr', 0))), version=str(panel.version))


def test_a_panel_is_opened_from_its_snapshot_and_not_shipped(settings):
    snapshot = open_snapshot('demo', settings)
    shared,tasks = shared_panel(snapshot, settings),[dict(row=r) for r in (0, 500, 1000)]
    parallel._small(market, shared, most=5_000) # Bytes that travel with each task
    here,there = (map_runs(market, tasks, shared, workers=n) for n in (1, 2))
    assert here==there and here[0]['version']==str(snapshot.version)


@pytest.fixture
def settings(data, tmp_path):
    from dataclasses import replace

    from quantetf.core import find_settings
    return replace(find_settings(HERE.parent, environ={}), data=data, runs=tmp_path/'runs')


def test_a_process_that_dies_costs_nothing_but_time(tmp_path):
    tasks = [dict(i=i, folder=str(tmp_path), once=True) for i in range(8)]
    assert map_runs(deadly, tasks, workers=2)==list(range(8))
    assert len(ran(tmp_path))<=8+2, 'only what was at work when it died was done again'


def test_a_task_that_always_kills_its_process_is_the_only_one_lost(tmp_path):
    tasks = [dict(i=i, folder=str(tmp_path), once=False) for i in range(8)]
    found = map_runs(deadly, tasks, workers=2)
    assert [o for o in found if not isinstance(o, Failed)]==[0, 1, 2, 4, 5, 6, 7]
    assert found[3].error=='WorkerLost' and found[3].task==tasks[3] and 'died' in str(found[3])


def test_a_lost_worker_of_a_cluster_costs_only_its_tasks(cluster, tmp_path):
    address,workers,folder = cluster
    from threading import Thread
    def kill():
        until(lambda: len(ran(tmp_path))>=4)
        workers[0].kill()
        workers[0].wait()
    killer = Thread(target=kill)
    killer.start()
    found = map_runs(slow, [dict(i=i, seconds=.1, folder=str(tmp_path)) for i in range(24)], workers=address)
    killer.join()
    workers[0] = worker(address, folder) # For the other tests
    assert [o['i'] for o in found]==list(range(24))
    again = len(ran(tmp_path)) - 24
    assert 0<=again<=12, f'{again} tasks were done again' # At most what lay on that worker
    from distributed import Client
    with Client(address, timeout=60, set_as_default=False) as client: client.wait_for_workers(2, timeout=60)


@pytest.mark.parametrize('where', ['1', '2', 'cluster'])
def test_ctrl_c_leaves_a_state_from_which_the_same_call_goes_on(where, cluster, tmp_path):
    command = [sys.executable, str(HERE/'parallel_tasks.py'), str(tmp_path), '30', cluster[0] if where=='cluster' else where]
    first = subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    keep = tmp_path/'keep'
    until(lambda: len(list(keep.glob('*.npz')))>=5)
    os.killpg(first.pid, signal.SIGINT) # As a terminal does: to the process and its children
    out,err = first.communicate(timeout=30)
    assert first.returncode!=0 and b'KeyboardInterrupt' in err and not out
    time.sleep(.3)
    done,did = len(list(keep.glob('*.npz'))),len(ran(tmp_path))
    assert 5<=done<30 and not list(keep.glob('.*')), 'whole results only'
    second = subprocess.run(command, env=ENV, capture_output=True, timeout=60, check=True)
    assert eval(second.stdout)==list(range(30))
    assert len(ran(tmp_path))-did==30-done, 'only what was missing was run'


def test_a_failure_is_tried_again_and_a_result_is_not(tmp_path):
    tasks = [dict(i=i, seconds=0, folder=str(tmp_path)) for i in (0, 1)] + [dict(i=2)]
    for _again in range(2):
        found = map_runs(slow, tasks, workers=2, keep=tmp_path/'keep')
        assert isinstance(found[2], Failed) and found[2].error=='KeyError'
    assert sorted(ran(tmp_path))==['0', '1']


def test_results_of_other_code_are_not_taken(tmp_path, monkeypatch):
    tasks = [dict(i=0, seconds=0, folder=str(tmp_path))]
    map_runs(slow, tasks, workers=1, keep=tmp_path/'keep')
    monkeypatch.setattr(parallel, '_code', lambda module: 'another version')
    map_runs(slow, tasks, workers=1, keep=tmp_path/'keep')
    assert ran(tmp_path)==['0', '0']


def test_a_worker_with_other_code_is_refused(cluster, monkeypatch):
    monkeypatch.setattr(parallel, '_code', lambda module: 'another version')
    with pytest.raises(parallel.OtherCode, match='another version of the code'): map_runs(threads, [1, 2], workers=cluster[0])


def test_a_cluster_is_named_by_the_environment(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv('QUANTETF_CLUSTER', cluster[0])
    map_runs(slow, [dict(i=i, seconds=0, folder=str(tmp_path)) for i in range(4)])
    assert ran(tmp_path) and not list(tmp_path.glob(f'ran-{os.getpid()}'))


def test_a_cluster_that_is_not_there_is_an_error_and_no_wait():
    with pytest.raises(QuantETFError, match='no scheduler answers at tcp://127.0.0.1:9'): map_runs(threads, [1, 2], workers='tcp://127.0.0.1:9')


def test_nothing_is_unpickled_from_a_kept_file(tmp_path):
    tasks = [dict(i=0, seconds=0, folder=str(tmp_path))]
    map_runs(slow, tasks, workers=1, keep=tmp_path/'keep')
    file, = (tmp_path/'keep').glob('*.npz')
    np.savez(file, text=np.array([object()], object), allow_pickle=True)
    with pytest.warns(UserWarning, match='was damaged'): map_runs(slow, tasks, workers=1, keep=tmp_path/'keep')


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='there is no fork')
def test_a_forked_process_has_workers_of_its_own():
    "It inherits a pool whose threads it does not have"
    tasks = list(range(3))
    assert map_runs(doubled, tasks, workers=2)==[0, 2, 4]
    if not (child := os.fork()): os._exit(0 if map_runs(doubled, tasks, workers=2)==[0, 2, 4] else 1)
    end = time.monotonic() + 60
    while not (done := os.waitpid(child, os.WNOHANG))[0] and time.monotonic()<end: time.sleep(.1)
    if not done[0]: os.kill(child, signal.SIGKILL)
    assert done[0] and os.waitstatus_to_exitcode(done[1])==0
