import pytest

from amber_ext import Pattern


@pytest.mark.parametrize("text, n, m", [("2:4", 2, 4), ("8:16", 8, 16), ("1:1", 1, 1), ("32:32", 32, 32)])
def test_parses(text, n, m):
    pattern = Pattern(text)
    assert (pattern.n, pattern.m, str(pattern), pattern.density) == (n, m, text, n / m)
    assert Pattern(pattern) == pattern
    assert hash(Pattern(text)) == hash(pattern)


@pytest.mark.parametrize(
    "bad", ["4:2", "0:4", "2:33", "2", "a:b", "2:4 ", "-2:4", "", "2:4:8", None, 2.4, (2, 4)]
)
def test_refuses_in_one_line(bad):
    with pytest.raises(ValueError, match=r"pattern: .* 1 <= N <= M <= 32") as error:
        Pattern(bad)
    assert repr(bad) in str(error.value)
    assert "\n" not in str(error.value)
