import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runpod_comfy import WorkflowTemplate
from runpod_comfy.dataset.grids import Axis, parse_axis
from runpod_comfy.dataset.plan import make_plan, make_tasks
from runpod_comfy.dataset.rows import Row, Table
from runpod_comfy.errors import ConfigurationError, InputError

TEMPLATE = WorkflowTemplate.from_string(
    """{
  "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "{{ model | default('a') }}"}},
  "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "{{ prompt | default('x') }}", "clip": ["1", 1]}},
  "3": {"class_type": "KSampler", "inputs": {"model": ["1", 0], "positive": ["2", 0], "cfg": {{ cfg | default(7) }},
        "seed": 1}},
  "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "{{ prefix | default('p') }}"}}
}"""
)


def table(*values, columns=()):
    rows = tuple(Row(id=f"r{n}", line=n + 2, values=each) for n, each in enumerate(values))
    return Table(rows=rows, columns=tuple(columns) or tuple(dict.fromkeys(name for each in values for name in each)))


def tasks_of(data, *axes, **options):
    return make_tasks(data, [parse_axis(axis) for axis in axes], template=TEMPLATE, **options)


def test_each_row_and_cell_is_a_task_numbered_as_in_the_data():
    tasks = tasks_of(table({"prompt": "a"}, {"prompt": "b"}), "cfg=5,7", num_samples=4)
    assert [(task.index, task.row.id, task.cell["cfg"]) for task in tasks] == [
        (0, "r0", 5),
        (1, "r0", 7),
        (2, "r1", 5),
        (3, "r1", 7),
    ]
    assert len({task.key for task in tasks}) == 4


def test_in_a_grid_the_seed_is_the_same_in_every_cell_of_a_row():
    tasks = tasks_of(table({"prompt": "a"}, {"prompt": "b"}), "cfg=5,7", run_seed=3)
    seeds = {task.row.id: {each.seed for each in tasks if each.row is task.row} for task in tasks}
    assert all(len(each) == 1 for each in seeds.values())
    assert seeds["r0"] != seeds["r1"]


@pytest.mark.parametrize(("policy", "expected"), [("same", {9}), ("77", {77})])
def test_one_seed_for_all_on_request(policy, expected):
    assert {task.seed for task in tasks_of(table({}, {}), seeds=policy, run_seed=9)} == expected


def test_the_rows_own_seed_wins_and_may_be_as_large_as_comfyui_takes():
    tasks = tasks_of(table({"seed": 5}, {"seed": str(2**64 - 1)}, {"seed": f"'{2**64 - 1}"}), seeds="same")
    assert [task.seed for task in tasks] == [5, 2**64 - 1, 2**64 - 1]
    with pytest.raises(InputError, match="line 2: seed is -1"):
        tasks_of(table({"seed": -1}))


@given(st.integers(0, 2**64 - 1), st.randoms(use_true_random=False))
def test_seeds_depend_on_the_run_and_the_row_and_not_on_the_rows_place(run_seed, source):
    data = table(*({"prompt": str(n)} for n in range(6)))
    shuffled = Table(rows=tuple(source.sample(data.rows, 6)), columns=data.columns)
    one = {task.key: task.seed for task in tasks_of(data, run_seed=run_seed)}
    assert one == {task.key: task.seed for task in tasks_of(shuffled, run_seed=run_seed)}
    assert all(seed < 2**32 for seed in one.values())


@pytest.mark.parametrize(("axes", "options"), [(["colour=red"], {}), ([], {"seeds": "random"})])
def test_what_cannot_be_meant_is_refused(axes, options):
    with pytest.raises(ConfigurationError):
        tasks_of(table({"prompt": "a"}), *axes, **options)


def test_a_grid_of_seeds_is_computed_with_them_whether_the_template_has_a_seed_or_not():
    tasks = tasks_of(table({"prompt": "a", "seed": 5}), "seed=11,12", "cfg=5,7")
    assert [(task.seed, task.cell["seed"], task.variables["cfg"]) for task in tasks] == [
        (11, 11, 5),
        (11, 11, 7),
        (12, 12, 5),
        (12, 12, 7),
    ]
    assert all("seed" not in task.variables for task in tasks)
    with pytest.raises(InputError, match="--grid seed is 'x'"):
        tasks_of(table({}), "seed=x")


