import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import expit

from palate.preferences.logistic_normal import logistic_averages


def test_without_spread_they_are_the_curves() -> None:
    margins = np.linspace(-40.0, 40.0, 4001)
    found = logistic_averages(margins, np.zeros_like(margins))
    chance = expit(margins)
    assert np.abs(found.sigmoid - chance).max() < 5e-9
    assert np.abs(found.softplus - np.logaddexp(0.0, margins)).max() < 1e-8
    assert np.abs(found.slope - chance * (1.0 - chance)).max() < 2e-8


@pytest.mark.parametrize(("mean", "deviation"), [(0.7, 0.5), (-3.0, 2.0), (40.0, 60.0)])
def test_averages_agree_with_integration_at_any_width(mean: float, deviation: float) -> None:
    def average(curve) -> float:
        def weighted(m: float) -> float:
            z = (m - mean) / deviation
            return float(curve(m) * np.exp(-0.5 * z * z) / (deviation * np.sqrt(2 * np.pi)))

        ends = (mean - 12 * deviation, mean + 12 * deviation)
        return quad(weighted, *ends, points=[0.0, mean], limit=500)[0]

    found = logistic_averages(np.array(mean), np.array(deviation**2))
    assert found.sigmoid == pytest.approx(average(expit), abs=2e-8)
    assert found.slope == pytest.approx(average(lambda m: expit(m) * expit(-m)), abs=2e-8)
    assert found.softplus == pytest.approx(average(lambda m: np.logaddexp(0.0, m)), abs=1e-7)
