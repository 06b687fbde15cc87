"""Spans as OpenTelemetry's own SDK gets them."""

import asyncio
import logging
import subprocess
import sys

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from runpod_comfy import JobFailed, RunpodComfyWorkflowExecutor, WorkflowTemplate

GRAPH = """{
  "1": {"class_type": "EmptyImage", "inputs": {"width": %s, "height": 16, "batch_size": {{ batch_size }}, "color": 0}},
  "2": {"class_type": "FixtureSleep", "inputs": {"image": ["1", 0], "seconds": {{ seconds | default(0) }}, "steps": 2,
        "seed": 1}},
  "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "{{ prompt | default('p') }}"}}
}"""
TEMPLATE = WorkflowTemplate.from_string(GRAPH % 16)
PHASES = ["submit", "queue", "run", "deliver"]


@pytest.fixture(scope="module")
def exporter():
    made = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(made))
    trace.set_tracer_provider(provider)  # once for a process
    return made


@pytest.fixture
def spans(exporter):
    """Give the spans that have ended since, by name."""
    exporter.clear()
    return lambda: {span.name.removeprefix("runpod_comfy."): span for span in exporter.get_finished_spans()}


@pytest.fixture
def executor(runpod_emulator):
    assert not runpod_emulator.jobs()
    with RunpodComfyWorkflowExecutor() as made:
        yield made


def test_a_submission_is_a_span_with_its_phases_and_the_jobs_id(executor, spans):
    result = executor.submit_workflow(TEMPLATE, num_samples=2, variables={"prompt": "secret"})
    found = spans()
    root = found["workflow"]
    assert sorted(found) == sorted(["workflow", *PHASES])
    assert all(found[phase].parent.span_id == root.context.span_id for phase in PHASES)
    assert {span.attributes["runpod_comfy.job_id"] for span in found.values()} == {result.job_id}
    assert (root.attributes["runpod_comfy.images"], root.attributes["runpod_comfy.num_samples"]) == (2, 2)
    assert root.attributes["runpod_comfy.place"] == executor.place
    assert [event.name for event in found["run"].events] == ["batch finished"] * 2
    begins = [found[phase].start_time for phase in PHASES]
    assert begins == sorted(begins)
    assert "secret" not in "".join(span.to_json() for span in found.values())


@pytest.mark.usefixtures("spans")
async def test_the_parent_is_the_callers_span_in_any_task(executor, exporter):
    async def caller(name):
        with trace.get_tracer("app").start_as_current_span(name) as span:
            await executor.submit_workflow_async(TEMPLATE)
            return span.context

    contexts = await asyncio.gather(caller("a"), caller("b"))
    roots = [span for span in exporter.get_finished_spans() if span.name == "runpod_comfy.workflow"]
    assert {root.parent.span_id for root in roots} == {context.span_id for context in contexts}
    assert {root.context.trace_id for root in roots} == {context.trace_id for context in contexts}


def test_a_failure_is_on_the_span(executor, spans):
    with pytest.raises(JobFailed):
        executor.submit_workflow(WorkflowTemplate.from_string(GRAPH % 0))
    root = spans()["workflow"]
    assert root.status.status_code is trace.StatusCode.ERROR
    assert root.events[-1].name == "exception"
    assert "width" in root.status.description


def test_leaving_early_closes_all_spans_and_is_no_error(executor, spans):
    for image in executor.stream_workflow(TEMPLATE, num_samples=3, variables={"seconds": 0.2}):
        assert image
        break
    found = spans()
    assert sorted(found) == sorted(["workflow", *PHASES])
    assert found["workflow"].attributes["runpod_comfy.left_early"]
    assert found["workflow"].status.is_unset


def test_a_handle_has_spans_of_what_it_follows(executor, spans):
    handle = executor.start_workflow(TEMPLATE)
    handle.result()
    found = spans()
    assert {"follow", "queue", "run", "deliver"} <= set(found)
    assert found["follow"].attributes["runpod_comfy.job_id"] == handle.job_id


def test_it_is_imported_with_the_first_submission_and_not_before():
    code = (
        "import sys, runpod_comfy.executors.local, runpod_comfy.executors.base; print('opentelemetry' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, text=True, stdout=subprocess.PIPE).stdout
    assert found == "False\n"


def test_where_it_is_not_installed_nothing_is_missed():
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from runpod_comfy import LocalWorkflowExecutor, WorkflowTemplate\n"
        f"t = WorkflowTemplate.from_string({GRAPH % 16!r})\n"
        "with LocalWorkflowExecutor() as executor: print(len(executor.submit_workflow(t)))"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, text=True, stdout=subprocess.PIPE).stdout
    assert found == "1\n"


def test_log_records_of_a_job_have_its_id_and_names_below_the_package(executor, caplog):
    with caplog.at_level(logging.DEBUG, "runpod_comfy"):
        result = executor.submit_workflow(TEMPLATE, num_samples=1, batch_size=2, previews=True)
        handle = executor.start_workflow(TEMPLATE, variables={"seconds": 5})
        handle.cancel()
    ours = [record for record in caplog.records if record.name.startswith("runpod_comfy.")]
    cancelled = [record for record in ours if record.name == "runpod_comfy.executors.cancelling"]
    assert [record.job_id for record in cancelled] == [handle.job_id]
    assert result.job_id
