"""mmssl search"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from multimodal_ssl.retrieval import Term


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("query", required=False)
@click.option("--by", default="text", show_default=True, help="Modality of the query; a file unless it is text.")
@click.option("--image", help="A picture to search by, alone or with the query.")
@click.option("--audio", help="A sound to search by, alone or with the query.")
@click.option(
    "--plus", multiple=True, metavar="[WEIGHT*][NAME=]ITEM", help="What else is to be there, e.g. 0.5*image=a.jpg."
)
@click.option("--minus", multiple=True, metavar="[WEIGHT*][NAME=]ITEM", help="What is not to be there, e.g. winter.")
@click.option("--product", is_flag=True, help="Multiply the parts of the query, in a run of the objective symile.")
@click.option("--among", multiple=True, help="Modality to search.  [default: all that the query is not of]")
@click.option("-k", default=10, show_default=True, type=click.IntRange(1), help="How many answers.")
@click.option("--where", help="A condition on metadata, e.g. \"license = 'MIT' and year >= 2020\".")
@click.option(
    "--min-probability", default=0.0, type=click.FloatRange(0, 1), help="Leave out what is less probably a match."
)
@click.option("--one-per-group", is_flag=True, help="Only the best answer of each group.")
@click.option(
    "--fold", type=click.FloatRange(-1, 1), help="Leave out what has this cosine with a better answer, e.g. 0.98."
)
@click.option("--csls", is_flag=True, help="Put hubs, items that are near to every query, further down.")
@click.option(
    "--why",
    type=click.Path(path_type=Path),
    help="Show the training samples nearest to query and best answer; an index of them: mmssl index RUN --of sources.",
)
@click.option("--index", "index_dir", type=click.Path(path_type=Path), help="The index.  [default: RUN/index]")
@click.option("--sheet", type=click.Path(path_type=Path, dir_okay=False), help="Draw the answers into this PNG.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def search(
    run: Path, query: str | None, by: str, image: str | None, audio: str | None, plus: tuple[str, ...],
    minus: tuple[str, ...], product: bool, among: tuple[str, ...], k: int, where: str | None, min_probability: float,
    one_per_group: bool, fold: float | None, csls: bool, why: Path | None, index_dir: Path | None,
    sheet: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Search an index by words, by a file, or by several of them.

    \b
    Example:
      mmssl search runs/icons "red apple" --min-probability 0.5
      mmssl search runs/icons --image apple.png --minus red --where "license = 'MIT'" --sheet answers.png
    """
    from multimodal_ssl import recipe, retrieval
    from multimodal_ssl.cli.tables import print_hits, print_witnesses
    from multimodal_ssl.contact_sheet import contact_sheet
    from multimodal_ssl.index import Index

    if query and by == "text" and Path(query).is_file():
        click.echo(f"note: {query} is searched for as words; --by MODALITY searches by what is in the file", err=True)
    terms = [] if query is None else [retrieval.Term(by, query)]
    terms += [retrieval.Term(name, one) for name, one in (("image", image), ("audio", audio)) if one]
    terms += [_term(one, by, 1.0) for one in plus] + [_term(one, by, -1.0) for one in minus]
    if not terms:
        raise click.UsageError("say what to search for: words, --image FILE, --audio FILE or --plus NAME=FILE")
    opened = Index(index_dir or run / "index")
    binder = recipe.load(run)
    (hits,) = retrieval.search(
        binder, opened, [terms], among=among or None, k=k, where=where, min_probability=min_probability,
        one_per_group=one_per_group, fold=fold, csls=csls, product=product,
    )  # fmt: skip
    if as_json:
        answers = [
            {
                "key": hit.item.key, "score": hit.score, "probability": hit.probability, "modality": hit.item.modality,
                "group": hit.item.group, "text": hit.item.preview.text, "caption": hit.item.preview.caption,
                "path": hit.item.preview.path, "metadata": hit.item.metadata,
            }
            for hit in hits
        ]  # fmt: skip
        click.echo(json.dumps(answers, ensure_ascii=False))
    elif hits:
        print_hits(hits)
    else:
        click.echo("nothing matches")
    if why and hits:
        with Index(why) as training:
            print_witnesses(retrieval.why(binder, opened, training, terms, hits[0]))
    if sheet:
        modality = binder.modalities[terms[0].by]
        contact_sheet(sheet, [(modality.preview(modality.load(terms[0].item)), hits)])
        click.echo(f"drawn: {sheet}", err=True)


def _term(text: str, by: str, sign: float) -> Term:
    """Return a part of a query from ``[WEIGHT*][NAME=]ITEM``."""
    from multimodal_ssl.retrieval import Term

    found = re.fullmatch(r"(?:([0-9.]+)\*)?(?:([\w-]+)=)?(.*)", text, re.DOTALL)
    assert found
    weight, name, item = found.groups()
    try:
        return Term(name or by, item, sign * float(weight or 1))
    except ValueError as error:
        raise click.UsageError(f"{weight!r} in {text!r} is no weight such as 0.5") from error
