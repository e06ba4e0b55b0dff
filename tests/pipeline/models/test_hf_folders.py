"""Folders and repositories of transformers' models: fetched, hashed, refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import RefusedError
from pipeline.models import MODELS, load_model, registry, weights
from pipeline.models.registry import Normalisation
from pipeline.storage import Access
from tests.pipeline.models import pretrained
from tests.pipeline.models.conftest import SIDE, loaded

pytest.importorskip("transformers", reason="the extra `hf` is not installed")


def changed(folder: Path, name: str, **values: Any) -> None:
    path = folder / name
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**content, **values}))


def test_the_folder_says_how_images_are_prepared(folder: Path) -> None:
    def spec() -> Any:
        return registry.resolve("hf", str(folder), Access())

    assert (spec().view, spec().normalisation.mean) == ("padded", (123.675, 116.28, 103.53))
    changed(folder, "preprocessor_config.json", size={"longest_edge": 256}, image_mean=[0.5] * 3, image_std=[0.25] * 3)
    assert spec().normalisation == Normalisation((127.5,) * 3, (63.75,) * 3)
    changed(folder, "preprocessor_config.json", size={"height": 256, "width": 256}, do_normalize=False)
    assert (spec().view, spec().normalisation) == ("stretched", Normalisation((0, 0, 0), (255,) * 3))
    assert loaded(folder).stretched
    changed(folder, "preprocessor_config.json", size={"longest_edge": 512})
    with pytest.raises(RefusedError, match=r"resizes images to {'longest_edge': 512}, and its config\.json says 256"):
        spec()


def sharded(folder: Path) -> None:
    """Weights in two files and an index, as large models have."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[:9], "model-00002-of-00002.safetensors": names[9:]}
    for file, some in shards.items():
        save_file({name: tensors[name] for name in some}, folder / file, metadata={"format": "pt"})
    index = {name: file for file, some in shards.items() for name in some}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def test_the_hash_is_of_what_is_loaded(folder: Path) -> None:
    whole = weights.resolve("hf", str(folder), Access()).sha256
    (folder / "README.md").write_text("of no account")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    assert weights.resolve("hf", str(folder), Access()).sha256 == whole
    embedding = loaded(folder).encode([np.zeros((SIDE, SIDE, 3), np.uint8)]).maps[-1]
    sharded(folder)
    split = weights.resolve("hf", str(folder), Access())
    assert split.sha256 != whole
    assert torch.equal(loaded(folder).encode([np.zeros((SIDE, SIDE, 3), np.uint8)]).maps[-1], embedding)
    changed(folder, "config.json", note="another")
    with pytest.raises(RefusedError, match="changed: its SHA-256 is"):
        weights.local_path(split)


def test_a_remote_folder_is_fetched_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    monkeypatch.setenv("RELABEL_CACHE", str(tmp_path / "cache"))
    (folder / "run.py").write_text("raise SystemExit")
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/hub/tiny", recursive=True)
    given = weights.resolve("hf", "memory://hub/tiny", Access(tries=1))
    assert given.sha256 == weights.resolve("hf", str(folder), Access()).sha256
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [given.sha256]
    copy = tmp_path / "cache" / given.sha256
    assert sorted(path.name for path in copy.iterdir()) == ["config.json", "model.safetensors"]
    memory.rm("/hub/tiny", recursive=True)
    assert registry.resolve("hf", given.readable, Access()).input_side == SIDE
    assert load_model("hf", given, "cpu", 2).weights_sha256 == given.sha256
    with pytest.raises(RefusedError, match="memory://hub/tiny"):
        weights.resolve("hf", "memory://hub/tiny", Access(tries=1))


