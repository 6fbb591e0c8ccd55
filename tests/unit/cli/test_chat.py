"""Talking to a model through a pipe: streamed, remembered, forgotten on /reset."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.unit.cli.conftest import ScriptedServer
from typer.testing import Result

Afina = Callable[..., Result]


def test_each_line_is_a_turn_and_the_conversation_is_remembered(
    server: ScriptedServer, afina: Afina
) -> None:
    server.stream("To be", ", or not.")
    server.stream("Ay.")
    done = afina("chat", "m", "--system", "Be brief.", typed="What?\n\nSure?\n")
    assert done.exit_code == 0
    assert done.stdout == "To be, or not.\nAy.\n"
    assert [m["role"] for m in server.asked[0].json["messages"]] == ["system", "user"]
    second = server.asked[1].json["messages"]
    assert [m["content"] for m in second] == ["Be brief.", "What?", "To be, or not.", "Sure?"]


def test_reset_forgets_all_but_the_system_message(server: ScriptedServer, afina: Afina) -> None:
    server.stream("One.")
    server.stream("Two.")
    afina("chat", "m", "--system", "S", typed="a\n/reset\nb\n")
    assert [m["content"] for m in server.asked[1].json["messages"]] == ["S", "b"]


def test_exit_ends_before_the_input_does(server: ScriptedServer, afina: Afina) -> None:
    done = afina("chat", "m", typed="/exit\nnever asked\n")
    assert (done.exit_code, server.asked) == (0, [])


def test_an_unknown_command_is_not_sent_to_the_model(server: ScriptedServer, afina: Afina) -> None:
    done = afina("chat", "m", typed="/quti\n")
    assert "There is no command /quti" in done.stderr
    assert server.asked == []


def test_json_is_one_answer_a_line(server: ScriptedServer, afina: Afina) -> None:
    server.stream("“To be”", " — é")
    done = afina("chat", "m", "--json", typed="What?\n")
    assert json.loads(done.stdout) == {"question": "What?", "answer": "“To be” — é"}
    assert "“To be” — é" in done.stdout


def test_only_what_was_given_is_sent(server: ScriptedServer, afina: Afina) -> None:
    server.stream("x")
    afina("chat", "m", "--temperature", "0", "--max-tokens", "5", typed="a\n")
    body = server.asked[0].json
    assert set(body) == {"model", "messages", "stream", "temperature", "max_completion_tokens"}


def test_a_refusal_ends_a_script_with_exit_code_1(server: ScriptedServer, afina: Afina) -> None:
    server.refuse("POST /v1/chat/completions", 404, "There is no model m.")
    done = afina("chat", "m", typed="a\nb\n")
    assert done.exit_code == 1
    assert done.stderr == "afina: There is no model m.\n"
    assert len(server.asked) == 1


def test_an_answer_that_breaks_off_is_an_error(server: ScriptedServer, afina: Afina) -> None:
    server.stream("To be", end=False)
    done = afina("chat", "m", typed="a\n")
    assert done.exit_code == 1
    assert "broke the answer off" in done.stderr
