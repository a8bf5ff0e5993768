"""Each cause of a change alone: the packet before and tonight's differ in one thing, and the whole change has its name."""
import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from quantetf.core import find_settings
from quantetf.data.snapshot import open_snapshot, publish
from quantetf.production import runtime
from quantetf.production.runtime import produce
from quantetf.production.verify import verify

ROOT = Path(__file__).resolve().parent.parent
THREE = '''
universe:  {kind: static, tickers: [USL1, GLD1, TEC1, EMG1, GVM1, CRP1]}
features:  {mom: {kind: momentum, lookback: 63, skip: 0}}
alpha:     {kind: rank, feature: mom}
portfolio: {kind: top_n_equal, n: 3, constraints: {cash_buffer: 0.01}}
schedule:  {kind: weekly, day: last}
'''
CAPPED = THREE.replace('cash_buffer: 0.01', 'cash_buffer: 0.01, max_turnover: 0.1')
CLOSES = ['open', 'high', 'low', 'close']


@pytest.fixture(scope='module')
def market(tmp_path_factory):
    "Data that are wrong about GLD1, right ones of the same span, and longer ones"
    settings = replace(find_settings(ROOT, environ={}), data=tmp_path_factory.mktemp('data'))
    demo = open_snapshot('demo', settings)
    for name,end in ('short', '2024-05-31'), ('long', '2024-06-28'):
        tables = demo.until(end).tables
        publish(tables, name, settings, synthetic=True)
        bars = tables.bars.copy()
        bars.loc[(bars.id=='GLD1') & (bars.session<'2024-05-15'), CLOSES] *= .8
        publish(replace(tables, bars=bars), f'{name}_wrong', settings, synthetic=True)
    return settings.data


@pytest.fixture
def settings(market, tmp_path):
    (tmp_path/'strategies').mkdir()
    return replace(find_settings(ROOT, environ={}), root=tmp_path, data=market, configs=tmp_path, runs=tmp_path/'runs', strategy='few')


def make(settings, as_of, dataset, text=THREE, held=None):
    (settings.configs/'strategies'/'few.yaml').write_text(text)
    if held: (settings.root/'mine.csv').write_text('ticker,shares\n' + ''.join(f'{k},{v}\n' for k,v in held.items()))
    how = dict(dataset=dataset, holdings='mine.csv' if held else None, force=True, settings=settings)
    made = produce(as_of, **how)
    return made if made.status!='blocked' else produce(as_of, accept='reconciliation=another account', **how)


def told(packet):
    "One-way change by cause, for causes that moved something, after checking that the columns add up"
    a = packet.data['attribution']
    for f,d in zip(a['funds'], packet.data['diff'], strict=True):
        for causes in filter(None, (f['causes'], f['reverse'])): assert abs(sum(causes.values())-f['change'])<1e-9
        assert f['change']==d['change'] and f['previous_target']==d['previous_target']
    assert a==json.loads((packet.folder/'diff.json').read_text())['attribution']
    return {k for k,v in a['one_way'].items() if v}


MINE,OTHER = dict(USL1=300, GLD1=200, CASH=20000),dict(TEC1=400, CASH=50000)
# The packet before; tonight's; the cause. The dates are so near that market days alone do nothing where they must not
CASES = dict(
    market_days=(('2024-05-31', 'long'), ('2024-06-28', 'long')),
    data=(('2024-06-20', 'long_wrong'), ('2024-06-21', 'long')),
    universe=(('2024-06-20', 'long'), ('2024-06-21', 'long', THREE.replace('EMG1, ', ''))),
    config=(('2024-06-20', 'long'), ('2024-06-21', 'long', THREE.replace('n: 3', 'n: 2'))),
    holdings=(('2024-06-20', 'long', CAPPED, MINE), ('2024-06-21', 'long', CAPPED, OTHER)))


@pytest.mark.parametrize('cause', CASES)
def test_one_cause_alone(cause, settings):
    before,after = CASES[cause]
    make(settings, *before)
    packet = make(settings, *after)
    assert any(abs(o['change'])>.01 for o in packet.data['diff'])
    found = {k:v for k,v in packet.data['attribution']['one_way'].items() if v>(.02 if cause=='holdings' else 1e-9)}
    told(packet)
    assert set(found)=={cause}, packet.data['attribution']['one_way']