def test_a_seed_for_all_rows_gives_way_to_a_rows_own():
    tasks = tasks_of(table({"prompt": "a", "seed": 5}, {"prompt": "b"}), variables={"seed": 77})
    assert [(task.seed, "seed" in task.variables) for task in tasks] == [(5, False), (77, False)]


@pytest.mark.parametrize(("values", "axes"), [({"batch_size": 2}, []), ({}, ["batch_size=1,2"])])
def test_the_size_of_batches_does_not_vary_and_that_is_said_before_anything_is_sent(values, axes):
    template = WorkflowTemplate.from_string(
        """{"1": {"class_type": "EmptyLatentImage", "inputs": {"batch_size": {{ batch_size }}}}}"""
    )
    with pytest.raises(ConfigurationError, match="Pass --batch-size N"):
        make_tasks(table(values), [parse_axis(axis) for axis in axes], template=template)
    assert tasks_of(table({"batch_size": 2}))  # a column that the template does not use is one more column


def test_what_loads_a_model_changes_least_often():
    data = table(*({"prompt": f"p{n}", "model": "ab"[n % 2]} for n in range(6)))
    plan = make_plan(tasks_of(data, "cfg=5,7"), data, TEMPLATE)
    assert plan.slowest[0] == "model"
    assert [task.variables["model"] for task in plan.tasks] == ["a"] * 6 + ["b"] * 6
    assert (plan.model_loads, plan.unordered_loads) == (2, 6)
    assert sorted(task.index for task in plan.tasks) == list(range(12))


def test_the_order_is_that_of_the_data_where_nothing_varies():
    data = table({"prompt": "a"}, {"prompt": "a", "id": "x"})
    assert [task.index for task in make_plan(tasks_of(data), data, TEMPLATE).tasks] == [0, 1]
    assert make_plan([], Table(rows=()), TEMPLATE).image_count == 0


def test_columns_that_the_template_does_not_use_are_told():
    data = table({"prompt": "a", "price": 3, "seed": 1})
    plan = make_plan(tasks_of(data), data, TEMPLATE)
    assert (plan.used, plan.unused) == (("prompt",), ("price",))
    assert "price" not in plan.tasks[0].variables


def test_the_column_that_names_photos_counts_as_used_where_the_template_reads_photos():
    row = Row(id="a", line=2, values={"prompt": "a"}, photos=(Path("me.png"),))
    data = Table(rows=(row,), columns=("prompt", "image", "price"))
    plan = make_plan([], data, WorkflowTemplate.from_string('{"1": "{{ prompt }} {{ input_images[0] }}"}'))
    assert (plan.used, plan.unused, plan.ignored_photos) == (("prompt", "image (photos)"), ("price",), 0)
    plan = make_plan([], data, TEMPLATE)
    assert (plan.used, plan.unused, plan.ignored_photos) == (("prompt",), ("image", "price"), 1)


def test_variables_for_all_rows_give_way_to_a_rows_own():
    tasks = tasks_of(table({"prompt": "mine"}, {}), variables={"prompt": "everybody's", "cfg": 3})
    assert [dict(task.variables) for task in tasks] == [
        {"prompt": "mine", "cfg": 3},
        {"prompt": "everybody's", "cfg": 3},
    ]


def test_images_and_batches_are_counted():
    data = table({}, {})
    plan = make_plan(tasks_of(data, num_samples=5), data, TEMPLATE)
    assert (plan.image_count, plan.batch_count(2)) == (10, 6)


def test_a_thousand_rows_are_planned():
    source = random.Random(1)
    data = table(*({"prompt": str(source.random()), "model": source.choice("abc")} for _ in range(1000)))
    plan = make_plan(make_tasks(data, [Axis("cfg", (5, 7))], template=TEMPLATE), data, TEMPLATE)
    assert plan.model_loads == 3
    assert plan.unordered_loads > 500
