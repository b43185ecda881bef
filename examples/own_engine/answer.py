"""Answer with an engine of your own.

python examples/own_engine/answer.py LIBRARY "Why is the sky blue?"
"""

import sys

import palate
from engine import PlainEngine
from palate.core.settings import Settings
from palate.library.engines import ENGINES, EngineKind, open_engine

KIND = EngineKind(Settings, lambda settings: settings, lambda _, parts: PlainEngine(parts.base))
ENGINES["plain"] = lambda: KIND  # the one line; now `serve` and `generate` know it, too


def main(folder: str, prompt: str) -> None:
    library = palate.Library.load(folder)
    engine = open_engine("plain", {}, library)
    print(library.generate(prompt, method="base", engine=engine).text)


if __name__ == "__main__":
    main(*sys.argv[1:])
