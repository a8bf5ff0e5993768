"""What leaves QuantETF: its schema, a reader that knows nothing else, a CSV file that computes nothing, and the chain of packets."""
import csv
import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from quantetf.core import DataError, find_settings
from quantetf.production import runtime
from quantetf.production.packet import _cell, conforming, packet_csv, packet_schema
from quantetf.production.runtime import produce

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='module')
def settings(tmp_path_factory):
    place = tmp_path_factory.mktemp('packets')
    (place/'mine.csv').write_text('ticker,shares\nGLD1,100\nCASH,50000\n')
    return replace(find_settings(ROOT, environ={}), root=place, data=place/'data', runs=place/'runs')


@pytest.fixture(scope='module')
def packets(settings):
    "By what is special about them"
    word = 'reconciliation=another account than that of May'
    return dict(first=produce('2024-05-31', settings=settings),
        held=produce('2024-06-28', holdings='mine.csv', accept=word, settings=settings),
        hold=produce('2024-07-10', holdings='mine.csv', settings=settings), forced=produce('2024-07-11', force=True, settings=settings),
        poor=produce('2024-07-31', capital=20., settings=settings))


def undescribed(value, schema, where=''):
    "Fields of a packet that the schema does not describe"
    if isinstance(value, dict) and 'properties' in schema:
        for k,v in value.items():
            if k not in schema['properties']: yield f'{where}.{k}'
            else: yield from undescribed(v, schema['properties'][k], f'{where}.{k}')
    elif isinstance(value, list) and 'items' in schema:
        for o in value: yield from undescribed(o, schema['items'], f'{where}[]')


def test_every_packet_conforms_and_every_field_is_described(packets):
    for packet in packets.values():
        data = json.loads((packet.folder/'recommendations.json').read_text())
        conforming(data)
        assert sorted(set(undescribed(data, packet_schema())))==[], 'describe it in quantetf/schemas/packet-1.json'


def described(schema, where=''):
    "Fields of the schema without a description"
    if 'description' not in schema and 'const' not in schema: yield where
    for k,v in schema.get('properties', {}).items(): yield from described(v, f'{where}.{k}')
    if 'properties' in schema.get('items', {}): yield from described(schema['items'], f'{where}[]')


def test_the_schema_is_one_and_explains_itself():
    from jsonschema import Draft202012Validator
    Draft202012Validator.check_schema(packet_schema())
    assert list(described(packet_schema()))==[]


@pytest.mark.parametrize('change', [dict(schema='quantetf.packet/2'), dict(status='ready'), dict(as_of='28.06.2024'), dict(rows=[{}]),
    dict(run_id='12'), dict(totals=None), dict(synthetic='yes')])
def test_what_does_not_conform_is_refused(change, packets):
    with pytest.raises(DataError, match='breaks its schema'): conforming(packets['held'].data | change)


def test_nothing_is_published_that_does_not_conform(settings, monkeypatch):
    real = runtime.make_packet
    monkeypatch.setattr(runtime, 'make_packet', lambda *args: real(*args) | dict(next_due='soon'))
    there = replace(settings, runs=settings.root/'none')
    with pytest.raises(DataError, match=r'at \$\.next_due'): produce('2024-06-28', settings=there)
    assert not there.runs.exists()


def reader(folder, *options):
    command = [sys.executable, '-I', ROOT/'tools'/'read_packet.py', folder, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_reader_that_knows_the_schema_alone(packets, settings, tmp_path):
    held = packets['held']
    done = reader(held.folder, '--synthetic')
    assert done.returncode==0, done.stderr
    orders = [o for o in held.data['rows'] if o['order']]
    assert [line.split()[1:4] for line in done.stdout.splitlines()[1:]]==[
        ['sell' if o['delta_shares']<0 else 'buy', f'{abs(o["delta_shares"]):g}', o['ticker']] for o in orders]
    assert done.stdout.splitlines()[1].split()[1]=='sell', 'sales come first'
    refused = reader(held.folder)
    assert refused.returncode==1 and 'invented' in refused.stderr
    assert reader(packets['hold'].folder, '--synthetic').returncode==3
    shutil.copytree(held.folder, tmp_path/'changed')
    file = tmp_path/'changed'/'recommendations.json'
    file.write_text(file.read_text().replace('"sell_', '"buy_'))
    assert 'was changed' in reader(tmp_path/'changed', '--synthetic').stderr


def test_packets_are_a_chain(packets):
    ids = [o.run_id for o in packets.values()]
    assert [o.data['previous'] and o.data['previous']['run_id'] for o in packets.values()]==[None, *ids[:-1]]
    assert packets['hold'].data['status']=='hold' and packets['hold'].data['totals']['trades']==0


# A spreadsheet computes what begins with one of these

STARTS = tuple('=+-@\t\r\n＝＋－＠')


@limits(max_examples=200, deadline=None)
@given(st.text(st.sampled_from('=+-@\t\r\n ;,|"\'aB1(')), st.sampled_from(',;\t|'))
def test_no_text_becomes_a_formula(text, separator):
    out = io.StringIO()
    csv.writer(out, lineterminator='\n').writerow(['SPY', _cell(text), 'end'])
    for row in csv.reader(io.StringIO(out.getvalue()), delimiter=separator):
        for cell in row: assert not cell.lstrip(' "').startswith(STARTS) or not cell.lstrip(' "').strip(), (text, row)


def test_a_fund_called_like_a_formula(packets):
    packet = json.loads(json.dumps(packets['held'].data))
    packet['rows'][0] |= dict(name='=HYPERLINK("http://x","y")', reason='＝1+1', ticker='-SH')
    packet['rows'][1] |= dict(name='Société Générale')
    text = packet_csv(packet)
    assert text.startswith('\ufeff'), 'or a spreadsheet shows SociÃ©tÃ©'
    lines = list(csv.DictReader(io.StringIO(text.removeprefix('\ufeff'))))
    assert [lines[0][k][0] for k in ('name', 'reason', 'ticker')]==["'", "'", "'"] and lines[1]['name']=='Société Générale'
    assert float(lines[0]['delta_shares'])==packet['rows'][0]['delta_shares']<0, 'a negative number stays one'
    assert packet_csv(packets['held'].data).isascii()
