"""A short soak: whatever is killed, runs end as they should. `make soak` is the long one."""

import random

import pytest
from soak import Soak


@pytest.mark.timeout(300)
def test_runs_end_as_they_should_whatever_is_killed(new_server, witness):
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}: `python e2e/soak.py --kills 12 --seed {seed}` kills again")
    soak = Soak(new_server().start(), witness, seed)
    soak.run(kills=12, at_once=2)
    assert set(soak.expected.values()) and sum(soak.killed.values()) == 12
