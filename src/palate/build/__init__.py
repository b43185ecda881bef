"""From a run file to a library; `palate.build(...)` is `palate.build.library.build`."""

from palate.core.callable_module import make_callable

make_callable(__name__, calls="palate.build.library:build")
