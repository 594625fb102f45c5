"""What requests and answers hold."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, RootModel

Name = Annotated[str, Field(max_length=200)]
Key = Annotated[str, Field(max_length=2000)]
Text = Annotated[str, Field(max_length=10_000)]
Weight = Annotated[FiniteFloat, Field(ge=-1000, le=1000)]
Plain = str | bool | Annotated[int, Field(ge=-(2**63), lt=2**63)] | FiniteFloat | None


class Strict(BaseModel):
    """Knows what it may hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TermIn(Strict):
    """A part of a query: exactly one of text, key and upload."""

    by: Name = Field(default="text", description="Modality of this part.", examples=["image"])
    text: Text | None = Field(default=None, description="Words, where the modality is one of texts; never a path.")
    key: Key | None = Field(default=None, description="Key of an item of the index, whose stored vector is taken.")
    modality: Name | None = Field(
        default=None, description="Modality of the item with the key; `by` if it is left out."
    )
    upload: Name | None = Field(default=None, description="Name of the field of the multipart form that has the file.")
    weight: Weight = Field(default=1.0, description="Negative for what is not to be there.")


class SearchIn(Strict):
    """A query of one or several parts, whose weighted vectors are added up."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"terms": [{"by": "text", "text": "red apple"}], "among": ["image"], "k": 5},
                {
                    "terms": [{"by": "image", "key": "a/7.png"}, {"by": "text", "text": "winter", "weight": 0.5}],
                    "where": "license = 'MIT' and year >= 2020",
                    "one_per_group": True,
                },
            ]
        }
    )

    terms: list[TermIn] = Field(min_length=1)
    among: list[Name] | None = Field(
        default=None, description="Modalities to search; null takes all that the query is not of."
    )
    k: int = Field(default=10, ge=1, description="How many answers; the server has a limit, by default 100.")
    where: Text | None = Field(default=None, description="A condition on metadata.", examples=["year >= 2020"])
    one_per_group: bool = Field(default=False, description="Only the best item of each group.")
    fold: Annotated[FiniteFloat, Field(ge=-1, le=1)] | None = Field(
        default=None, description="Leave out what has this cosine with a better answer, e.g. 0.98."
    )
    centre: bool | None = Field(
        default=None, description="Take off the mean of each modality; null does so where several are searched."
    )
    csls: bool = Field(
        default=False, description="Put hubs, items that are near to every query, further down (Conneau et al. 2018)."
    )
    min_probability: Annotated[FiniteFloat, Field(ge=0, le=1)] = Field(
        default=0.0, description="Leave out what is less probably a match."
    )


class ItemOut(BaseModel):
    """An item of the index. Of its file the name is told, never where it lies."""

    key: str
    modality: str
    group: str
    text: str | None = None
    caption: str | None = None
    path: str | None = None
    metadata: dict[str, Any] = {}
    preview: str | None = Field(default=None, description="Where there is a PNG of it.")
    sound: str | None = Field(default=None, description="Where there is a WAV of it.")


class HitOut(ItemOut):
    """An answer."""

    score: float = Field(description="What it was ranked by; the cosine where one modality is searched.")
    probability: float | None = Field(
        default=None, description="How probably it is a match; null if the index can't tell."
    )


class SearchOut(BaseModel):
    """Answers, the best first."""

    hits: list[HitOut]
    seconds: float


class NewItem(Strict):
    """An item to add, with exactly one of text and upload."""

    key: Key
    modality: Name
    group: Name | None = Field(default=None, description="What it belongs to; its key if left out.")
    metadata: dict[str, Plain] = {}
    text: Text | None = None
    upload: Name | None = Field(default=None, description="Name of the field of the multipart form that has the file.")


class NewItems(RootModel[Annotated[list[NewItem], Field(min_length=1)]]):
    """Items to add, or to put in the place of those with their keys."""


class ChangeOut(BaseModel):
    """A change that is on the disk."""

    items: int = Field(description="How many were added, updated or deleted.")
    version: int = Field(description="Number of the index's last change.")


class ModalityOut(BaseModel):
    """What there is of a modality."""

    kind: str = Field(description="Registered modality, e.g. image for both `front` and `back`.")
    items: int
    queries: bool = Field(description="Whether it can be searched by.")


class HealthOut(BaseModel):
    """What is served."""

    status: str = "ok"
    fingerprint: str
    version: int
    modalities: dict[str, ModalityOut]
    threads: int


class ErrorOut(BaseModel):
    """Why there is no answer."""

    error: str


class KnnIn(BaseModel):
    """A request of clip-retrieval's client; what this server has no model for is not looked at."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    text: Text | None = None
    image: str | None = Field(default=None, description="A picture in base64.")
    image_url: str | None = Field(default=None, description="Refused: this server asks nobody.")
    embedding_input: list[FiniteFloat] | None = None
    modality: Name = "image"
    num_images: int = Field(default=40, ge=1)
    num_result_ids: int | None = Field(default=None, ge=1)
    indice_name: Name | None = None
    deduplicate: bool = False


class MetadataIn(BaseModel):
    """A request of clip-retrieval's page for what is known of some answers."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    ids: list[Annotated[int, Field(ge=0, lt=2**63)]]
    indice_name: Name | None = None


Responses = dict[int | str, dict[str, Any]]
READS: Responses = {code: {"model": ErrorOut} for code in (404, 413, 421, 422, 500, 503, 504)}
TAKES: Responses = {**READS, 400: {"model": ErrorOut}, 415: {"model": ErrorOut}}
CHANGES: Responses = {**TAKES, 401: {"model": ErrorOut}, 403: {"model": ErrorOut}}
