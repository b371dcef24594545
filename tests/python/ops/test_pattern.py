import pytest

from amber_ext import Pattern


@pytest.mark.parametrize("text, n, m", [("2:4", 2, 4), ("8:16", 8, 16), ("1:1", 1, 1), ("32:32", 32, 32)])
def test_parses(text, n, m):
    pattern = Pattern(text)
    assert (pattern.n, pattern.m, str(pattern), pattern.density) == (n, m, text, n / m)
    assert Pattern(pattern) == pattern
    assert hash(Pattern(text)) == hash(pattern)


@pytest.mark.parametrize("text, density", [("10:16w", 0.625), ("12:16w", 0.75)])
def test_windowed(text, density):
    pattern = Pattern(text)
    assert (pattern.m, pattern.windowed, str(pattern), pattern.density) == (16, True, text, density)
    assert Pattern(pattern) == pattern != Pattern(text[:-1])


@pytest.mark.parametrize(
    "bad",
    [
        "4:2",
        "0:4",
        "2:33",
        "2",
        "a:b",
        "2:4 ",
        "-2:4",
        "",
        "2:4:8",
        "8:16w",
        "10:16W",
        "10:32w",
        "w",
        None,
        2.4,
        (2, 4),
    ],
)
def test_refuses_in_one_line(bad):
    with pytest.raises(ValueError, match=r"pattern: .* 1 <= N <= M <= 32") as error:
        Pattern(bad)
    assert repr(bad) in str(error.value)
    assert "\n" not in str(error.value)
