"""`sandyard trust`: let this machine trust Sandyard's own https, which some SDKs insist on for uploads."""

import shutil
from typing import Any

import click

from sandyard.authority import authority_of
from sandyard.cli.lifetime import say
from sandyard.cli.options import settings_of, settings_options
from sandyard.ids import RandomIds
from sandyard.issuing import make_authority
from sandyard.keeping import keep_secret
from sandyard.trusting import CannotTrust, run_steps, steps


@click.command()
@settings_options("data_dir")
@click.option("--undo", is_flag=True, help="Take the certificate out of this machine's store and forget the authority.")
@click.option("--dry-run", is_flag=True, help="Only say what would be run.")
@click.option("--certificate", is_flag=True, help="Only print the certificate, for the store of another machine.")
def trust(undo: bool, dry_run: bool, certificate: bool, **options: Any) -> None:
    """Make a certificate authority for this machine's loopback names and let this machine trust it."""
    settings = settings_of(**options)
    authority = authority_of(settings.data_dir)
    if undo and not authority.certificate.exists():
        say("there is no authority: nothing to do")
        return
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    installation = keep_secret(settings.data_dir, "installation", RandomIds().uuid)
    if certificate:
        make_authority(authority, installation=installation, extra_names=settings.allowed_hosts)
        click.echo(authority.certificate.read_text(encoding="ascii"), nl=False)
        return
    try:
        commands = steps(authority.certificate, f"sandyard-{installation[:8]}", undo=undo)
        for command in commands:
            say(("would run: " if dry_run else "running: ") + " ".join(command))
        if dry_run:
            return
        made = not authority.exists
        if not undo:
            make_authority(authority, installation=installation, extra_names=settings.allowed_hosts)
        try:
            run_steps(commands)
        except CannotTrust:
            if made and not undo:
                say(f"the authority stays in {authority.folder}, so that its certificate can be added by hand")
            raise
    except CannotTrust as error:
        raise click.ClickException(str(error)) from error
    if undo:
        shutil.rmtree(authority.folder)
        say("this machine does not trust it any more; start Sandyard again to end its https")
    else:
        say("this machine trusts it; start Sandyard again to have https")
