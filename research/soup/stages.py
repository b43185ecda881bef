"""What a fit of coefficients can do after the logistic one, for `palate soup fit --refine`.

    research.soup.stages:normalised   stage 2: the labels against the soup's own log-ratio,
                                      normalisers included
    research.soup.stages:value_head   the coefficients whose soup is closest to the policy that is
                                      optimal for the fitted reward, with what experts disagree
                                      about what comes after

Both can do harm, so each is gated: stage 2 by the labels of held-out comparisons, the head by the
futures of held-out answers. Where the gate is shut, the logistic fit is served.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from scipy.sparse import csr_array, vstack

from palate.build.soup_fitting import Fitting
from palate.core.errors import InvalidInputError
from palate.core.progress import progress_of
from palate.core.types import Belief
from palate.engine.logprobs import Scored, row_distributions
from palate.library.features import STATE_TOKENS, expert_rows, scored_text
from palate.library.library import Library
from palate.library.soup import answers_to_measure
from palate.soup.states import States
from research.soup.normalised import Comparisons, fit_gated
from research.soup.value_head import Paths, corrected_coefficients

N_ANSWERS = 64  # of the base, that a value head is learned from
N_DIRECTIONS = 64  # of the hidden state, in which states vary most


def normalised(fitting: Fitting, belief: Belief) -> Belief | None:
    """Stage 2 over the logistic fit, over scaled features; `None` where that is to be served.

    Thumbs and ratings enter as a part of the prior; the covariance stays that of stage 1.

    Raises:
        InvalidInputError: fewer than two of the observations are comparisons.
    """
    library, learner, ratios = fitting.library, fitting.learner, fitting.log_ratios
    basis = library.basis
    both = list(zip(fitting.items, fitting.observations, strict=True))
    pairs = [(item, seen.first, seen.second) for item, seen in both if seen.second is not None]
    compared = [item for item, _, _ in pairs]
    others = [item for item, seen in both if seen.second is None]
    if len(pairs) < 2:
        raise InvalidInputError(
            f"Stage 2 is fitted to comparisons, but the feedback has {len(pairs)}; keep stage 1."
        )
    answers = list(dict.fromkeys(answer for _, *pair in pairs for answer in pair))
    place_of = {answer: place for place, answer in enumerate(answers)}
    scored = [scored_text(library.base, answer.prompt, answer.text) for answer in answers]
    fit = fit_gated(
        Comparisons(
            np.array([ratios[first] - ratios[second] for _, first, second in pairs]),
            _visits(
                [(place_of[first], place_of[second]) for _, first, second in pairs],
                lengths=[len(item.answer) for item in scored],
            ),
            np.array([item.label for item in compared]),
            states_along(library, scored)[0],
        ),
        first=lambda used: (
            basis.unscaled(learner.refit([*others, *(compared[place] for place in used)])).mean
        ),
        prior=basis.unscaled(learner.refit(others)),
        scale=basis.beta * belief.gain,
    )
    return replace(belief, mean=fit.second * basis.feature_scales) if fit.is_second else None


def value_head(fitting: Fitting, belief: Belief) -> Belief | None:
    """The belief, over scaled features, with the mean that a value head corrects.

    The head is learned from the base's own answers; `None` where it predicts nothing.
    """
    library, basis = fitting.library, fitting.library.basis
    answers = answers_to_measure(library.files, library.base, library.bank)
    every = max(1, len(answers) // N_ANSWERS)
    coefficients = basis.unscaled(belief).mean
    corrected = corrected_coefficients(
        paths_of(library, answers[::every][:N_ANSWERS]), coefficients
    )
    if corrected is coefficients:
        return None
    return replace(belief, mean=corrected * basis.feature_scales)


def paths_of(library: Library, items: Sequence[Scored]) -> Paths:
    """The states of the base's answers, with the directions of its hidden state there."""
    lengths = [len(item.answer) for item in items]
    hidden = np.concatenate([_hidden(library, item) for item in items])
    centred = hidden - hidden.mean(axis=0)
    variances, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    kept = variances > 1e-9 * variances[-1]
    kept[:-N_DIRECTIONS] = False
    states, taken = states_along(library, items)
    return Paths(
        centred @ vectors[:, kept] / np.sqrt(variances[kept]),
        taken,
        np.repeat(np.arange(len(items)), lengths),
        np.ones(len(hidden)),
        states,
    )


def states_along(
    library: Library, items: Sequence[Scored]
) -> tuple[States, Float[ndarray, "states experts"]]:
    """Every state that whole answers pass through, one answer after the other, and tilts there.

    The vocabulary of states is cut to the base's `STATE_TOKENS` most probable tokens and
    renormalised; the tilts, of the tokens that the answers took, are not.
    """
    plan, cuts, taken = expert_rows(n_experts=library.bank.n_experts), list[ndarray](), []
    with progress_of("states along answers, answers") as report:
        for place, item in enumerate(items, start=1):
            rows = row_distributions(library.base, library.bank, plan=plan, item=item)
            top = rows[0].topk(min(STATE_TOKENS, rows.shape[-1]), dim=-1).indices
            picked = rows.double().gather(2, top.unsqueeze(0).expand(len(rows), -1, -1))
            cuts.append(picked.log_softmax(dim=-1).numpy(force=True))
            at = torch.arange(len(item.answer))
            own = rows[:, at, torch.tensor(item.answer)].double()
            taken.append((own[1:] - own[0]).T.numpy(force=True))
            report(place, len(items))
    table = np.concatenate(cuts, axis=1)
    states = States(table[0], np.moveaxis(table[1:] - table[0], 0, -1))
    return states, np.concatenate(taken)


def _hidden(library: Library, item: Scored) -> Float[ndarray, "tokens hidden"]:
    """The base's hidden state after the final norm, before each token of the answer."""
    base = library.base
    ids = torch.tensor([[*item.context, *item.answer]], device=base.device)
    with torch.inference_mode():
        states = base.model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]
    return states[len(item.context) - 1 : -1].double().numpy(force=True)


def _visits(pairs: Sequence[tuple[int, int]], *, lengths: Sequence[int]) -> csr_array:
    """How often each pair's first answer passes a state minus the second; no two share a state."""
    answer_of = np.repeat(np.arange(len(lengths)), lengths)  # [states]
    rows = [
        np.where(answer_of == first, 1.0, 0.0) - (answer_of == second) for first, second in pairs
    ]
    return csr_array(vstack([csr_array(row[None]) for row in rows]))
