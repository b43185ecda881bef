"""Print the house's figures: `python -m tests.house`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from house.call_graph import unreached
from house.figures import measure
from house.words import banned_words

root = Path(__file__).parents[2]
house = measure(root)
folder, n_lines = house.largest
lists = {
    "circles between folders": house.circles,
    "banned words": banned_words(root),
    "public functions without a caller": unreached(root),
    "public functions over arrays without shapes": house.unshaped,
}
print(f"installed lines of Python: {house.n_lines:,}")
print(f"commands: {house.n_commands}")
print(f"largest folder: {folder}, {n_lines:,} lines")
for name, places in lists.items():
    print("\n  ".join([f"{name}: {len(places)}", *places]))
