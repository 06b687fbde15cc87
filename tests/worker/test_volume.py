from pathlib import Path

from runpod_comfy.worker.volume import find_model_paths, misplaced_models, write_model_paths


def test_volume_without_models_and_nodes_changes_nothing(tmp_path):
    assert find_model_paths(tmp_path / "absent") == {}
    assert find_model_paths(tmp_path) == {}
    (tmp_path / "models").mkdir()
    assert write_model_paths(tmp_path) is None


def test_each_folder_of_models_counts_under_its_own_name(tmp_path):
    for name in ("checkpoints", "my node's: models", ".cache"):
        (tmp_path / "models" / name).mkdir(parents=True)
    (tmp_path / "models" / "notes.txt").touch()
    assert find_model_paths(tmp_path) == {
        "volume_0": {
            "base_path": str(tmp_path),
            "checkpoints": "models/checkpoints",
            "my node's: models": "models/my node's: models",
        }
    }


def test_a_comfyui_that_lies_on_the_volume_counts_too(tmp_path):
    (tmp_path / "models" / "loras").mkdir(parents=True)
    (tmp_path / "ComfyUI" / "custom_nodes").mkdir(parents=True)
    assert find_model_paths(tmp_path) == {
        "volume_0": {"base_path": str(tmp_path), "loras": "models/loras"},
        "volume_1": {"base_path": str(tmp_path / "ComfyUI"), "custom_nodes": "custom_nodes"},
    }


def test_file_that_is_written_is_yaml_and_can_be_removed(tmp_path):
    (tmp_path / "models" / "vae").mkdir(parents=True)
    path = write_model_paths(tmp_path)
    assert isinstance(path, Path)
    assert path.suffix == ".yaml"
    assert '"vae":"models/vae"' in path.read_text()
    path.unlink()


def test_models_beside_the_folder_models_are_misplaced(tmp_path):
    for path in ("checkpoints/a.safetensors", "ComfyUI/loras/b.pt", "models/vae/c.safetensors", "clip/readme.txt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "unet").mkdir()
    assert misplaced_models(tmp_path) == [str(tmp_path / "ComfyUI" / "loras"), str(tmp_path / "checkpoints")]
    assert misplaced_models(tmp_path / "absent") == []
