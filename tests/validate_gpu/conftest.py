import pytest
import torch

from tests.validate_gpu.measure.known_law import CPU, LawBench


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Models this small gain nothing from a second thread, and lose much where tests run side by side."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def law_profile(tmp_path_factory):
    """The folder of a profile of one CPU thread, whose times follow a law and not this CPU's."""
    from click.testing import CliRunner

    from l4sim.cli import cli

    folder = tmp_path_factory.mktemp("profiles") / "law"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("validate_gpu.measure.setup.TorchBench.measure", lambda self, point: LawBench().measure(point))
        patch.setattr("validate_gpu.measure.describe.describe_gpu", lambda device, name: CPU)
        command = ["profile", "measure", "--device", "cpu", "--out", str(folder), "--budget", "10m"]
        measured = CliRunner().invoke(cli, command)
    assert measured.exit_code == 0, measured.output
    return folder
