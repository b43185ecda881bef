"""Experts are scaled to the KL of a soup, on the head by their tilt and elsewhere by measuring."""

import pytest
import torch

from fakes import save_random_adapter, save_tiny_llama
from libraries.bespoke import CLOSENESS, MOST, States
from palate.engine.bank import AdapterBank
from palate.engine.logprobs import Scored
from palate.models.load import load_base


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[States, AdapterBank]:
    folder = tmp_path_factory.mktemp("bespoke")
    base = load_base(save_tiny_llama(folder / "base"))
    folders = {
        "head": save_random_adapter(base.path, folder / "head", seed=0, targets=["lm_head"]),
        "layers": save_random_adapter(base.path, folder / "layers", seed=1),
    }
    generator = torch.Generator().manual_seed(0)
    answers = [
        Scored((5, 6, 7), tuple(torch.randint(3, 200, (14,), generator=generator).tolist()))
        for _ in range(3)
    ]
    return States(base, answers, temperature=0.7), AdapterBank.load(base, folders)


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("target", [0.003, 0.05])
def test_the_scale_gives_the_wanted_kl(
    parts: tuple[States, AdapterBank], place: int, target: float
) -> None:
    states, bank = parts
    scale, kl = states.scale_to(bank, place, target=target)
    given = [0.0, 0.0]
    given[place] = scale
    assert states.kl(bank, given) == pytest.approx(kl, rel=1e-4)
    assert kl == pytest.approx(target, rel=CLOSENESS)


def test_a_soup_that_stays_with_the_base_scales_to_nothing(
    parts: tuple[States, AdapterBank],
) -> None:
    states, bank = parts
    assert states.kl(bank, [0.0, 0.0]) == 0.0
    assert states.scale_to(bank, 1, target=0.0)[0] == pytest.approx(0.0, abs=1e-3)


def test_a_kl_out_of_reach_ends_at_the_largest_scale(parts: tuple[States, AdapterBank]) -> None:
    states, bank = parts
    scale, kl = states.scale_to(bank, 0, target=1e6)
    assert scale == pytest.approx(MOST)
    assert kl < 1e6
