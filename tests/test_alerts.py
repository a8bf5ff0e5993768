"""Messages about runs: to a server on this machine, to nobody who answers, about runs that died; and secrets that are found nowhere."""
import json
import shutil
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

pytest.importorskip('apprise')
ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT/'nbs'
PACKET = ['papermill', 'production.ipynb', '-p', 'as_of']
SECRET,PASSWORD = 'xk-4711-planted-secret-0815','pa55-w0rd-of-the-hook'


@pytest.fixture
def inbox():
    "What a web hook on this machine was sent; `status` is what it answers"
    class Hook(BaseHTTPRequestHandler):
        got,status = [],200
        def do_POST(self):
            Hook.got.append(json.loads(self.rfile.read(int(self.headers['Content-Length']))))
            self.send_response(Hook.status)
            self.end_headers()
        def log_message(self, *args): pass
    server = HTTPServer(('127.0.0.1', 0), Hook)
    Hook.url = f'json://me:{PASSWORD}@127.0.0.1:{server.server_port}/'
    Thread(target=server.serve_forever, daemon=True).start()
    yield Hook
    server.shutdown()
    server.server_close()


def everything(folder):
    "Every file under a folder as text, hidden ones too"
    return {o:o.read_bytes().decode(errors='replace') for o in Path(folder).rglob('*') if o.is_file()}


def log(place): return [json.loads(o) for f in (Path(place['QUANTETF_RUNS'])/'_log').glob('*.jsonl') for o in f.read_text().splitlines()]


def test_success_warning_again_and_hold(place, call, inbox):
    place |= dict(QUANTETF_ALERTS=inbox.url, QUANTETF_URL='https://example.org/runs/')
    done = call(*PACKET, '2024-06-28', cwd=NBS)
    assert done.returncode==0 and not done.stderr, done.stderr
    (message,) = inbox.got
    report = Path(done.stdout.splitlines()[2].split()[1]).relative_to(place['QUANTETF_RUNS']).as_posix()
    assert message['title'].startswith('TRADES: demo_momentum, 2024-06-28')
    assert 'SYNTHETIC prices' in message['message'] and '5 trades for 2024-07-01.' in message['message']
    assert message['message'].endswith(f'https://example.org/runs/{report}')
    checks = json.loads((Path(place['QUANTETF_RUNS'])/report).with_name('checks.json').read_text())
    warned = [o for o in checks if o['status']=='WARN']
    assert message['type']==('warning' if warned else 'success') and all(o['evidence'] in message['message'] for o in warned)
    again = call(*PACKET, '2024-06-28', cwd=NBS)
    assert again.stdout==done.stdout and len(inbox.got)==1, 'it was told already'
    sent = [o for o in log(place) if o['event']=='alert']
    assert [(o['sent'], o['to']) for o in sent]==[(True, 'json://127.0.0.1')]


def test_blocked_and_failed(place, call, inbox, tmp_path, data):
    place |= dict(QUANTETF_ALERTS=inbox.url)
    (tmp_path/'held.csv').write_text('ticker,shares\nSHB1,10\nCASH,50000\n')
    failed = call(*PACKET, '2024-06-29', cwd=NBS)
    assert failed.returncode==1 and inbox.got[-1]['title']=='FAILED: production' and '2024-06-29' in inbox.got[-1]['message']
    from dataclasses import replace

    from quantetf.core import find_settings
    from quantetf.data.schema import Tables
    from quantetf.data.snapshot import open_snapshot, publish
    settings = replace(find_settings(ROOT, environ={}), data=data)
    demo = open_snapshot('demo', settings).until('2024-06-28')
    bars = demo.tables.bars
    tables = dict(demo.tables.items()) | dict(bars=bars[~((bars.id=='GLD1') & (bars.session>'2024-06-24'))])
    publish(Tables(**tables), 'stale', settings, synthetic=True)
    (tmp_path/'held.csv').write_text('ticker,shares\nGLD1,10\nCASH,50000\n')
    blocked = call(*PACKET, '2024-06-28', '-p', 'dataset', 'stale', '-p', 'holdings', tmp_path/'held.csv', cwd=NBS)
    assert blocked.returncode==2, blocked.stderr
    assert inbox.got[-1]['title'].startswith('BLOCKED: demo_momentum, 2024-06-28') and inbox.got[-1]['type']=='failure'
    assert 'Do not act on it.' in inbox.got[-1]['message'] and 'BLOCK freshness: ' in inbox.got[-1]['message']


