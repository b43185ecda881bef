"""A reward of your own: an objective, its expert and its place in every method.

python examples/own_reward.py RUN.yaml OUT    for a run file with an objective `brief`
"""

import sys

import palate


def brief(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
    """Fewer words are better; one number for each completion, in any unit."""
    return [-float(len(completion.split())) for completion in completions]


def main(run: str, out: str) -> None:
    library = palate.build(run, output_dir=out, reward_funcs={"brief": brief})
    for preference in (None, {"brief": 1.0}):
        answer = library.generate("Why is the sky blue?", preference=preference, seed=0)
        print(f"{answer.method}: {answer.text}")


if __name__ == "__main__":
    main(*sys.argv[1:])
