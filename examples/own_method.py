"""A method of your own, measured against palate's and served beside them.

python examples/own_method.py LIBRARY OUT            compare and write the report
python examples/own_method.py LIBRARY OUT --serve    and then serve the library with the method
"""

import sys

import numpy as np

import palate
from palate.core.plan import one_hot, parameter_soup_plan


class NearestExpert:
    """The one expert whose anchor is closest to the user's preference, alone."""

    name = "nearest-expert"

    def decide(
        self, library: palate.Library, messages: palate.Messages, known: palate.Known
    ) -> palate.Decision:
        shares = library.preference(known)  # [objectives]; stated, or what the belief comes to
        if shares is None:
            return library.methods["base"].decide(library, messages, known)
        place = int(np.argmin(np.linalg.norm(library.anchors - shares, axis=1)))
        name = library.require_experts()[place]
        plan = parameter_soup_plan(one_hot(index=place, n_experts=len(library.anchors)))
        reason = f"The anchor of {name!r} is the closest to the preference."
        return palate.Decision(messages, plan, self.name, {name: 1.0}, reason=reason)


def main(folder: str, out: str, *, is_served: bool) -> None:
    library = palate.Library.load(folder)
    names = library.manifest.objective_names
    users = {name: {name: 1.0} for name in names}
    users["all"] = dict.fromkeys(names, 1.0 / len(names))
    prompts = ["Why is the sky blue?", "How do I boil an egg?"]
    methods = ["base", "soup", NearestExpert()]
    evaluated = palate.evaluate(library, users, prompts, methods=methods, output_dir=out)
    print(f"{len(evaluated.results.answers)} answers; the report is in {out}.")
    if is_served:
        library.methods[NearestExpert.name] = NearestExpert()  # now every door knows it
        library.serve(store=f"{out}/users.db")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], is_served="--serve" in sys.argv[3:])
