import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Models this small gain nothing from a second thread, and lose much where tests run side by side."""
    torch.set_num_threads(1)
