"""Six output soups at once through a vLLM that was started so that it splits groups.

    python -m benchmarks.vllm_engine.splits WORK URL

WORK is the folder that prepare.py wrote, URL its vLLM with the plugin. Prints one line an answer:
its status, and whether its text is that of a server in this process or how its group ended. Exit
code 1 where an answer of status 200 has another text.
"""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from palate.core.errors import CheckFailedError
from research.command_line import run
from research.serving.server_process import FREE, ServerProcess

PROMPTS = ("Once upon a time", "Tom and his dog", "Ben was sad", "The sun", "Mia found", "One day")
WANTED = {
    "method": "output-soup",
    "coefficients": {"bright": 0.4, "short": 0.3, "gentle": 0.3},
}
USE = ("max_lora_rank=32", "pools=server", "n_retries=1")


def bodies() -> list[dict[str, Any]]:
    """Long answers of three rows each."""
    same = {"model": "palate", "max_tokens": 200, "temperature": 0, "palate": WANTED}
    return [{**same, "prompt": prompt} for prompt in PROMPTS]


def main(work: Path, url: str) -> None:
    """Six long completions at once of two servers, one of them on a running vLLM."""
    n_wrong = 0
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(len(PROMPTS)) as threads:
        words = ["serve", "--engine", "vllm", "--url", url, "--no-rates"]
        words += ["--adapters", str(work / "wide/experts")]
        for setting in (*USE, f"adapters_folder={folder}/adapters"):
            words += ["--engine-set", setting]
        local = ServerProcess(work / "library", f"{folder}/0.db", FREE)
        remote = ServerProcess(work / "library", f"{folder}/1.db", FREE, words=words)

        def ask(server: ServerProcess, body: dict[str, Any]) -> tuple[int, Any]:
            return server.call("POST", "/v1/completions", body)

        try:
            local.start()
            remote.start()
            own = [ask(local, body)[1]["choices"][0]["text"] for body in bodies()]
            ends = list(threads.map(lambda body: ask(remote, body), bodies()))
        finally:
            remote.stop()
            local.stop()
    for text, (status, result) in zip(own, ends, strict=True):
        is_same = status == 200 and result["choices"][0]["text"] == text
        n_wrong += status == 200 and not is_same
        said = "the same text" if is_same else "ANOTHER TEXT"
        print(status, said if status == 200 else result["error"]["message"])
    if n_wrong:
        raise CheckFailedError(f"{n_wrong} answers have another text.")


if __name__ == "__main__":
    run(main)
