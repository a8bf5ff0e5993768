"""Read a recommendation packet by machine: `python tools/read_packet.py runs/production/2024-06-28/demo_momentum-0123456789ab`

An example to start from. It knows nothing of QuantETF but the JSON Schema of packets, and does what any reader should do: refuse what it
does not know, what is damaged, what is blocked and what is invented; then print the orders in the order to place them. Exit code 0 if there
are orders, 3 if there is nothing to trade, 1 if the packet must not be used.
"""
import hashlib
import json
import sys
from pathlib import Path

from jsonschema import Draft202012Validator

SCHEMA = Path(__file__).resolve().parent.parent/'quantetf'/'schemas'/'packet-1.json'


def read(folder):
    "The packet in a folder, checked against the manifest and the schema"
    manifest = json.loads((folder/'manifest.json').read_text(encoding='utf-8'))
    if manifest['status']=='blocked': sys.exit(f'{folder.name} is blocked: read its report.html')
    data = (folder/'recommendations.json').read_bytes()
    untouched = hashlib.sha256(data).hexdigest()==manifest['outputs']['recommendations.json']
    if not untouched: sys.exit(f'{folder.name} was changed after it was published')
    packet = json.loads(data)
    if packet.get('schema')!='quantetf.packet/1': sys.exit(f'{packet.get("schema")!r} is not a schema that this program knows')
    problem = next(Draft202012Validator(json.loads(SCHEMA.read_text(encoding='utf-8'))).iter_errors(packet), None)
    if problem: sys.exit(f'{folder.name} breaks its schema at {problem.json_path}: {problem.message}')
    return packet


def main(folder, *options):
    packet = read(Path(folder))
    invented = packet['synthetic'] and '--synthetic' not in options
    if invented: sys.exit('the prices are invented: nothing to trade on (--synthetic shows it all the same)')
    orders = [row for row in packet['rows'] if row['order']]
    if packet['status']=='hold' or not orders:
        print(f"{packet['strategy']}: nothing to trade; next decision {packet['next_due']}")
        sys.exit(3)
    if packet['shares_note']: sys.exit(f"no share counts: {packet['shares_note']}")
    print(f"{packet['strategy']}: {len(orders)} orders for {packet['execution_session']}, {packet['fill'].replace('_', ' ')}")
    for row in sorted(orders, key=lambda row: row['order']):
        verb = 'sell' if row['delta_shares']<0 else 'buy'
        size = f"about {abs(row['notional']):,.2f} {packet['currency']}"
        print(f"{row['order']:3}  {verb:4}  {abs(row['delta_shares']):>10g}  {row['ticker']:<8}  {size}")


if __name__=='__main__': main(*sys.argv[1:])
