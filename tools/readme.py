"""README.md from nbs/index.ipynb: its text as it stands, its code fenced, the text that the code displayed indented below it."""
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def shown(output):
    "The text of one cell output"
    text = output.get('text') or output.get('data', {}).get('text/plain') or ''
    return ''.join('    '+line for line in ''.join(text).splitlines(keepends=True))


def part(cell):
    "One notebook cell as Markdown"
    source = ''.join(cell['source'])
    if cell['cell_type']!='code': return source
    return '\n\n'.join(['```python\n'+source+'\n```', *filter(None, map(shown, cell['outputs']))])


def readme():
    "The README, as the index notebook has it"
    cells = json.loads((ROOT/'nbs'/'index.ipynb').read_text(encoding='utf-8'))['cells']
    note = '<!-- Made from nbs/index.ipynb by `make readme`; edit that. -->'
    return '\n\n'.join([note, *map(part, cells)]) + '\n'


if __name__=='__main__': (ROOT/'README.md').write_text(readme(), encoding='utf-8')
