import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Tests run side by side, and threads that wait for each other would take the cores."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _nothing_is_kept(monkeypatch, tmp_path_factory):
    """Each test proves its model, whatever another run has proved."""
    folder = tmp_path_factory.mktemp("proofs")
    monkeypatch.setattr("serve_app.loading.kept_proofs._folder", lambda: folder)
