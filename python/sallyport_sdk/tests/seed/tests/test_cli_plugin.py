import click
from click.testing import CliRunner
from mypackage.cli_plugin import MyCliPlugin


def _build_cli() -> click.Group:
    @click.group()
    def cli():
        pass

    MyCliPlugin().register(cli)
    return cli


def test_tag_group_registered():
    cli = _build_cli()
    assert "tag" in [c.name for c in cli.commands.values()]


def test_tag_list_help():
    runner = CliRunner()
    result = runner.invoke(_build_cli(), ["tag", "list", "--help"])
    assert result.exit_code == 0
    assert "MACHINE_ID" in result.output
