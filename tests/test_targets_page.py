import re
from pathlib import Path

import pytest
import trustme

from runpod_comfy.executors.base import WorkflowExecutor

PAGE = (Path(__file__).parents[1] / "docs" / "targets.md").read_text("utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_every_snippet_runs(snippet, monkeypatch, tmp_path):
    monkeypatch.setenv("RUNPOD_API_KEY", "a-key")
    monkeypatch.chdir(tmp_path)
    trustme.CA().cert_pem.write_to_path("lab-ca.pem")
    names = {}
    exec(re.sub(r"<([A-Z_]+)>", lambda found: found[1].lower(), snippet), names)  # noqa: S102 - the page is ours
    assert [name for name, value in names.items() if isinstance(value, WorkflowExecutor)]
