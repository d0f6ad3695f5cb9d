"""A counter in a notebook; each %% begins a cell. It is shared by all that connect to the same relay."""

# %%
import os

import air

graph = air.sync.connect(os.environ.get("AIR_URL", "ws://127.0.0.1:8765/gun"))
clicks = graph.get("counter", "clicks")

# %% one more; each click is an entry of its own, so that no two people overwrite each other
clicks.add(1)
print("clicks:", sum(clicks.map().once().values()))

# %% watch others click, until Kernel > Interrupt or five have come
with clicks.map() as entries:
    for count, _ in enumerate(entries, 1):
        print("now", count)
        if count == 5:
            break

# %%
graph.close()