def test_a_message_that_cannot_be_sent_changes_nothing(place, call, inbox):
    inbox.status = 500
    place |= dict(QUANTETF_ALERTS=f'{inbox.url} json://127.0.0.1:9/ nonsense://{PASSWORD}')
    done = call(*PACKET, '2024-06-28', cwd=NBS)
    assert done.returncode==0 and '5 trades for 2024-07-01' in done.stdout and 'report.html' in done.stdout, done.stderr
    assert done.stderr.count('no alert to ')==3 and PASSWORD not in done.stderr
    failed = [o for o in log(place) if o['event']=='alert']
    assert len(failed)==3 and not any(o['sent'] for o in failed) and all(o['why'] and o['level']=='warning' for o in failed)
    said = call('quantetf', 'log')
    assert said.stdout.count('alert: ')==3 and 'made: ' in said.stdout and PASSWORD not in said.stdout


def test_a_kernel_that_dies_is_told_of(place, call, inbox, tmp_path):
    (tmp_path/'settings.ini').write_text('[quantetf]\n')
    cell = dict(cell_type='code', id='a', source='import os; os._exit(1)', outputs=[], execution_count=None, metadata={})
    meta = dict(kernelspec=dict(name='python3', language='python', display_name='python3'), quantetf=dict(run='production'))
    (tmp_path/'production.ipynb').write_text(json.dumps(dict(cells=[cell], metadata=meta, nbformat=4, nbformat_minor=5)))
    place |= dict(QUANTETF_ALERTS=inbox.url)
    done = call('papermill', 'production.ipynb', cwd=tmp_path)
    assert done.returncode==138
    assert [o['title'] for o in inbox.got]==['FAILED: production'] and 'DeadKernelError' in inbox.got[0]['message']


def test_a_planted_secret_is_found_nowhere(place, call, inbox, tmp_path):
    "Even by a notebook that prints its whole environment, and an error that repeats it"
    place |= dict(TIINGO_API_KEY=SECRET, QUANTETF_ALERTS=f'{inbox.url} json://127.0.0.1:9/?token={SECRET}')
    notebook = json.loads((NBS/'production.ipynb').read_text())
    cell = dict(cell_type='code', id='env', source='import os; print(dict(os.environ))', outputs=[], execution_count=None, metadata={})
    at = next(i for i,c in enumerate(notebook['cells']) if 'parameters' in c['metadata'].get('tags', []))
    notebook['cells'].insert(at+1, cell)
    (tmp_path/'settings.ini').write_text((ROOT/'settings.ini').read_text())
    shutil.copytree(ROOT/'configs', tmp_path/'configs')
    (tmp_path/'nbs').mkdir()
    (tmp_path/'nbs'/'production.ipynb').write_text(json.dumps(notebook))
    shown = call(*PACKET, '2024-06-28', cwd=tmp_path/'nbs')
    assert shown.returncode==0, shown.stderr
    cell['source'] = 'import os; raise ValueError(os.environ["TIINGO_API_KEY"] + os.environ["QUANTETF_ALERTS"])'
    (tmp_path/'nbs'/'production.ipynb').write_text(json.dumps(notebook))
    failed = call(*PACKET, '2024-06-28', cwd=tmp_path/'nbs')
    assert failed.returncode==1
    kept = everything(place['QUANTETF_RUNS'])
    assert len([o for o in kept if o.suffix=='.ipynb'])==2 and any('***' in v for o,v in kept.items() if o.suffix=='.ipynb')
    said = dict(out=shown.stdout, err=shown.stderr, failed=failed.stdout + failed.stderr, told=json.dumps(inbox.got))
    for where,text in (kept | said).items():
        for secret in SECRET,PASSWORD: assert secret not in text, where
