"""The papermill command, typed as a person types it: on a terminal, redirected, behind a pipe; with good parameters and bad ones."""
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from quantetf.core import QuantETFError, find_settings
from quantetf.production.runtime import produce

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT/'nbs'


def published(place):
    "Folders of packets and runs"
    runs = Path(place['QUANTETF_RUNS'])
    return sorted(f.parent.relative_to(runs).as_posix() for f in runs.glob('*/*/*/manifest.json'))


def executed(place, pattern='*'): return sorted(Path(place['QUANTETF_RUNS']).glob(f'_executed/{pattern}/*.ipynb'))


def on_a_terminal(command, cwd, env):
    "(exit code, what the terminal showed) of a command whose stdin, stdout and stderr are a terminal"
    pty = pytest.importorskip('pty', reason='no pseudo-terminals here')
    parent,child = pty.openpty()
    process = subprocess.Popen(command, cwd=cwd, env=env, stdin=child, stdout=child, stderr=child, start_new_session=True)
    os.close(child)
    shown = b''
    while True:
        try: part = os.read(parent, 4096)
        except OSError: break # Linux says so when the other side has closed
        if not part: break
        shown += part
    os.close(parent)
    return process.wait(timeout=60), shown.decode(errors='replace')


PACKET = ['papermill', 'production.ipynb', '-p', 'as_of', '2024-06-28']


def test_on_a_terminal(place):
    code,shown = on_a_terminal(PACKET, NBS, place)
    assert code==0, shown
    (packet,) = published(place)
    assert packet.startswith('production/2024-06-28/demo_momentum-')
    folder = Path(place['QUANTETF_RUNS'])/packet
    last = shown.strip().splitlines()[-2:]
    assert last==[f'packet   {folder}', f'report   {folder/"report.html"}']
    assert (folder/'recommendations.csv').is_file() and (folder/'report.html').is_file()
    manifest = json.loads((folder/'manifest.json').read_text())
    assert [f.parent.name for f in executed(place)]==[manifest['id']]


def test_redirected_and_again(place, call):
    first = call(*PACKET, cwd=NBS)
    assert first.returncode==0, first.stderr
    assert len(first.stdout.splitlines())==3 and not first.stderr
    assert first.stdout.startswith('result   5 trades for 2024-07-01') and 'SYNTHETIC' in first.stdout.splitlines()[0]
    before = {f:f.read_bytes() for f in Path(place['QUANTETF_RUNS']).rglob('*') if f.is_file() and '_executed' not in f.parts}
    again = call(*PACKET[:-1], '20240628', cwd=NBS) # papermill hands this over as a number
    assert again.returncode==0, again.stderr
    assert again.stdout==first.stdout
    assert before=={f:f.read_bytes() for f in Path(place['QUANTETF_RUNS']).rglob('*') if f.is_file() and '_executed' not in f.parts}


def test_behind_a_pipe(place, call):
    notebook = (NBS/'production.ipynb').read_bytes()
    done = call(*PACKET, cwd=NBS, input='')
    assert done.returncode==0, done.stderr
    assert len(published(place))==1
    assert (NBS/'production.ipynb').read_bytes()==notebook, 'plain papermill takes the notebook for the output here'


BAD = {'2024-06-29':'2024-06-28', '2024-07-04':'2024-07-03', '2044-01-04':'has not closed yet', '2026-01-02':'2025-12-31',
    '1999-06-30':'2006-01-03', 'yesterday':'write it like 2024-06-28', '2024-06-31':'write it like 2024-06-28'}


def test_bad_dates_get_one_line_and_publish_nothing(place, call):
    typed = ['2024-06-29', 'yesterday', '2024-06-31'] # One that is no session, two that are no dates
    with ThreadPoolExecutor(2) as pool: answers = dict(zip(typed, pool.map(lambda o: call(*PACKET[:-1], o, cwd=NBS), typed), strict=True))
    for as_of,done in answers.items():
        assert done.returncode==1, as_of
        assert done.stdout==''
        assert done.stderr.startswith('Error: ') and done.stderr.count('\n')==1, done.stderr
        assert as_of in done.stderr and BAD[as_of] in done.stderr, done.stderr
    assert published(place)==[]
    assert all(f.parent.name.startswith('failed-') for f in executed(place))


@pytest.mark.parametrize('as_of', [o for o in BAD if 'write it' not in BAD[o]])
def test_bad_dates_say_what_is_wrong(place, as_of):
    "What the notebook calls, without a kernel"
    with pytest.raises(QuantETFError) as e: produce(as_of, settings=find_settings(ROOT, environ=place))
    assert as_of in str(e.value) and BAD[as_of] in str(e.value) and '\n' not in str(e.value)
    assert published(place)==[]