def test_nothing_changed(settings):
    make(settings, '2024-06-20', 'long')
    packet = make(settings, '2024-06-21', 'long')
    assert told(packet)==set() and packet.data['attribution']['changed']['market_days']


def test_new_days_come_before_revised_data(settings):
    "The earlier dataset ends in May and is wrong; it goes on with the new days, and is corrected after that"
    make(settings, '2024-05-31', 'short_wrong')
    packet = make(settings, '2024-06-28', 'long')
    make_wrong = replace(settings, runs=settings.root/'other')
    make(make_wrong, '2024-05-31', 'short_wrong')
    still = make(make_wrong, '2024-06-28', 'long_wrong') # What the new days alone would have led to
    alone = {f['instrument_id']:f['change'] for f in still.data['attribution']['funds']}
    assert {f['instrument_id']:f['causes']['market_days'] for f in packet.data['attribution']['funds'] if f['causes']['market_days']}=={
        k:v for k,v in alone.items() if v}
    assert told(packet)=={'market_days', 'data'} and told(still)=={'market_days'}


@pytest.mark.parametrize('causes', [o for n in (2, 3) for o in itertools.combinations(('data', 'universe', 'config'), n)])
def test_together_they_add_up(causes, settings):
    make(settings, '2024-05-31', 'short_wrong' if 'data' in causes else 'short')
    text = THREE.replace('EMG1, ', '') if 'universe' in causes else THREE
    packet = make(settings, '2024-06-28', 'long', text.replace('n: 3', 'n: 2') if 'config' in causes else text)
    assert told(packet)<={'market_days', *causes} and 'market_days' in told(packet)
    assert {k for k,v in packet.data['attribution']['changed'].items() if v}>={'market_days', *causes}


def test_two_causes_that_only_work_together_have_one_name(settings):
    "Five funds cannot be chosen of a list of three, so from the end there is no going step by step"
    few = THREE.replace('TEC1, ', '').replace(', GVM1, CRP1', '').replace('n: 3', 'n: 2')
    make(settings, '2024-06-20', 'long', few)
    packet = make(settings, '2024-06-21', 'long', THREE.replace('n: 3', 'n: 5'))
    assert told(packet)=={'universe', 'config'}
    backwards = [f['reverse'] for f in packet.data['attribution']['funds']]
    assert {k for o in backwards for k,v in o.items() if v}=={'config+universe', 'market_days'}
    assert 'In reverse order' in packet.report.read_text()


def test_other_code_is_the_residual(settings, monkeypatch):
    "Yesterday's code gave every fund a tenth less"
    real = runtime.make_packet
    def wrong(*args):
        packet = real(*args)
        for o in packet['rows']: o['target_weight'] = round(.9*o['target_weight'], 10)
        return packet
    monkeypatch.setattr(runtime, 'make_packet', wrong)
    monkeypatch.setattr(runtime, 'code_hash', lambda *_: 64*'0')
    make(settings, '2024-06-20', 'long')
    monkeypatch.undo()
    packet = make(settings, '2024-06-21', 'long')
    assert told(packet)=={'code'} and packet.data['attribution']['changed']['code']
    assert {round(f['causes']['code'], 9) for f in packet.data['attribution']['funds']}=={.033}
    assert 'All of it comes from code.' in packet.report.read_text()


def test_without_the_earlier_data_nothing_is_made_up(settings):
    make(settings, '2024-05-31', 'short_wrong')
    there = replace(settings, data=settings.root/'data')
    shutil.copytree(settings.data, there.data)
    gone = open_snapshot('short_wrong', there)
    shutil.rmtree(there.data/'snapshots'/gone.id)
    packet = make(there, '2024-06-28', 'long')
    assert packet.data['attribution'] is None and packet.data['diff']
    assert 'cannot be worked out' in packet.report.read_text()
    whole = make(settings, '2024-06-28', 'long')
    assert whole.run_id!=packet.run_id and told(whole)
    assert [verify(o.folder, s).state for o,s in ((whole, settings), (packet, there), (packet, settings), (whole, there))]==[
        'identical', 'identical', 'identical', 'impossible']
