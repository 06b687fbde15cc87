from pathlib import Path

SLOW = """{
  "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 0}},
  "2": {"class_type": "FixtureSleep", "inputs": {"image": ["1", 0], "seconds": 60, "steps": 600, "seed": 1}},
  "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "slow"}}
}"""


def test_each_job_is_cancelled_and_its_state_told(cli, shell, runpod_emulator):
    Path("slow.jinja").write_text(SLOW)
    process = shell("exec runpod-comfy run slow.jinja")
    next(line for line in process.stderr if "started" in line)
    [job] = runpod_emulator.jobs()
    done = cli("cancel", job.job_id)
    assert (done.code, done.lines) == (0, [f"{job.job_id}  CANCELLED"])
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "was cancelled" in err


def test_a_job_that_is_not_known_does_not_keep_the_others(cli, runpod_emulator):
    cli("run", "portrait/workflow.json.jinja", "portrait/chelsea.jpg")
    [job] = runpod_emulator.jobs()
    done = cli("cancel", "nonsense", job.job_id)
    assert done.lines == [f"{job.job_id}  COMPLETED"]
    assert "nonsense" in done.err
    assert done.code == 1
