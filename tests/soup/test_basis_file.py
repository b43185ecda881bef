import json
from dataclasses import replace

import numpy as np
import pytest

from palate.core.errors import FormatError, InvalidCoefficientsError, InvalidInputError
from palate.core.types import Belief
from palate.soup.basis_file import SoupBasis, load_basis, save_basis
from palate.soup.settings import SoupSettings


@pytest.fixture
def basis():
    return SoupBasis(
        base="abc",
        experts=("plain", "brief"),
        objectives=("a", "b", "c"),
        anchors=np.array([[1.0, 0.0, 0.0], [0.5, -0.5, 0.1]]),
        beta=0.1,
        feature_means=np.array([0.3, -0.2]),
        feature_scales=np.array([2.0, 0.5]),
        effective_rank={"0.9": 1, "0.99": 2, "0.999": 2},
        prior=Belief(np.array([0.1, 0.2]), np.array([[1.0, 0.3], [0.3, 2.0]]), 50, gain=6.5),
        floor=("brief", 0.3),
        settings=SoupSettings(budget=0.4),
    )


def test_what_was_saved_is_loaded(basis, tmp_path):
    save_basis(tmp_path / "soup.json", basis)
    loaded = load_basis(tmp_path / "soup.json", base="abc")
    assert (loaded.experts, loaded.objectives, loaded.beta) == (
        basis.experts,
        basis.objectives,
        basis.beta,
    )
    for name in ("anchors", "feature_means", "feature_scales"):
        assert np.array_equal(getattr(loaded, name), getattr(basis, name))
    assert np.array_equal(loaded.prior.covariance, basis.prior.covariance)
    assert np.array_equal(loaded.prior.mean, basis.prior.mean)
    assert (loaded.prior.n_observations, loaded.prior.gain) == (50, 6.5)
    assert (loaded.floor, loaded.floor_place) == (("brief", 0.3), (1, 0.3))
    assert loaded.settings.budget == 0.4
    assert loaded.effective_rank == basis.effective_rank


def test_a_file_that_counts_users_by_the_old_name_is_read(basis, tmp_path):
    path = tmp_path / "soup.json"
    save_basis(path, basis)
    path.write_text(path.read_text().replace('"n_users"', '"n_people"'))
    assert load_basis(path).prior.n_observations == 50


def test_features_are_scaled_and_coefficients_scaled_back(basis):
    ratios = np.array([[3.0, 1.0], [-1.0, 2.0]])
    features = basis.features(ratios)
    assert features == pytest.approx(0.1 * ratios / [2.0, 0.5])
    mean = np.array([0.7, -0.4])
    # the margin is the same, computed either way
    assert features @ mean == pytest.approx(
        0.1 * ratios @ basis.unscaled(Belief(mean, np.eye(len(mean)))).mean
    )
    with pytest.raises(InvalidInputError, match="2 experts"):
        basis.features(np.ones((1, 3)))
    with pytest.raises(InvalidInputError, match="finite"):
        basis.features(np.array([[np.nan, 1.0]]))


def test_another_base_kind_or_version_is_refused(basis, tmp_path):
    path = tmp_path / "soup.json"
    save_basis(path, basis)
    with pytest.raises(FormatError, match="'abc'"):
        load_basis(path, base="def")
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "schema_version": 99}))
    with pytest.raises(FormatError, match="99"):
        load_basis(path)
    path.write_text(json.dumps({**content, "kind": "portfolio"}))
    with pytest.raises(FormatError, match="portfolio"):
        load_basis(path)


@pytest.mark.parametrize(
    "field", ["experts", "prior", "beta", "feature_scales", "floor", "settings"]
)
def test_a_missing_field_is_named(basis, tmp_path, field):
    path = tmp_path / "soup.json"
    save_basis(path, basis)
    content = json.loads(path.read_text())
    del content[field]
    path.write_text(json.dumps(content))
    with pytest.raises(FormatError, match=field):
        load_basis(path)


def test_fields_that_disagree_are_refused(basis):
    with pytest.raises(InvalidInputError, match="anchors"):
        replace(basis, anchors=np.eye(2))
    with pytest.raises(InvalidInputError, match="all different"):
        replace(basis, experts=("plain", "plain"))
    with pytest.raises(InvalidInputError, match="above zero"):
        replace(basis, feature_scales=np.array([1.0, 0.0]))
    with pytest.raises(InvalidCoefficientsError, match="'rude'"):
        replace(basis, floor=("rude", 0.1))
    with pytest.raises(InvalidCoefficientsError, match="positive definite"):
        replace(basis, prior=Belief(np.zeros(2), np.array([[1.0, 2.0], [2.0, 1.0]])))
