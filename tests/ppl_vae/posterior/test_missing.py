import numpy as np
import pytest

from ppl_vae.errors import InputError
from ppl_vae.posterior import missing_pattern
from ppl_vae.posterior.missing import as_mask, check_covers_elements, split_missing


class TestPatterns:
    @pytest.mark.parametrize(
        ("pattern", "axis", "half"),
        [("top", 1, slice(2)), ("bottom", 1, slice(2, None)), ("left", 2, slice(3)), ("right", 2, slice(3, None))],
    )
    @pytest.mark.parametrize("channels", [(), (1,), (3,)])
    def test_halves_of_images(self, pattern, axis, half, channels):
        missing = missing_pattern(pattern, (2, 5, 6, *channels))
        expected = np.zeros_like(missing)
        expected[(slice(None),) * axis + (half,)] = True
        np.testing.assert_array_equal(missing, expected)

    @pytest.mark.parametrize("shape", [(500, 20), (500, 4, 5)])
    def test_random_entries(self, shape):
        missing = missing_pattern("random:0.3", shape, seed=1)
        # 10,000 entries: standard error 0.0046.
        assert abs(missing.mean() - 0.3) < 4 * 0.0046
        np.testing.assert_array_equal(missing, missing_pattern("random:0.3", shape, seed=1))
        assert np.any(missing != missing_pattern("random:0.3", shape, seed=2))

    @pytest.mark.parametrize("shape", [(20, 5, 5, 3), (20, 30, 3)])
    def test_random_pixels_and_points_are_missing_whole(self, shape):
        missing = missing_pattern("random:0.5", shape)
        np.testing.assert_array_equal(missing.all(axis=-1), missing.any(axis=-1))
        assert 0.3 < missing.mean() < 0.7

    def test_ends_of_the_range(self):
        assert not missing_pattern("random:0", (9, 9)).any()
        assert missing_pattern("random:1", (9, 9)).all()

    @pytest.mark.parametrize("pattern", ["middle", "", "top:0.5"])
    def test_no_such_pattern(self, pattern):
        with pytest.raises(InputError, match="missing must be one of top, bottom, left, right, random:FRACTION"):
            missing_pattern(pattern, (2, 4, 4))

    @pytest.mark.parametrize("pattern", ["random", "random:x", "random:1.5", "random:-1", "random:nan"])
    def test_no_fraction(self, pattern):
        with pytest.raises(InputError, match="missing must be random:FRACTION with a fraction from 0 to 1"):
            missing_pattern(pattern, (2, 4, 4))

    @pytest.mark.parametrize("shape", [(2, 8), (2, 40, 3), (2, 2, 3, 4)])
    def test_no_images(self, shape):
        with pytest.raises(InputError, match="missing must be random:FRACTION for data that are no images"):
            missing_pattern("bottom", shape)


class TestMasks:
    @pytest.mark.parametrize("dtype", [bool, int, float])
    def test_of_all_data_or_of_each(self, dtype):
        mask = np.array([[1, 0, 1], [0, 0, 1]]).astype(dtype)
        np.testing.assert_array_equal(as_mask(mask, (2, 3)), mask.astype(bool))
        np.testing.assert_array_equal(as_mask(mask[0], (2, 3)), [[True, False, True]] * 2)
        np.testing.assert_array_equal(as_mask(mask[:1], (2, 3)), [[True, False, True]] * 2)

    def test_other_values_and_shapes(self):
        with pytest.raises(InputError, match="mask must be 1 where an entry is missing .* but it holds 0.5"):
            as_mask(np.full((2, 3), 0.5), (2, 3))
        with pytest.raises(InputError, match=r"mask must have the shape \(2, 3\) .* but has shape \(3, 2\)"):
            as_mask(np.zeros((3, 2)), (2, 3))

    def test_nan_mask_and_pattern_join(self):
        x = np.array([[[np.nan, 1.0], [2.0, 3.0]]])
        filled, missing = split_missing(x, "bottom")
        assert missing.tolist() == [[[True, False], [True, True]]]
        assert filled.tolist() == [[[0.0, 1.0], [0.0, 0.0]]]
        assert split_missing(x)[1].tolist() == np.isnan(x).tolist()
        assert split_missing(x, np.ones((2, 2)))[1].all()
        assert not split_missing(np.zeros((2, 2), int))[1].any()

    def test_no_data(self):
        with pytest.raises(InputError, match=r"x must have shape \(n, \*data_shape\)"):
            split_missing([1.0])


class TestElements:
    def test_of_entries_pixels_and_data(self):
        missing = np.zeros((2, 2, 3), bool)
        missing[1, 0] = True
        assert check_covers_elements(missing, (2, 2, 3)) is not missing
        np.testing.assert_array_equal(check_covers_elements(missing, (2, 2, 3)), missing)
        np.testing.assert_array_equal(check_covers_elements(missing, (2, 2)), missing[..., 0])
        with pytest.raises(InputError, match=r"cover the 6 entries .* at \(\) of datum 1 it covers 3 of them"):
            check_covers_elements(missing, (2,))
