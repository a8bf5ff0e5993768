"""Export modules, clean notebooks, write the README; exit with 1 and the names of files if any of them was not in step before."""
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def contents():
    "Bytes of everything that a notebook makes, and of the notebooks"
    files = [ROOT/'README.md', *(ROOT/'nbs').rglob('*.ipynb'), *(ROOT/'quantetf').rglob('*.py')]
    return {f.relative_to(ROOT).as_posix():f.read_bytes() for f in files if f.exists() and '.ipynb_checkpoints' not in f.parts}


before = contents()
for command in ['nbdev-export'], ['nbdev-clean'], [sys.executable, 'tools/readme.py']: subprocess.run(command, cwd=ROOT, check=True)
after = contents()
changed = sorted(f for f in before.keys() | after.keys() if before.get(f)!=after.get(f))
if changed:
    sys.exit('\n  '.join(['Not in step with the notebooks, or not clean (now they are: look at `git diff`, and commit):', *changed]))
print(f'{len(after)} files in step: notebooks clean, modules and README as the notebooks have them')