@pytest.mark.parametrize('parameter, says', [
    (('asof', '2024-06-28'), "did you mean 'as_of'?"),
    (('force', 'false'), 'force: '),
    (('capital', '100,000'), 'capital: '),
    (('datasett', 'demo'), "did you mean 'dataset'?"),
])
def test_bad_parameters_do_not_start_a_kernel(place, call, parameter, says):
    done = call('papermill', 'production.ipynb', '-p', *parameter, cwd=NBS)
    assert done.returncode==1 and says in done.stderr and done.stderr.count('\n')==1
    assert published(place)==[] and executed(place)==[]


def test_unknown_names_say_what_there_is(place, call):
    done = call(*PACKET, '-p', 'strategy', 'demo_momentun', cwd=NBS)
    assert done.returncode==1 and 'demo_momentum' in done.stderr and done.stderr.count('\n')==1
    done = call(*PACKET, '-p', 'dataset', 'us34', cwd=NBS)
    assert done.returncode==1 and 'us34' in done.stderr and done.stderr.count('\n')==1


def packet_data(place):
    (packet,) = published(place)
    return json.loads((Path(place['QUANTETF_RUNS'])/packet/'recommendations.json').read_text())


def test_hold_between_rebalances(place, call):
    done = call(*PACKET[:-1], '2024-07-10', cwd=NBS)
    assert done.returncode==0, done.stderr
    data = packet_data(place)
    assert data['status']=='hold' and data['next_due']=='2024-07-31' and not data['totals']['trades']


def test_force(place, call):
    done = call(*PACKET[:-1], '2024-07-10', '-p', 'force', 'True', cwd=NBS)
    assert done.returncode==0, done.stderr
    data = packet_data(place)
    assert data['status']=='published' and data['forced'] and data['totals']['trades']


def test_with_the_root_as_working_directory(place, call):
    done = call('papermill', 'nbs/backtest.ipynb', '-p', 'start', '2022-01-01', '-p', 'end', '2023-12-29')
    assert done.returncode==0, done.stderr
    (run,) = published(place)
    assert run.startswith('backtest/')
    assert done.stdout.splitlines()[1].split()[1].endswith(run)


def test_feasibility_is_published_once_and_says_the_same_again(place, call):
    asked = '-p', 'start', '2022-01-01', '-p', 'end', '2023-12-29', '-p', 'portfolios', '300', '-p', 'draws', '10', '-p', 'seed', '5'
    done = call('papermill', 'feasibility.ipynb', *asked, cwd=NBS)
    assert done.returncode==0, done.stderr
    (run,) = published(place)
    assert run.startswith('feasibility/2022-01-03_2023-12-29/demo_momentum-')
    folder = Path(place['QUANTETF_RUNS'])/run
    data,manifest = (json.loads((folder/f'{o}.json').read_text()) for o in ('feasibility', 'manifest'))
    assert manifest['inputs']['seed']==5 and manifest['inputs']['portfolios']==300 and data['synthetic']
    a = data['annual']
    assert a['worst']<a['random']<a['attainable']<a['bound'] and abs(data['ladder']['mean'][-1]-a['attainable'])<1e-9
    page = (folder/'report.html').read_text()
    assert 'SYNTHETIC: invented prices' in page and data['strategy'] in page
    again = call('papermill', 'feasibility.ipynb', *asked, cwd=NBS) # Another process, the same bytes, or it would be refused
    assert again.returncode==0 and published(place)==[run], again.stderr


def test_ingest_notebook(place, call, tmp_path):
    folder = tmp_path/'prices'
    folder.mkdir()
    head = 'Date,Open,High,Low,Close,AdjClose,Volume,Dividends\n'
    closes = {24:100., 25:101., 26:102., 27:101.5, 28:103.}
    rows = ''.join(f'2024-06-{d},{p},{p+1},{p-1},{p},{p},1000000,0\n' for d,p in closes.items())
    for ticker in 'AAA', 'BBB': (folder/f'{ticker}.csv').write_text(head+rows)
    place['QUANTETF_DATA'] = str(tmp_path/'data')
    command = 'papermill', 'ingest.ipynb', '-p', 'source', folder, '-p', 'name', 'two'
    done = call(*command, cwd=NBS)
    assert done.returncode==0, done.stderr
    assert done.stdout.startswith(f'snapshot {tmp_path}')
    snapshot,page = (Path(o.split()[1]) for o in done.stdout.splitlines())
    assert (snapshot/'snapshot.json').is_file()
    assert page==tmp_path/'data'/'curated'/'two'/f'{snapshot.name}.html' and '<h1>2 funds, 5 sessions; ' in page.read_text()
    assert '2 funds, 5 sessions' in executed(place, snapshot.name)[0].read_text()
    shorter = call(*command[:-1], 'shorter', '-p', 'until', '20240627', '-p', 'options', 'prices=adjusted', cwd=NBS)
    assert shorter.returncode==0 and '<h1>2 funds, 4 sessions; ' in Path(shorter.stdout.split()[-1]).read_text(), shorter.stderr
    wrong = call(*command, '-p', 'options', 'price=adjusted', cwd=NBS)
    assert wrong.returncode==1 and "did you mean 'prices'?" in wrong.stderr and wrong.stderr.count('\n')==1


