"""The command line: a thin layer. Every error is one clear sentence and an exit code, never a traceback.

Exit codes: 0 fine, 1 needs attention, 2 settings or usage, 3 failed.
"""

import importlib
import sys
from keyword import iskeyword
from typing import Any

import click

from sync.errors import LetterError, NotFound, SettingsError, SyncError

COMMANDS = {
    "serve": "sync.cli.serving",
    "dispatch": "sync.cli.serving",
    "sandbox": "sync.cli.serving",
    "hello": "sync.cli.hello",
    "simulate": "sync.cli.simulate",
    "status": "sync.cli.looking",
    "contacts": "sync.cli.looking",
    "show": "sync.cli.looking",
    "duplicates": "sync.cli.looking",
    "replay": "sync.cli.acting",
    "dismiss": "sync.cli.acting",
    "owe": "sync.cli.acting",
    "import": "sync.cli.importing",
    "followup": "sync.cli.followups",
    "suppress": "sync.cli.followups",
    "unsuppress": "sync.cli.followups",
    "suppressions": "sync.cli.followups",
    "forget": "sync.cli.forgetting",
    "export": "sync.cli.forgetting",
    "prune": "sync.cli.forgetting",
    "doctor": "sync.cli.doctoring",
    "resync": "sync.cli.resync",
    "ledger": "sync.cli.ledgers",
}
"""Which module holds which command: each is imported only when it is used, so that `--help` is quick."""

SUMMARIES = {
    "serve": "Take webhooks and deliver contacts.",
    "dispatch": "Only deliver: the lanes without the server.",
    "sandbox": "Only run the imitation CRM.",
    "hello": "Play the documented chat start and show the contact it became.",
    "simulate": "Play made-up chats against a running server.",
    "status": "How everything stands, on one screen.",
    "contacts": "Find people by name, email or phone.",
    "show": "Everything about one contact, chat, event or delivery.",
    "duplicates": "Who may be one person, who was joined; take joins apart.",
    "replay": "Apply once more what is stored: dead deliveries, events.",
    "dismiss": "Nothing is to be done about what was refused or is unreadable.",
    "owe": "Promise everybody to a new destination.",
    "import": "Take in the people whom a CRM has already, from its export.",
    "followup": "See a follow-up email before it goes, try the mailer, settle what is unknown.",
    "suppress": "Send no more follow-ups to an address.",
    "unsuppress": "Send follow-ups to an address again.",
    "suppressions": "How many addresses get none, and why; look one up.",
    "forget": "Erase a person here and in every destination.",
    "export": "Everything about a person, as JSON.",
    "prune": "Prune what is older than it has to be kept.",
    "doctor": "Check settings, ledger, disk, clock, destinations.",
    "resync": "Pull, repair, verify, drain: made for cron.",
    "ledger": "Check, back up, move and upgrade the ledger itself.",
}


class Commands(click.Group):
    """Finds commands by name and turns our errors into sentences."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order in which a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        attribute = f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name  # import
        command: click.Command = getattr(importlib.import_module(COMMANDS[cmd_name]), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(SUMMARIES.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except (SettingsError, LetterError, NotFound) as error:
            _fail(error, 2)
        except SyncError as error:
            _fail(error, 3)
        except BrokenPipeError:
            sys.exit(0)
        except KeyboardInterrupt:
            sys.exit(130)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except Exception as error:  # noqa: BLE001 - a bug is no exit code 1, which says that all is well or repaired
            _crash(error)


def _fail(error: SyncError, code: int) -> None:
    click.echo(f"crm-sync: {error}", err=True)
    sys.exit(code)


def _crash(error: Exception) -> None:
    """Say what happened without its message, which may quote a visitor; where it came from goes to the log."""
    import structlog

    from sync.logs import configure

    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if not structlog.is_configured():
        configure("console", "info")
    structlog.get_logger("sync.cli").error("a command failed unexpectedly", exc_info=error)
    click.echo(f"crm-sync: this should not have happened: {type(error).__name__} (the log says where)", err=True)
    sys.exit(3)


@click.group(cls=Commands)
@click.version_option(package_name="chat-crm-sync", prog_name="crm-sync")
def main() -> None:
    """Every live-chat visitor in the CRM: once, correct, never lost."""
