import pytest

from runpod_comfy.workflow.extent import Extent, saved_extents


def node(class_type="Node", **inputs):
    return {"class_type": class_type, "inputs": inputs}


def saved(*nodes, **input_pixels):
    """Return what a chain of nodes saves, each fed by the one before."""
    graph = {}
    for number, each in enumerate(nodes):
        link = {"samples": [str(number - 1), 0]} if number else {}
        graph[str(number)] = node(each["class_type"], **{**link, **each["inputs"]})
    graph["save"] = node("SaveImage", images=[str(len(nodes) - 1), 0], filename_prefix="a")
    return saved_extents(graph, input_pixels=input_pixels)["save"]


LATENT = node("EmptyLatentImage", width=512, height=768, batch_size=4)


@pytest.mark.parametrize(
    ("nodes", "extent"),
    [
        ([LATENT, node("KSampler", seed=1), node("VAEDecode")], Extent(4, 512 * 768)),
        ([LATENT, node("LatentUpscaleBy", scale_by=1.5)], Extent(4, int(512 * 768 * 2.25))),
        ([LATENT, node("UltimateSDUpscale", upscale_by=2)], Extent(4, 512 * 768 * 4)),
        ([LATENT, node("ImageScale", width=100, height=50)], Extent(4, 5000)),
        ([LATENT, node("ImageScale", width=0, height=1024)], Extent(4, 512 * 768)),
        ([LATENT, node("ImageScaleToTotalPixels", megapixels=2.0)], Extent(4, 2 * 1024 * 1024)),
        ([LATENT, node("RepeatLatentBatch", amount=3)], Extent(12, 512 * 768)),
        ([node("EmptySD3LatentImage", width=64, height=64)], Extent(1, 4096)),
        ([node("EmptyHunyuanLatentVideo", width=64, height=64, length=25, batch_size=1)], Extent(25, 4096)),
        ([node("LoadImage", image="a.png"), node("VAEEncode"), node("KSampler", seed=1)], Extent(1, 1000)),
    ],
    ids=lambda value: value[-1]["class_type"] if isinstance(value, list) else "",
)
def test_sizes_follow_the_graph(nodes, extent):
    assert saved(*nodes, **{"a.png": 1000}) == extent


def test_an_upscale_model_is_taken_for_4x():
    upscale = node("ImageUpscaleWithModel", upscale_model=["0", 0])
    assert saved(LATENT, upscale) == Extent(4, 512 * 768 * 16)


def test_a_size_may_come_from_a_primitive():
    graph = {
        "1": node("PrimitiveInt", value=640),
        "2": node("EmptyLatentImage", width=["1", 0], height=["1", 0], batch_size=2),
        "3": node("SaveImage", images=["2", 0], filename_prefix="a"),
    }
    assert saved_extents(graph, input_pixels={}) == {"3": Extent(2, 640 * 640)}


def test_what_the_graph_does_not_tell_is_not_guessed():
    assert saved(node("LoadImage", image="unknown.png")) is None
    assert saved(node("SomeCustomSource", resolution="1024x1024")) is None


def test_images_that_are_joined_are_added_up():
    graph = {
        "1": node("EmptyImage", width=10, height=10, batch_size=2),
        "2": node("EmptyImage", width=20, height=10, batch_size=3),
        "3": node("ImageBatch", image1=["1", 0], image2=["2", 0]),
        "4": node("SaveImage", images=["3", 0], filename_prefix="a"),
    }
    assert saved_extents(graph, input_pixels={}) == {"4": Extent(5, 200)}
