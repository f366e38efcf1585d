"""`podium memory …`: what is remembered, as people and scripts put, find, compare, take back and erase it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from podium.memory.context.assembly import Citation, Context, Dropped
from podium.memory.errors import UsageError
from podium.orchestrator.cli.convert_memory import context_out
from podium.orchestrator.cli.memory_runs import explain
from podium.orchestrator.cli.memory_text import Where, revision_number, short, text_table, value_of
from terminals import converse

RUN = ("run", "brief.yaml", "-i", "docs=@papers/", "--approve", "publish")
HARBOUR = "The harbour of Oslo closes at noon."


def piped(project: Any, *arguments: str, given: bytes) -> subprocess.CompletedProcess[bytes]:
    """Run the program with something on stdin."""
    return subprocess.run(
        [*project.program, *arguments],
        cwd=project.folder,
        env=project.env,
        input=given,
        capture_output=True,
        timeout=60,
    )


def keys(found: dict[str, Any]) -> list[str]:
    return [one["key"] for one in found["revisions"]]


def test_put_get_history_rollback_and_retract(cold: Any, project: Any) -> None:
    first = cold.json("memory", "put", "harbour", HARBOUR, "--subject", "oslo", verb="memory put")
    assert (first["value"], first["version"], first["kind"]) == (HARBOUR, 1, "note")
    assert (first["scope"], first["scope_id"], first["subject"]) == ("tenant", "", "oslo")
    assert first["producer"]["task"] is None
    done = project.podium("memory", "put", "harbour", "It closes at one.")
    second = int(done.stdout)
    assert "harbour: version 2, for the tenant" in done.stderr
    assert project.podium("memory", "put", "harbour", "It closes at one.").stdout == done.stdout
    got = project.podium("memory", "get", "harbour")
    assert got.stdout == "It closes at one.\n"
    assert got.stderr.startswith(f"[{second}] version 2, note for the tenant, by a person, 20")
    past = project.json("memory", "get", "harbour", "--as-of", str(first["revision"]), verb="memory get")
    assert past["value"] == HARBOUR
    then = project.json("memory", "get", "harbour", "--as-of", first["created_at"], verb="memory get")
    assert then["value"] == HARBOUR
    before = project.podium("memory", "get", "harbour", "--as-of", "2020-01-31T09:00", code=2)
    assert "as of 2020-01-31T09:00" in before.stderr
    back = project.json("memory", "rollback", "harbour", "1", verb="memory rollback")
    assert (back["version"], back["value"]) == (3, HARBOUR)
    gone = project.podium("memory", "retract", "harbour")
    assert "podium memory rollback harbour 3" in gone.stderr
    assert "podium memory history harbour" in project.podium("memory", "get", "harbour", code=2).stderr
    project.podium("memory", "rollback", "harbour", "3")
    versions = project.json("memory", "history", "harbour", verb="memory history")["revisions"]
    assert [(r["version"], r["status"]) for r in versions] == [
        (1, "active"), (2, "active"), (3, "active"), (4, "retracted"), (5, "active"),
    ]  # fmt: skip
    lines = project.podium("memory", "history", "harbour").stdout.splitlines()
    assert lines[0].split() == ["REV", "VERSION", "STATUS", "BY", "AT", "(UTC)", "TEXT"]
    assert len(lines) == 6
    assert all(len(line) <= 80 for line in lines)


def test_values_come_as_text_json_files_and_stdin(project: Any) -> None:
    made = project.json("memory", "put", "limits", '{"max": [1, 2.5]}', "--json-value", verb="memory put")
    assert made["value"] == {"max": [1, 2.5]}
    assert json.loads(project.podium("memory", "get", "limits").stdout) == {"max": [1, 2.5]}
    project.write("notice.txt", "Closed on 3 May.\n")
    assert (
        project.json("memory", "put", "n", "@notice.txt", verb="memory put")["value"] == "Closed on 3 May.\n"
    )
    assert project.json("memory", "put", "n", "@@home", verb="memory put")["value"] == "@home"
    assert piped(project, "memory", "put", "n", "-", given="Gjøvik".encode()).returncode == 0
    assert project.podium("memory", "get", "n").stdout == "Gjøvik\n"
    expires = project.json("memory", "put", "soon", "gone", "--ttl", "1h", verb="memory put")
    assert expires["expires_at"] > expires["created_at"]
    binary = piped(project, "memory", "put", "n", "-", "--json", given=bytes(range(256)))
    assert binary.returncode == 2
    error = json.loads(binary.stdout)
    project.validate("error", error)
    assert "stdin is no UTF-8 text" in error["error"]["message"]
    assert "base64" in error["error"]["mend"]


def test_scopes_are_places_of_their_own(project: Any) -> None:
    run = project.json(*RUN, verb="run")["run_id"]
    where = (
        (),
        ("--workflow", "brief"),
        ("--run", "last"),
        ("--run", run[:6], "--task", "brief"),
        ("--scope", "run", "--scope-id", "elsewhere"),
    )
    for number, options in enumerate(where):
        made = project.json("memory", "put", "k", str(number), *options, verb="memory put")
        assert made["version"] == 1
    assert [project.podium("memory", "get", "k", *options).stdout for options in where] == [
        f"{n}\n" for n in range(5)
    ]
    task = project.json("memory", "get", "k", *where[3], verb="memory get")
    assert (task["scope"], task["scope_id"]) == ("task", f"{run}/brief")
    seen = project.json("memory", "list", "--run", "last", verb="memory list")
    assert {one["value"] for one in seen["revisions"] if one["key"] == "k"} == {"0", "1", "2"}
    only = project.json("memory", "list", "--scope", "workflow", verb="memory list")
    assert [one["value"] for one in only["revisions"]] == ["1"]
    assert project.json("--tenant", "other", "memory", "list", verb="memory list") == {"revisions": []}
    done = project.podium("memory", "get", "brief", code=2)
    assert f"the run {run} has one: --run {run}" in done.stderr


def test_list_and_tables_fit_a_terminal(project: Any) -> None:
    project.podium("memory", "put", "harbour", f"{HARBOUR}\n" * 9, "--subject", "oslo")
    project.podium("memory", "put", "tide", "Low at six.", "--kind", "fact")
    assert keys(project.json("memory", "list", verb="memory list")) == ["harbour", "tide"]
    assert keys(project.json("memory", "list", "--kind", "fact", verb="memory list")) == ["tide"]
    assert keys(project.json("memory", "list", "--subject", "oslo", verb="memory list")) == ["harbour"]
    done = project.podium("memory", "list", "-n", "1")
    assert done.stdout.splitlines()[1].endswith("tide  Low at six.")
    assert "1 older ones are not shown\n  → --limit 2" in done.stderr
    lines = project.podium("memory", "list").stdout.splitlines()
    assert len(lines) == 3
    assert all(len(line) <= 80 for line in lines)
    assert lines[1].endswith("…")


def test_search_finds_by_words_and_says_why(project: Any) -> None:
    project.podium("memory", "put", "harbour", HARBOUR)
    project.podium("memory", "put", "tide", "Low at six.", "--kind", "fact")
    asked = ("memory", "search", "when does the harbour close?")
    found = project.json(*asked, verb="memory search")
    assert found["hits"][0]["revision"]["key"] == "harbour"
    assert project.json(*asked, "-k", "1", verb="memory search")["hits"] == found["hits"][:1]
    facts = project.json(*asked, "--kind", "fact", verb="memory search")["hits"]
    assert "harbour" not in [hit["revision"]["key"] for hit in facts]
    line = project.podium(*asked).stdout.splitlines()[1]
    assert HARBOUR in line
    assert project.podium("--tenant", "other", *asked).stdout == ""


def test_links(project: Any) -> None:
    one, two = (int(project.podium("memory", "put", k, k).stdout) for k in ("one", "two"))
    made = project.json("memory", "link", str(two), f"[{one}]", "--kind", "contradicts", verb="memory link")
    assert made == {"src": two, "dst": one, "kind": "contradicts"}
    assert project.podium("memory", "link", str(two), str(one)).stdout == f"{two} relates {one}\n"
    found = project.json("memory", "links", str(one), verb="memory links")
    assert found["links"] == [made, {"src": two, "dst": one, "kind": "relates"}]
    assert "contradicts" in project.podium("memory", "links", str(two)).stdout


def test_context_is_the_text_and_says_what_it_cites_and_leaves_out(project: Any) -> None:
    run = project.json(*RUN, verb="run")["run_id"]
    made = project.json("memory", "context", "last", "length", "--budget", "500", verb="memory context")
    assert (made["run_id"], made["task"], made["budget"]) == (run, "length", 500)
    assert "Tides" in made["text"]
    assert 0 < made["tokens"] <= 500
    listed = project.json("memory", "list", "--run", "last", verb="memory list")["revisions"]
    cited = {one["revision"] for one in made["citations"]} - {None}
    assert cited
    assert cited <= {one["revision"] for one in listed}
    done = project.podium(
        "memory", "context", "last", "length", "--budget", "500", "--ask", "How long is it?"
    )
    assert done.stdout.strip()
    assert "of 500 tokens" in done.stderr
    tiny = project.json("memory", "context", "last", "length", "--budget", "1", verb="memory context")
    assert tiny["tokens"] <= 1
    assert (
        "did you mean length?"
        in project.podium("memory", "context", "last", "lenght", "--budget", "9", code=2).stderr
    )


def test_what_a_context_cites_and_leaves_out_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    made = Context(
        "city=Oslo [12]",
        (Citation(12, "plan", 12), Citation(1, "inputs", None)),
        (Dropped("old", 7, "superseded", "city=\nBergen"), Dropped("inputs", None, "budget", "x" * 99)),
    )
    explain(made, 4, 100)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "about 4 of 100 tokens, 2 citations, 2 left out",
        "  [12] plan, revision 12",
        "  [1] inputs, no revision",
        "  left out: old [7], superseded: city= Bergen",
        f"  left out: inputs, budget: {'x' * 59}…",
    ]
    found = context_out("r1", "t", 100, 4, made)
    assert [(c.mark, c.revision) for c in found.citations] == [(12, 12), (1, None)]
    assert [(d.step, d.reason) for d in found.dropped] == [("old", "superseded"), ("inputs", "budget")]


def test_fork_and_diff_of_what_runs_know(project: Any) -> None:
    run = project.json(*RUN, verb="run")["run_id"]
    at = project.podium("memory", "put", "k", "old", "--run", run).stdout.strip()
    project.podium("memory", "put", "k", "new", "--run", run)
    project.podium("memory", "fork", "last", "empty", "--at", "2020-01-31T09:00")
    nothing = project.json("memory", "list", "--run", "empty", "--scope", "run", verb="memory list")
    assert nothing == {"revisions": []}
    made = project.json("memory", "fork", "last", "trial", "--at", at, verb="memory fork")
    assert made == {"run_id": "trial", "forked_from": run}
    assert project.podium("memory", "get", "k", "--run", "trial").stdout == "old\n"
    found = project.json("memory", "diff", run, "trial", verb="memory diff")
    assert not found["same"]
    (change,) = found["changed"]
    assert (change["key"], change["left"]["value"], change["right"]["value"]) == ("k", "new", "old")
    project.podium("memory", "put", "more", "x", "--run", "trial")
    shown = project.podium("memory", "diff", run, "trial", "--exit-code", code=1).stdout
    assert [line[:1] for line in shown.splitlines()[1:]] == ["+", "~"]
    assert project.json("memory", "diff", run, run, verb="memory diff")["same"]
    assert "has a memory of its own" in project.podium("memory", "fork", run, "trial", code=2).stderr


def test_forget_says_what_goes_and_gives_a_receipt(project: Any) -> None:
    secret = "aase@example.org lives in Bergen"
    project.podium("memory", "put", "mail", secret, "--subject", "aase")
    looked = project.json("memory", "forget", "aase", "--dry-run", verb="memory forget --dry-run")
    assert looked["counts"]["revisions"] == 1
    refused = project.podium("memory", "forget", "aase", code=2)
    assert "revisions 1" in refused.stderr
    assert "--yes" in refused.stderr
    assert project.podium("memory", "get", "mail").stdout == f"{secret}\n"
    assert "did you mean aase?" in project.podium("memory", "forget", "aasse", "--yes", code=2).stderr
    receipt = project.json("memory", "forget", "aase", "--yes", verb="memory forget")
    assert receipt["counts"]["revision"] == 1
    assert receipt["bytes_cleared"] is True
    files = [file for file in (project.folder / "home").iterdir() if file.is_file()]
    assert any(file.name == "podium.db" for file in files)
    assert not [file.name for file in files if b"aase@example" in file.read_bytes()]
    assert project.podium("memory", "get", "mail", code=2).stdout == ""


def test_forget_asks_on_a_terminal(project: Any) -> None:
    project.podium("memory", "put", "mail", "aase@example.org", "--subject", "aase")
    code, out, screen = converse(project, "memory", "forget", "aase", answers={"erase it? [y/n]": "n\n"})
    assert (code, out) == (0, "")
    assert "nothing was erased" in screen
    code, out, screen = converse(project, "memory", "forget", "aase", answers={"erase it? [y/n]": "y\n"})
    assert code == 0
    assert out.startswith("receipt ")
    assert "kept nowhere else" in screen


def test_sweep_compact_and_vacuum(project: Any) -> None:
    run = project.json(*RUN, verb="run")["run_id"]
    for number in range(3):
        project.podium("memory", "put", "k", str(number))
    assert project.json("memory", "sweep", verb="memory sweep")["counts"]["revisions"] == 0
    assert "--yes" in project.podium("memory", "sweep", "--keep-versions", "1", code=2).stderr
    swept = project.json(
        "memory", "sweep", "--keep-versions", "1", "--scope", "tenant", "--yes", verb="memory sweep"
    )
    assert swept["counts"]["revisions"] == 2
    assert project.podium("memory", "get", "k").stdout == "2\n"
    assert project.json("memory", "compact", "--older-than", "1d", verb="memory compact") == {"runs": []}
    done = project.json("memory", "compact", "last", verb="memory compact")
    (one,) = done["runs"]
    assert (one["run_id"], one["originals"] > 0) == (run, True)
    summary = project.json("memory", "get", f"run/{run}", "--workflow", "brief", verb="memory get")
    assert (summary["kind"], summary["revision"]) == ("summary", one["revision"])
    assert "Tides" in summary["text"]
    assert project.json("memory", "vacuum", verb="memory vacuum") == {"bytes_cleared": True}


def test_export_and_import_are_lossless_and_may_be_repeated(project: Any) -> None:
    project.podium("memory", "put", "harbour", HARBOUR, "--subject", "oslo")
    project.podium("memory", "put", "harbour", "It closes at one.")
    made = project.json("memory", "export", "all.jsonl", verb="memory export")
    assert made == {"file": "all.jsonl", "revisions": 2}
    other = replace(project, env=project.env | {"PODIUM_HOME": str(project.folder / "other")})
    assert other.json("memory", "import", "all.jsonl", verb="memory import")["revisions"] == 2
    assert other.json("memory", "import", "all.jsonl", verb="memory import")["revisions"] == 0
    for verb in ("history", "get"):
        asked = ("memory", verb, "harbour")
        assert other.json(*asked, verb=f"memory {verb}") == project.json(*asked, verb=f"memory {verb}")
    sent = project.podium("memory", "export", "-").stdout
    # the first line says when it was written
    assert sent.splitlines()[1:] == (project.folder / "all.jsonl").read_text().splitlines()[1:]
    third = replace(project, env=project.env | {"PODIUM_HOME": str(project.folder / "third")})
    assert piped(third, "memory", "import", "-", given=sent.encode()).returncode == 0
    assert third.podium("memory", "get", "harbour").stdout == "It closes at one.\n"
    assert "not both" in project.podium("memory", "export", "-", "--json", code=2).stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ""),
        ("no json\n", ""),
        ('{"podium": "something else"}\n', ""),
        (None, ""),
    ],
)
def test_a_file_that_is_no_export_changes_nothing(project: Any, text: str | None, said: str) -> None:
    project.podium("memory", "put", "k", "v")
    project.podium("memory", "export", "good.jsonl")
    good = (project.folder / "good.jsonl").read_text()
    # None: one letter of the value was changed
    project.write("bad.jsonl", text if text is not None else good.replace('"v"', '"w"'))
    other = replace(project, env=project.env | {"PODIUM_HOME": str(project.folder / "other")})
    found = other.json("memory", "import", "bad.jsonl", verb="error", code=2)["error"]
    assert found["mend"]
    assert other.json("memory", "list", verb="memory list") == {"revisions": []}
    assert said in found["message"]


@pytest.mark.parametrize(
    ("arguments", "said", "mend"),
    [
        (("get", "harbor"), "no item 'harbor'", "did you mean harbour?"),
        (("get", "k", "--as-of", "yesterday"), "neither a revision nor a time", "2030-01-31"),
        (("get", "k", "--as-of", "999"), "no revision 999", "memory list"),
        (("get", "k", "--as-of", "9" * 30), "neither a revision nor a time", "number"),
        (("history", "nothing"), "no item 'nothing'", ""),
        (("rollback", "harbour", "7"), "no version 7", "versions: 1"),
        (("rollback", "harbuor", "1"), "no item", "did you mean harbour?"),
        (("retract", "nothing"), "no item 'nothing'", ""),
        (("put", "k", "v", "--kind", "facts"), "no kind of item", "did you mean fact?"),
        (("put", "k", "v", "--scope", "runs"), "no scope", "did you mean run?"),
        (("put", "k", "v", "--scope", "run"), "which run?", "--run RUN"),
        (("put", "k", "v", "--scope", "tenant", "--scope-id", "x"), "has no id", "--scope-id"),
        (("put", "k", "v", "--scope", "run", "--workflow", "w"), "does not go with", "--scope workflow"),
        (("put", "k", "v", "--run", "x", "--workflow", "w"), "exclude each other", "leave"),
        (("put", "k", "v", "--task", "t"), "needs its run", "--run"),
        (("put", "k", "v", "--run", "nope"), "no run nope", "podium runs"),
        (("put", "k", "v", "--ttl", "soon"), "no duration", "10m"),
        (("put", "", "v"), "no key", ""),
        (("put", "k", "@missing.txt"), "cannot be read", "@@"),
        (("put", "k", "{", "--json-value"), "no JSON", "--json-value"),
        (("put", "k", "NaN", "--json-value"), "no JSON", "--json-value"),
        (("link", "1", "999"), "999", ""),
        (("link", "1", "x"), "no revision", "number"),
        (("link", "1", "1", "--kind", "supercedes"), "no kind of link", "did you mean supersedes?"),
        (("links", "999"), "no revision 999", "memory list"),
        (("search", " "), "the query is empty", "words"),
        (("list", "--kind", "fcat"), "no kind of item", "did you mean fact?"),
        (("list", "--run", "nope"), "no run nope", "podium runs"),
        (("context", "nope", "t", "--budget", "10"), "no run nope", "podium runs"),
        (("context", "nope", "t", "--budget", "0"), "--budget", "--help"),
        (("fork", "nope", "new"), "no run nope", "podium runs"),
        (("diff", "nope", "nope"), "no run nope", "podium runs"),
        (("forget", "nobody", "--yes"), "nothing is known", "oslo"),
        (("sweep", "--kind", "note"), "need a limit", "--older-than"),
        (("compact",), "one of them", "memory compact RUN"),
        (("compact", "nope"), "no run nope", "podium runs"),
        (("export", "missing/all.jsonl"), "missing", ""),
        (("import", "missing.jsonl"), "missing.jsonl", ""),
        (("remember",), "remember", "--help"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_mend(
    project: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    said: str,
    mend: str,
) -> None:
    from podium.orchestrator.cli.main import execute

    monkeypatch.chdir(project.folder)
    monkeypatch.setenv("PODIUM_HOME", project.env["PODIUM_HOME"])
    assert execute(["memory", "put", "harbour", HARBOUR, "--subject", "oslo"]) == 0
    capsys.readouterr()
    assert execute(["memory", *arguments, "--json"]) == 2
    out, err = capsys.readouterr()
    found = json.loads(out)
    project.validate("error", found)
    error = found["error"]
    assert said in error["message"]
    assert mend in error["mend"]
    assert error["mend"]
    assert err.splitlines()[-1] == f"  → {error['mend']}"
    assert execute(["memory", "list", "--json"]) == 0
    assert keys(json.loads(capsys.readouterr().out)) == ["harbour"]


def test_a_damaged_database_exits_3(project: Any) -> None:
    project.podium("memory", "put", "k", "v")
    for file in (project.folder / "home").glob("podium.db*"):
        file.write_bytes(b"no database at all" * 999)
    found = project.json("memory", "list", verb="error", code=3)["error"]
    assert found["kind"] == "ConfigError"
    assert found["mend"]


def test_only_searching_imports_what_is_heavy(project: Any) -> None:
    code = (
        "import sys; from podium.orchestrator.cli import main;"
        "codes = [main.execute(['memory', *a]) for a in (['put', 'k', 'v'], ['get', 'k'], ['list'])];"
        "heavy = {'numpy', 'wordllama', 'torch', 'ray', 'networkx', 'tokenizers', 'safetensors'};"
        "print(codes, sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=project.env, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr.splitlines()[-1] == "[0, 0, 0] []"


def test_numbers_of_revisions() -> None:
    assert [revision_number(text) for text in ("12", "[12]", "007")] == [12, 12, 7]
    for text in ("", "x", "-1", "1.0", "[", "9" * 19, "１２ "):
        with pytest.raises(UsageError):
            revision_number(text)


def test_texts_are_cut_to_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert short("a\n\tb\x1b[31m", 40) == "a b [31m"
    assert short("x" * 30, 10) == f"{'x' * 9}…"
    text_table(["rev", "key", "text"], [["1", "k" * 90]], ["some text"], "rev")
    assert "some text" in capsys.readouterr().out


def test_places_name_their_options() -> None:
    assert Where("tenant", "").options == "--scope tenant"
    assert Where("workflow", "my flow").options == "--workflow 'my flow'"
    assert Where("run", "r1").options == "--run r1"
    assert Where("task", "r1/a").options == "--scope task --scope-id r1/a"


def test_a_value_may_be_empty_or_an_at_sign() -> None:
    assert [value_of(text, as_json=False) for text in ("", "@", "@@", "@@x")] == ["", "@", "@", "@x"]