def test_an_option_that_is_none_is_one_line(place, call, tmp_path):
    done = call('papermill', 'ingest.ipynb', '-p', 'source', tmp_path, '-p', 'name', 'two', '-p', 'options', 'adjusted', cwd=NBS)
    assert done.returncode==1 and 'write name=value' in done.stderr and done.stderr.count('\n')==1


# What is not ours: a project with a run notebook, one without the mark, and one that misbehaves

CODE = dict(work='answer = 6*n', finish='''from quantetf.nbrun import finish
class Packet:
    run_id,folder,report,status = 'abc','.','report.html',{status!r}
    data = dict(checks=[dict(name='age', status='BLOCK', evidence='9 days')])
finish(Packet())''', defect='answer = 1/0')


@pytest.fixture
def project(tmp_path, place):
    "A project with a folder of notebooks, and no QuantETF in it but settings.ini"
    del place['QUANTETF_RUNS'], place['QUANTETF_DATA']
    (tmp_path/'settings.ini').write_text('[quantetf]\n')

    def notebook(name, *cells, run='production'):
        tags = lambda i: dict(tags=[] if i else ['parameters'])
        cells = [dict(cell_type='code', id=f'c{i}', source=o, outputs=[], execution_count=None, metadata=tags(i))
            for i,o in enumerate(['n: int = 7  # a number', *cells])]
        meta = dict(kernelspec=dict(name='python3', language='python', display_name='python3'))
        if run: meta['quantetf'] = dict(run=run)
        (tmp_path/name).write_text(json.dumps(dict(cells=cells, metadata=meta, nbformat=4, nbformat_minor=5)))
        return tmp_path
    return notebook


def test_other_notebooks_are_plain_papermill(project, place, call):
    folder = project('other.ipynb', CODE['work'], run=None)
    code,shown = on_a_terminal(['papermill', 'other.ipynb'], folder, place)
    assert code==2 and "Missing argument 'OUTPUT_PATH'" in shown
    done = call('papermill', 'other.ipynb', '-p', 'm', '1', cwd=folder)
    assert done.returncode==0 and json.loads(done.stdout)['cells'], 'printed, and a misspelt parameter is no error'
    assert not (folder/'runs').exists()


def test_an_output_path_is_plain_papermill(project, place, call):
    folder = project('production.ipynb', CODE['work'])
    done = call('papermill', 'production.ipynb', 'out.ipynb', '-p', 'm', '1', cwd=folder)
    assert done.returncode==0 and 'Passed unknown parameter: m' in done.stderr
    assert (folder/'out.ipynb').is_file() and not (folder/'runs').exists()


def test_a_blocked_run_is_kept_and_exits_with_2(project, call):
    folder = project('production.ipynb', CODE['finish'].replace('{status!r}', "'blocked'"))
    done = call('papermill', 'production.ipynb', cwd=folder)
    assert done.returncode==2, done.stderr
    said = [o for o in done.stderr.splitlines() if 'src/signaler.cpp' not in o] # What the kernel's messaging library says under load
    assert len(said)==1 and said[0].startswith('Error: blocked') and 'age: 9 days' in said[0]
    assert (folder/'runs'/'_executed'/'abc'/'production.ipynb').is_file()


def test_a_defect_shows_its_traceback(project, call):
    folder = project('production.ipynb', CODE['defect'])
    done = call('papermill', 'production.ipynb', cwd=folder)
    assert done.returncode==1
    assert 'Traceback (most recent call last)' in done.stderr
    assert done.stderr.splitlines()[-1].startswith('Error: ZeroDivisionError: division by zero (the notebook as far as it ran: ')
    (kept,) = folder.glob('runs/_executed/failed-*/production.ipynb')
    assert 'ZeroDivisionError' in kept.read_text()


def test_a_notebook_that_does_not_finish_is_an_error(project, call):
    folder = project('production.ipynb', CODE['work'])
    done = call('papermill', 'production.ipynb', cwd=folder)
    assert done.returncode==1 and 'did not call finish()' in done.stderr


def test_a_dead_kernel_is_kept_too(project, call):
    folder = project('production.ipynb', 'import os; os._exit(1)')
    done = call('papermill', 'production.ipynb', cwd=folder)
    assert done.returncode==138 and 'DeadKernelError' in done.stderr
    assert list(folder.glob('runs/_executed/failed-*/production.ipynb'))


def test_a_module_of_python_works_as_well(project, call):
    folder = project('production.ipynb', CODE['finish'].replace('{status!r}', "'published'"))
    done = call(sys.executable, '-m', 'papermill', 'production.ipynb', cwd=folder)
    assert done.returncode==0, done.stderr
    assert done.stdout==f'packet   {folder}\nreport   {folder/"report.html"}\n'
