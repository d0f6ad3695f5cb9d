"""Blocks that are freed stay with the process, when a program asks for that."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
if sys.argv[1] == "keep":
    from air.node.heap import keep_blocks
    assert keep_blocks()
start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(200):
    blocks = [bytes(b"x") * 256_000 for _ in range(8)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator is what is told")
def test_kept_blocks_are_not_cleared_and_mapped_again_and_again() -> None:
    def faults(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    pages = 256_000 // resource.getpagesize()
    kept = faults("keep")
    assert kept <= 2 * 8 * pages, "each block is mapped once, perhaps twice"
    # How much worse it is otherwise depends on what happens to lie at the end of the heap: 10 to 200 times.
    assert faults("default") > 3 * kept
