from __future__ import annotations

import click

from sallyport_sdk.cli.auth import get_token
from sallyport_sdk.extensions import CliPlugin


class MyCliPlugin(CliPlugin):
    """CLI commands for the my-ext extension."""

    name = "my-extension"
    version = "1.0.0"
    description = "Tag machines with custom labels"

    def register(self, cli: click.Group) -> None:
        """Called once at CLI startup. Attach all command groups here."""

        @cli.group("tag")
        def tag_group() -> None:
            """Manage machine tags."""

        @tag_group.command("list")
        @click.argument("machine_id")
        @click.option("--url", envvar="ATTESTATION_API_URL", default="http://localhost:9000")
        @click.option("--token", envvar="ATTESTATION_TOKEN", default=None)
        def tag_list(machine_id: str, url: str, token: str | None) -> None:
            """List tags for MACHINE_ID."""
            from sallyport_sdk.cli.api_client import AttestationClient

            client = AttestationClient(base_url=url, token=token)
            result = client.get(f"/api/v1/myext/machines/{machine_id}/tags")
            if not result:
                click.echo("No tags found.")
                return
            for tag in result:
                click.echo(f"  [{tag['tag_id']}] {tag['label']}")

        @tag_group.command("add")
        @click.argument("machine_id")
        @click.argument("label")
        @click.option("--url", envvar="ATTESTATION_API_URL", default="http://localhost:9000")
        @click.option("--token", envvar="ATTESTATION_TOKEN", default=None)
        def tag_add(machine_id: str, label: str, url: str, token: str | None) -> None:
            """Add LABEL to MACHINE_ID."""
            from sallyport_sdk.cli.api_client import AttestationClient

            client = AttestationClient(base_url=url, token=token)
            result = client.post(f"/api/v1/myext/machines/{machine_id}/tags", json={"label": label})
            click.echo(f"Created tag {result['tag_id']}: {result['label']}")

        @tag_group.command("remove")
        @click.argument("machine_id")
        @click.argument("tag_id", type=int)
        @click.option("--url", envvar="ATTESTATION_API_URL", default="http://localhost:9000")
        def tag_remove(machine_id: str, tag_id: int, url: str) -> None:
            """Remove TAG_ID from MACHINE_ID."""
            token = get_token()
            from sallyport_sdk.cli.api_client import AttestationClient

            client = AttestationClient(base_url=url, token=token)
            client.delete(f"/api/v1/myext/machines/{machine_id}/tags/{tag_id}")
            click.echo(f"Deleted tag {tag_id}.")
