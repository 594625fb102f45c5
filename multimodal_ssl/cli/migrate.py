"""mmssl migrate"""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("index_dir", metavar="INDEX", type=click.Path(path_type=Path))
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the new index.  [default: RUN/index]")
@click.option("--switch", is_flag=True, help="Put the new index in the place of the old one.")
def migrate(index_dir: Path, run: Path, out: Path | None, switch: bool) -> None:
    """Move an index to the Binder of another run, and tell how far the answers agree.

    Items are read from their sources again; of what was added by hand the text or the file. What was stopped goes on
    where it was. Without --switch the old index stays.

    \b
    Example:
      mmssl migrate runs/old/index runs/new
      mmssl migrate all.index runs/new --switch
    """
    from multimodal_ssl.cli.tables import print_index, print_overlaps
    from multimodal_ssl.errors import InputError
    from multimodal_ssl.index import Index, replace_index
    from multimodal_ssl.migration import migrate as move

    if out and switch:
        raise InputError("--switch puts the new index in the place of the old one: leave out --out")
    folder = index_dir.with_name(f"{index_dir.name}.migrated") if switch else out or run / "index"
    with Index(index_dir) as old:
        done = move(old, run, folder)
    print_index(done.index.describe())
    print_overlaps(done.overlaps)
    for name, keys in done.lost.items():
        click.echo(f"lost: {len(keys)} of {name} have neither file nor text any more: {', '.join(keys[:5])}", err=True)
    if switch:
        if done.lost:
            raise InputError(f"not switched, since items are lost: {folder} is the new index, {index_dir} the old one")
        done.index.close()
        replace_index(folder, index_dir)
        folder = index_dir
    click.echo(f'index:   {folder}\nnext:    mmssl search {run} "some words" --index {folder}')
