import pytest

from palate.core.errors import InvalidInputError
from palate.models.load import load_base
from research.world.base import measure_world, train_world
from research.world.pretrain import PretrainSettings

TINY = PretrainSettings(
    steps=4,
    batch_documents=2,
    vocabulary=300,
    tokenizer_documents=50,
    hidden=16,
    layers=1,
    heads=2,
    feed_forward=16,
)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    return train_world(TINY, out=tmp_path_factory.mktemp("world") / "base", n_answers=2)


def test_a_base_is_made_measured_and_described(outcome):
    base = load_base(outcome.folder)
    assert base.model.num_parameters() == outcome.n_parameters
    card = (outcome.folder / "README.md").read_text()
    assert "| steps | 4 |" in card
    assert f"{outcome.measurement.gold_mean['concise']:.3f}" in card
    assert outcome.to_json()["measurement"]["well_formed"]["n_answers"] == 2


def test_an_untrained_base_writes_broken_text_that_earns_nothing(outcome):
    assert outcome.measurement.well_formed.share == 0.0
    assert set(outcome.measurement.gold_mean.values()) == {0.0}
    assert len(outcome.measurement.faults) == 4


def test_measuring_again_gives_the_same_numbers(outcome):
    assert measure_world(outcome.folder, n_answers=2, seed=TINY.seed) == outcome.measurement


def test_an_existing_folder_a_missing_base_and_no_answers_are_bad_input(tmp_path):
    with pytest.raises(InvalidInputError, match="exists"):
        train_world(TINY, out=tmp_path)
    with pytest.raises(InvalidInputError, match="does not exist"):
        measure_world(tmp_path / "nowhere", n_answers=1, seed=0)
    with pytest.raises(InvalidInputError, match="0 answers"):
        measure_world(tmp_path, n_answers=0, seed=0)