class Hub(ThreadingHTTPServer):
    """A hub with one repository, owner/tiny, of a folder's files, and a gated one."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.folder = folder
        self.asked: list[str] = []


class _Answers(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        name = self.path.partition("/resolve/")[2].partition("/")[2]
        if "owner/gated" in self.path:
            self.answer(403, b"", {"X-Error-Code": "GatedRepo"})
        elif "owner/tiny" not in self.path:
            self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif self.path.startswith("/api/models/owner/tiny/tree/"):
            entries = [self.entry(path) for path in sorted(self.server.folder.iterdir())]
            self.answer(200, json.dumps(entries).encode(), {})
        elif self.path.startswith("/api/"):
            files = [{"rfilename": path.name} for path in sorted(self.server.folder.iterdir())]
            self.answer(200, json.dumps({"id": "owner/tiny", "sha": "c" * 40, "siblings": files}).encode(), {})
        else:
            content = (self.server.folder / name).read_bytes()
            self.answer(200, content, {"X-Repo-Commit": "c" * 40, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'})

    def entry(self, path: Path) -> dict[str, object]:
        content = path.read_bytes()
        return {"type": "file", "path": path.name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    def answer(self, code: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    import huggingface_hub.constants

    server = Hub(folder)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("RELABEL_CACHE", str(tmp_path / "cache"))
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_repository_of_a_hub_is_fetched_once(folder: Path, hub: Hub, tmp_path: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "run.py").write_text("raise SystemExit")
    given = weights.resolve("hf", "hf://owner/tiny", Access(tries=1))
    assert given.sha256 == weights.resolve("hf", str(folder), Access()).sha256
    [copy] = (tmp_path / "cache").iterdir()
    assert copy.name == given.sha256
    assert sorted(path.name for path in copy.iterdir()) == ["config.json", "model.safetensors"]
    hub.asked.clear()
    assert load_model("hf", given, "cpu", 1).weights_sha256 == given.sha256
    assert hub.asked == []


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("hf://owner/gated", "is gated: accept its terms on its page, and set HF_TOKEN"),
        ("hf://owner/none", "does not exist, or is private: then set HF_TOKEN"),
        ("hf://tiny", "names no repository: hf://owner/name"),
    ],
)
@pytest.mark.usefixtures("hub")
def test_what_a_hub_does_not_give_is_one_line(uri: str, said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        weights.resolve("hf", uri, Access(tries=1))


def test_no_hub_in_reach_is_one_line(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(RefusedError, match=r"cannot fetch hf://facebook/sam3: .* give the folder of a copy") as refused:
        weights.resolve("sam3", None, Access(tries=1))
    assert "\n" not in str(refused.value)


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def no_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\xff" * 64)


def lost_shard(folder: Path) -> None:
    sharded(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def lost_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["mask_decoder.iou_token.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def other_shape(folder: Path) -> None:
    changed(folder, "config.json", mask_decoder_config={**pretrained.DECODER, "mlp_dim": 64})


def own_code(folder: Path) -> None:
    changed(folder, "config.json", auto_map={"AutoModel": "modeling.Evil"})
    (folder / "modeling.py").write_text("raise SystemExit('run')")


def other_model(folder: Path) -> None:
    changed(folder, "config.json", model_type="bert")


def odd_side(folder: Path) -> None:
    changed(folder, "config.json", prompt_encoder_config={"image_size": "large"})


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (no_config, "has no config.json: give a folder as save_pretrained writes it"),
        (broken_config, "config.json of .* is not a JSON object"),
        (pickled, r"has no safetensors \(pytorch_model.bin may hold code and is not read\)"),
        (cut, "model.safetensors of .* is damaged: it is not a whole safetensors file"),
        (no_header, "model.safetensors of .* is damaged"),
        (lost_shard, "names model-00002-of-00002.safetensors, which is not there"),
        (lost_tensor, "is no whole SamModel: it lacks mask_decoder.iou_token.weight"),
        (other_shape, "cannot be loaded as SamModel|is no whole SamModel"),
        (own_code, r"asks for code of its own \(auto_map in config.json\), which is never run"),
        (other_model, "is of model_type 'bert'; there are sam, sam_hq"),
        (odd_side, "image_size is 'large', not a number of pixels"),
    ],
)
def test_what_holds_no_model_is_refused(damage: Callable[[Path], None], said: str, folder: Path) -> None:
    damage(folder)
    with pytest.raises(RefusedError, match=said) as refused:
        loaded(folder)
    assert "\n" not in str(refused.value)


def test_without_the_extra(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.extras.find_spec", lambda _name: None)
    for name in ("hf", "sam3"):
        with pytest.raises(RefusedError, match=r"model .* needs transformers: pip install 'relabel-masks\[hf\]'"):
            weights.resolve(name, str(folders["sam"]), Access())
    spec = MODELS["hf"]
    assert spec.read is not None
    with pytest.raises(RefusedError, match="model edgetam needs timm"):
        spec.read(str(folders["edgetam"]), Access())
