import logging

from runpod_comfy.cli.dataset_log import warnings_kept
from runpod_comfy.cli.output import Output


def test_a_flood_of_warnings_is_kept_in_a_file_and_told_in_four_lines(tmp_path, capsys):
    path = tmp_path / "warnings.log"
    with warnings_kept(path, Output(command="batch")):
        for number in range(500):
            logging.getLogger("runpod_comfy.serverless").warning("job %d: 503", number)
            logging.getLogger("runpod_comfy.executors.collect").warning("job %d: batches are whole", number)
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == 4
    assert shown[-1] == f"Warning: 497 more warnings are in {path}"
    assert len(path.read_text().splitlines()) == 1000


def test_without_warnings_there_is_no_file(tmp_path):
    with warnings_kept(tmp_path / "warnings.log", Output(command="batch")):
        logging.getLogger("runpod_comfy").info("all is well")
    assert not list(tmp_path.iterdir())
