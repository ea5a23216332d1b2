"""The list of what people can do: each action is a command, and each way back another action."""

import click
import pytest

from duraq.actions import ACTIONS
from duraq.cli import cli


@pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS)
def test_every_action_is_a_command(action):
    """The command of an action exists, with the options that it names, and its help is that of a command."""
    command = cli
    context = click.Context(cli, info_name="duraq")
    for word in action.command:
        if word.startswith("-"):
            assert word in {name for option in command.params for name in option.opts}
        else:
            command = command.get_command(context, word)
            assert command is not None, word
    assert action.argv("x")[: 1 + len(action.command)] == ["duraq", *action.command]


def test_ways_back():
    """What takes an action back is one too; a key begins one action, or one and that which takes it back."""
    for action in ACTIONS.values():
        assert action.undo is None or action.undo in ACTIONS
    for key in {action.key for action in ACTIONS.values()} - {None}:
        names = {action.name for action in ACTIONS.values() if action.key == key}
        assert len(names) == 1 or {ACTIONS[name].undo for name in names} == names
