"The synthetic market is the same in every process and on processors with fewer instructions"
import os
import subprocess
import sys

import numpy as np
import pytest

HASHES = """
from quantetf.data.demo import demo_tables
from quantetf.store import table_hash
for k,t in demo_tables().items(): print(k, table_hash(t))
"""

def hashes(**environ):
    "Hash of each table, as made by a fresh interpreter"
    r = subprocess.run([sys.executable, '-c', HASHES], env=os.environ | environ, capture_output=True, text=True, check=True)
    return dict(line.split() for line in r.stdout.splitlines())

@pytest.fixture(scope='module')
def here():
    from quantetf.data.demo import demo_tables
    from quantetf.store import table_hash
    return {k:table_hash(t) for k,t in demo_tables().items()}

def test_same_in_a_fresh_process(here):
    assert hashes(PYTHONHASHSEED='7', OPENBLAS_NUM_THREADS='2', TZ='Asia/Tokyo') == here

def test_same_on_an_older_processor(here):
    umath = np._core._multiarray_umath
    features = [o for o in umath.__cpu_dispatch__ if umath.__cpu_features__.get(o)]
    if not features: pytest.skip('this processor has nothing that NumPy could do without')
    assert hashes(NPY_DISABLE_CPU_FEATURES=' '.join(features)) == here

def test_pinned(here):
    "A change here changes every published result on this market; make it on purpose"
    assert here['bars'] == '97f78572fa3088bea03ba374cd795767b8c217aec6a5b379151896615bd20bbd'
