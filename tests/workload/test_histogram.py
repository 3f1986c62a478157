import pytest

from l4sim.errors import InputError
from l4sim.workload.histogram import read_histogram


def written(tmp_path, text):
    path = tmp_path / "lengths.csv"
    path.write_text(text)
    return path


def test_reads_rows_whatever_the_order_of_columns(tmp_path):
    path = written(tmp_path, "requests_per_s, prompt_tokens,output_tokens\n0.5,100,20\n\n1e1, 4000 ,1\n")
    histogram = read_histogram(path)
    assert histogram.prompt_tokens.tolist() == [100, 4000]
    assert histogram.output_tokens.tolist() == [20, 1]
    assert histogram.requests_per_s.tolist() == [0.5, 10]


HEADER = "prompt_tokens,output_tokens,requests_per_s\n"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "line 1: columns are none; accepted are prompt_tokens, output_tokens, requests_per_s"),
        ("prompt_tokens,rate\n1,2\n", "line 1: columns are prompt_tokens, rate; accepted"),
        ("a," + HEADER + "1,1,1,1\n", "line 1: columns are a, prompt_tokens"),
        (HEADER, "no rows"),
        (HEADER + "1,1\n", "line 2: 2 values, accepted are 3"),
        (HEADER + "1,1,1\n0,1,1\n", "line 3: prompt_tokens is '0', accepted is a whole number >= 1"),
        (HEADER + "1,2.5,1\n", "line 2: output_tokens is '2.5'"),
        (HEADER + "1,2,-1\n", "line 2: requests_per_s is '-1', accepted is a number >= 0"),
        (HEADER + "1,2,many\n", "line 2: requests_per_s is 'many'"),
        (HEADER + "1,2,nan\n", "line 2: requests_per_s is 'nan'"),
    ],
)
def test_refuses_by_line_and_column(tmp_path, text, complaint):
    path = written(tmp_path, text)
    with pytest.raises(InputError) as error:
        read_histogram(path)
    assert str(error.value).startswith(f"{path}: {complaint}")


def test_refuses_what_is_no_text(tmp_path):
    path = tmp_path / "lengths.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not CSV text"):
        read_histogram(path)
