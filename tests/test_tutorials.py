"""The tutorials in a kernel, as JupyterLab starts one: they run to the end, and leave the project as it was."""
import json
import os
from pathlib import Path

import pytest

from quantetf.core import find_settings
from quantetf.data.ingest import ingest

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT/'nbs'/'tutorials'
SHARED = Path(os.environ.get('QUANTETF_REAL_DATA') or ROOT.parent/'shared'/'data')
REAL = {"'demo'":"'us33'", 'demo24':'core20', 'USL1':'SPY'} # What is another on real data
real = [pytest.mark.real_data,
    pytest.mark.skipif(not (SHARED/'yahoo_daily').is_dir(), reason='the folder yahoo_daily of real market data is absent')]
NAMES = sorted(o.stem for o in FOLDER.glob('*.ipynb'))


def lying_about():
    "What a tutorial could have left in the project"
    places = '*', 'configs/**/*', 'data/*', 'runs/*', 'nbs/*', 'nbs/tutorials/*'
    return sorted(str(o.relative_to(ROOT)) for k in places for o in ROOT.glob(k))


@pytest.mark.parametrize('dataset', ['demo', pytest.param('us33', marks=real)])
@pytest.mark.parametrize('name', NAMES)
def test_in_a_kernel(name, dataset, tmp_path, monkeypatch):
    from nbformat import read
    from papermill import execute_notebook
    monkeypatch.setenv('TMPDIR', str(tmp_path))
    text,before = (FOLDER/f'{name}.ipynb').read_text(encoding='utf-8'),lying_about()
    if dataset=='us33':
        monkeypatch.setenv('QUANTETF_DATA', str(tmp_path/'data'))
        ingest('csv', SHARED/'yahoo_daily', 'us33', find_settings(ROOT))
        for old,new in REAL.items(): text = text.replace(old, new)
    (tmp_path/'asked.ipynb').write_text(text, encoding='utf-8')
    execute_notebook(tmp_path/'asked.ipynb', tmp_path/'done.ipynb', cwd=FOLDER, kernel_name='python3', progress_bar=False)
    assert lying_about()==before
    (report,) = tmp_path.glob('quantetf-*/runs/backtest/*/small_steps-*/report.html')
    page = report.read_text(encoding='utf-8')
    assert ('SYNTHETIC' in page)==(dataset=='demo') and 'SmallSteps' in page
    shown = json.dumps([o for c in read(tmp_path/'done.ipynb', 4).cells for o in c.get('outputs', [])])
    assert 'alone and together differ' in shown and 'a year, give or take' in shown and 'srcdoc' in shown


@pytest.mark.parametrize('name', NAMES)
def test_what_is_shown_in_the_notebook_does_not_change_from_run_to_run(name):
    "No folders of one machine, no page with the id of a run"
    outputs = [o for c in json.loads((FOLDER/f'{name}.ipynb').read_text(encoding='utf-8'))['cells'] for o in c.get('outputs', [])]
    shown = json.dumps(outputs)
    assert len(outputs)>5 and 'srcdoc' not in shown and 'quantetf-' not in shown and '/tmp' not in shown
