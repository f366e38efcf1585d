"""The pool file: what it gives, what it refuses, and how an entry is added."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from podium.memory.errors import ConfigError
from podium.router.types import ModelSpec, Price
from podium.workers.poolfile import DEFAULT_POOL, PolicySpec, add_model, load_pool

GOOD = """\
# our pool
models:
  - name: small        # runs anywhere
    engine: llamacpp
    source: smollm2-135m
    price: {input: 0.08, output: 0.28}

  # the paid one
  - name: big
    engine: openai
    source: gpt-x
    price: {input: 1, output: 4}
    base_url: http://localhost:1/v1
# how to choose
policy: {kind: fixed, model: small, fallback: [big]}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "pool.yaml"
    path.write_text(text)
    return path


def model(name: str, **changes: object) -> ModelSpec:
    fields: dict[str, object] = {
        "name": name,
        "engine": "openai",
        "source": "m",
        "price": Price(input=Decimal("0.5"), output=Decimal("1.5")),
        "base_url": "http://localhost:11434/v1",
    }
    return ModelSpec.model_validate(fields | changes)


def test_models_keep_their_order_and_the_policy_is_read(tmp_path: Path) -> None:
    pool = load_pool(write(tmp_path, GOOD), tmp_path)
    assert list(pool.models) == ["small", "big"]
    assert pool.models["small"].price.input == Decimal("0.08")
    assert pool.policy == PolicySpec(kind="fixed", model="small", fallback=["big"])


def test_without_a_file_there_is_the_default_pool(tmp_path: Path) -> None:
    pool = load_pool(None, tmp_path)
    assert pool.path == DEFAULT_POOL
    spec = pool.models["smollm2-135m"]
    assert spec.engine == "llamacpp"
    assert spec.price.input > 0
    assert spec.price.output > 0
    write(tmp_path, GOOD)
    assert list(load_pool(None, tmp_path).models) == ["small", "big"]


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the pool file"):
        load_pool(tmp_path / "no.yaml", tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "said", "mend"),
    [
        ("    source: gpt-x", "    sorce: gpt-x", "line 11: unknown key 'models.1.sorce'", "'source'"),
        ("{input: 1, output: 4}", "{imput: 1, output: 4}", "models.1.price.imput", "'input'"),
        ("policy:", "polcy:", "line 15: unknown key 'polcy'", "'policy'"),
        ("kind: fixed", "knd: fixed", "policy.knd", "'kind'"),
        ("engine: openai", "engine: openia", "models.1.engine", "correct"),
        ("{input: 1, output: 4}", "{input: -1, output: 4}", "line 12: models.1.price.input", "correct"),
        ("name: big", "name: small", "two models are called 'small'", "rename"),
        ("fallback: [big]", "fallback: [bigg]", "names model 'bigg'", "did you mean 'big'?"),
        ("kind: fixed", "kind: cheapest", "takes no `model`", "correct"),
        ("models:", "models: {", "is no YAML", "correct"),
    ],
)
def test_a_wrong_file_says_where_and_what_to_do(
    tmp_path: Path, old: str, new: str, said: str, mend: str
) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        load_pool(write(tmp_path, GOOD.replace(old, new)), tmp_path)
    assert said in caught.value.message
    assert mend in caught.value.mend


@pytest.mark.parametrize("text", ["", "[]", "models: []", "just words"])
def test_a_file_of_another_shape_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        load_pool(write(tmp_path, text), tmp_path)


def test_variables_are_not_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    pool = load_pool(write(tmp_path, GOOD.replace("gpt-x", "${SECRET}")), tmp_path)
    assert pool.models["big"].source == "${SECRET}"


def test_local_sources_are_meant_from_the_files_folder(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    text = "models:\n"
    for name, engine, source in (
        ("a", "replay", "answers.jsonl"),
        ("b", "llamacpp", "models/b.gguf"),
        ("c", "torch", "weights"),
        ("d", "torch", "tiny-random"),
        ("e", "llamacpp", "/abs/e.gguf"),
    ):
        text += f"  - {{name: {name}, engine: {engine}, source: {source}, price: {{input: 1, output: 1}}}}\n"
    models = load_pool(write(tmp_path, text), tmp_path).models
    sources = {name: spec.source for name, spec in models.items()}
    assert sources == {
        "a": str(tmp_path / "answers.jsonl"),
        "b": str(tmp_path / "models/b.gguf"),
        "c": str(tmp_path / "weights"),
        "d": "tiny-random",
        "e": "/abs/e.gguf",
    }


def test_add_keeps_entries_comments_and_order(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    pool = add_model(path, model("ollama", api_key_env="OLLAMA_KEY"))
    text = path.read_text()
    assert list(pool.models) == ["small", "big", "ollama"]
    assert load_pool(path, tmp_path).models["ollama"] == model("ollama", api_key_env="OLLAMA_KEY")
    assert [line for line in GOOD.splitlines() if line not in text.splitlines()] == []
    assert text.index("ollama") < text.index("# how to choose")


def test_add_replaces_an_entry_of_the_same_name(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    pool = add_model(path, model("small"))
    assert list(pool.models) == ["small", "big"]
    assert pool.models["small"].engine == "openai"
    assert "# the paid one" in path.read_text()
    assert pool.policy.fallback == ["big"]


def test_add_works_on_flow_style_and_on_no_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "pool.yaml"
    assert list(add_model(path, model("a")).models) == ["a"]
    path.write_text("models: [{name: x, engine: replay, source: x.jsonl, price: {input: 1, output: 1}}]")
    assert list(add_model(path, model("b")).models) == ["x", "b"]
    assert add_model(path, model("b", source="other")).models["b"].source == "other"
    no_newline = path.read_text().rstrip("\n")
    path.write_text(no_newline)
    assert list(add_model(path, model("c")).models) == ["x", "b", "c"]


def test_add_leaves_a_broken_file_alone(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace("source: gpt-x", "sorce: gpt-x"))
    before = path.read_text()
    with pytest.raises(ConfigError):
        add_model(path, model("c"))
    assert path.read_text() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["pool.yaml"]
